# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Finds out whether graphite-web could use a PostgreSQL database, without a change. This file is private to the collection."""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from typing import Iterator

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite import postgresql_client
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import become, source_of
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt

_DRIVER = "python3-psycopg2"
_SYSTEM_PYTHON = "/usr/bin/python3"


class CheckError(Exception):
    """The server cannot be asked from this host yet."""


def problem(database: dict, python: str, user: str) -> str | None:
    """Return what is in the way of graphite-web, or ``None``. Raises ``CheckError``.

    Where ``python`` has no driver yet, the distribution's is unpacked into a directory that is removed afterwards.
    """
    account = _account(user)
    answer = _run(python, database, account, {})
    if answer is None:
        with unpacked_driver() as environment:
            answer = _run(_SYSTEM_PYTHON, database, account, environment)
    if answer is None:
        raise CheckError(f"{_DRIVER} of the distribution does not load in {_SYSTEM_PYTHON}")
    if answer["problem"] and account.pw_name != user and re.search("[Pp]eer authentication", answer["problem"]):
        raise CheckError(f"it lets users in by their system account, and '{user}' does not exist yet")
    return answer["problem"]


def _account(user: str) -> pwd.struct_passwd:
    for name in (user, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise CheckError(f"there is neither a user '{user}' nor 'nobody'")


def _run(python: str, database: dict, account: pwd.struct_passwd, environment: dict[str, str]) -> dict | None:
    """Return the answer of the program, or ``None`` without a driver."""
    try:
        process = subprocess.run(
            [python, "-c", source_of(postgresql_client)],
            input=json.dumps(database).encode(),
            capture_output=True,
            cwd="/",
            env={"HOME": account.pw_dir, "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **environment},
            preexec_fn=become(account),  # the module has no threads
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        return None
    except (PermissionError, subprocess.SubprocessError) as error:
        raise CheckError(str(error)) from error
    if process.returncode == 3:
        return None
    try:
        return json.loads(process.stdout)
    except ValueError:
        raise CheckError(process.stderr.decode("utf-8", "replace").strip()[-500:]) from None


@contextmanager
def unpacked_driver() -> Iterator[dict[str, str]]:
    """Unpack the driver and what the host lacks of its dependencies; yield the environment that finds them.

    Raises ``CheckError``.
    """
    # Not in TMPDIR, which only its owner may be able to enter.
    directory = tempfile.mkdtemp(prefix="graphite-driver-", dir="/var/tmp")
    try:
        os.chmod(directory, 0o755)
        try:
            apt.refuse_uninstallable([_DRIVER], timeout=60)
            packages, _removals = apt.plan("install", _DRIVER)
        except apt.PackageError as error:
            raise CheckError(str(error)) from error
        _call(["apt-get", "--quiet", "download", *packages], directory)
        for archive in glob.glob(os.path.join(directory, "*.deb")):
            _call(["dpkg-deb", "--extract", archive, directory], directory)
        libraries = {os.path.dirname(path) for path in glob.glob(os.path.join(directory, "usr/lib/*/*.so*"))}
        yield {
            "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries)),
            "PYTHONPATH": os.path.join(directory, "usr/lib/python3/dist-packages"),
        }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _call(command: list[str], directory: str) -> None:
    process = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise CheckError(process.stderr.strip()[-500:])
