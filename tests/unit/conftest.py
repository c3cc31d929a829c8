# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_module():
    """Run a module of the collection on this machine as Ansible does; return its result, with the diff as a user sees it."""

    def run(module: str, /, *flags: str, **arguments: object) -> dict:
        result = subprocess.run(
            ["ansible", "localhost", "--diff", *flags, "-m", f"metricstack.graphite.{module}", "-a", json.dumps(arguments)],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if "password" in arguments:
            assert str(arguments["password"]) not in result.stdout + result.stderr
        diff, _arrow, answer = result.stdout.partition(" => ")
        return {**json.loads(answer), "shown_diff": diff}

    return run


@pytest.fixture(scope="session")
def statsd_release(tmp_path_factory):
    """Return a directory with what the role statsd installs, built as it builds it."""
    files = ROOT / "roles" / "statsd" / "files"
    directory = tmp_path_factory.mktemp("statsd")
    archive = directory / "statsd.tar.gz"
    subprocess.run(["sh", files / "build.sh", files, archive], check=True, capture_output=True, timeout=120)
    with tarfile.open(archive) as tar:
        tar.extractall(directory)
    return directory
