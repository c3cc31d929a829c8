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


def git(checkout: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, env={**os.environ, **identity})


@pytest.fixture
def checkout(tmp_path):
    """Return a small collection of the same name and version, whose changelog is complete, without a commit."""
    directory = tmp_path / "checkout"
    for name in ("galaxy.yml", "CHANGELOG.rst", "README.md", "LICENSE", "script/release", "meta/runtime.yml"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    (directory / "changelogs" / "fragments").mkdir(parents=True)
    (directory / "changelogs" / "fragments" / ".gitkeep").touch()
    git(directory, "init")
    return directory


def tag(checkout: Path, version: str) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--message", "Release")
    git(checkout, "tag", version)


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


def test_a_complete_release_is_built_and_without_a_token_not_published(release, checkout, tmp_path, galaxy_stand_in):
    address, received = galaxy_stand_in
    tag(checkout, VERSION)
    result = release(VERSION, ANSIBLE_GALAXY_SERVER=address)
    assert (result.returncode, received) == (0, []), result.stderr
    assert "nothing is published" in result.stdout
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [f"metricstack-graphite-{VERSION}.tar.gz"]


def test_a_release_is_published_with_the_token(release, checkout, tmp_path, galaxy_stand_in):
    address, received = galaxy_stand_in
    tag(checkout, VERSION)
    result = release(VERSION, ANSIBLE_GALAXY_SERVER=address, GALAXY_TOKEN="secret-of-the-repository")
    assert result.returncode == 0, result.stderr
    assert "secret-of-the-repository" not in result.stdout + result.stderr
    ((path, authorization, body),) = received
    assert (path, authorization) == ("/api/v3/artifacts/collections/", "Token secret-of-the-repository")
    artefact = (tmp_path / "dist" / f"metricstack-graphite-{VERSION}.tar.gz").read_bytes()
    assert hashlib.sha256(artefact).hexdigest().encode() in body


@pytest.mark.parametrize(
    ("version", "damage", "message"),
    [
        ("99.0.0", {}, f"galaxy.yml has version {VERSION}, and not 99.0.0"),
        (VERSION, {"changelogs/fragments/new.yml": ""}, "The changelog lacks changelogs/fragments/new.yml"),
        (VERSION, {"CHANGELOG.rst": "v1.0.0\n======\n"}, "newest version in CHANGELOG.rst is 1.0.0"),
    ],
    ids=["another version", "unreleased changes", "no entry in the changelog"],
)
def test_what_contradicts_the_tag_ends_the_release(release, checkout, tmp_path, version, damage, message):
    for name, content in damage.items():
        (checkout / name).write_text(content)
    tag(checkout, version)
    result = release(version)
    assert (result.returncode, list((tmp_path / "dist").iterdir())) == (1, [])
    assert message in result.stderr


def test_nothing_but_the_tagged_commit_is_released(release, checkout, tmp_path):
    tag(checkout, "1.0.0")
    assert f"The commit lacks the tag {VERSION}" in release(VERSION).stderr
    git(checkout, "tag", VERSION)
    (checkout / "README.md").write_text("Something else\n")
    assert "differs from the tag:  M README.md" in release(VERSION).stderr
    assert list((tmp_path / "dist").iterdir()) == []
