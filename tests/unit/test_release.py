# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A release is built from a tag that galaxy.yml and the changelog agree with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]


@pytest.fixture
def checkout(tmp_path):
    """Return a small collection of the same name and version, whose changelog is complete."""
    for name in ("galaxy.yml", "CHANGELOG.rst", "README.md", "LICENSE", "script/release", "meta/runtime.yml"):
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "checkout" / name)
    (tmp_path / "checkout" / "changelogs" / "fragments").mkdir(parents=True)
    return tmp_path / "checkout"


@pytest.fixture
def release(checkout, tmp_path):
    def run(version: str, **environment: str) -> subprocess.CompletedProcess:
        command = [checkout / "script" / "release", version, tmp_path / "dist"]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})

    return run


@pytest.fixture
def galaxy_stand_in():
    """Yield the address of a server that takes artefacts as Galaxy does, and the list of what it has got."""
    received = []

    class Galaxy(BaseHTTPRequestHandler):
        def answer(self, content):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def do_GET(self):
            imported = {"state": "completed", "messages": [], "finished_at": "2026-01-01T00:00:00Z", "error": None}
            self.answer(imported if "imports" in self.path else {"available_versions": {"v3": "v3/"}})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Authorization"], body))
            self.answer({"task": f"http://{self.headers['Host']}/api/v3/imports/collections/1/"})

        def log_message(self, *_arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Galaxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/", received
        server.shutdown()


def test_a_complete_release_is_built_and_without_a_token_not_published(release, tmp_path, galaxy_stand_in):
    address, received = galaxy_stand_in
    result = release(VERSION, ANSIBLE_GALAXY_SERVER=address)
    assert (result.returncode, received) == (0, []), result.stderr
    assert "nothing is published" in result.stdout
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [f"metricstack-graphite-{VERSION}.tar.gz"]


def test_a_release_is_published_with_the_token(release, tmp_path, galaxy_stand_in):
    address, received = galaxy_stand_in
    result = release(VERSION, ANSIBLE_GALAXY_SERVER=address, GALAXY_TOKEN="secret-of-the-repository")
    assert result.returncode == 0, result.stderr
    assert "secret-of-the-repository" not in result.stdout + result.stderr
    ((path, authorization, body),) = received
    assert (path, authorization) == ("/api/v3/artifacts/collections/", "Token secret-of-the-repository")
    artefact = (tmp_path / "dist" / f"metricstack-graphite-{VERSION}.tar.gz").read_bytes()
    assert hashlib.sha256(artefact).hexdigest().encode() in body


@pytest.mark.parametrize(
    ("tag", "damage", "message"),
    [
        ("99.0.0", lambda _checkout: None, f"galaxy.yml has version {VERSION}, and not 99.0.0"),
        (VERSION, lambda checkout: (checkout / "changelogs/fragments/new.yml").touch(), "The changelog lacks changelogs/fragments/new.yml"),
        (VERSION, lambda checkout: (checkout / "CHANGELOG.rst").write_text("v1.0.0\n======\n"), "newest version in CHANGELOG.rst is 1.0.0"),
    ],
    ids=["another version", "unreleased changes", "no entry in the changelog"],
)
def test_what_contradicts_the_tag_ends_the_release(release, checkout, tmp_path, tag, damage, message):
    damage(checkout)
    result = release(tag)
    assert (result.returncode, list((tmp_path / "dist").iterdir())) == (1, [])
    assert message in result.stderr
