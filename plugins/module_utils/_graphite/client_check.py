# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Asks a server as graphite-web would, with a client in a process of its own, without a change. This file is private to the collection."""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from typing import Iterator

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import become, source_of
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt

_SYSTEM_PYTHON = "/usr/bin/python3"


class CheckError(Exception):
    """The server cannot be asked from this host yet."""


def answer(client, package: str, request: dict, python: str, user: str) -> tuple[dict, str]:
    """Return what the program in the module ``client`` says to ``request``, and the name of the account that it ran as.

    Where ``python`` does not have what the client needs, the distribution's ``package`` is unpacked into a directory that is removed
    afterwards. Raises ``CheckError``.
    """
    account = _account(user)
    found = _run(client, python, request, account, {})
    if found is None:
        with unpacked(package) as environment:
            found = _run(client, _SYSTEM_PYTHON, request, account, environment)
    if found is None:
        raise CheckError(f"{package} of the distribution does not load in {_SYSTEM_PYTHON}")
    return found, account.pw_name


def _account(user: str) -> pwd.struct_passwd:
    for name in (user, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise CheckError(f"there is neither a user '{user}' nor 'nobody'")


def _run(client, python: str, request: dict, account: pwd.struct_passwd, environment: dict[str, str]) -> dict | None:
    """Return the answer of the program, or ``None`` without what it needs."""
    try:
        process = subprocess.run(
            [python, "-c", source_of(client)],
            input=json.dumps(request).encode(),
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
def unpacked(package: str) -> Iterator[dict[str, str]]:
    """Unpack a package and what the host lacks of its dependencies; yield the environment that finds them.

    Raises ``CheckError``.
    """
    # Not in TMPDIR, which only its owner may be able to enter.
    directory = tempfile.mkdtemp(prefix="graphite-driver-", dir="/var/tmp")
    try:
        os.chmod(directory, 0o755)
        try:
            apt.refuse_uninstallable([package], timeout=60)
            packages, _removals = apt.plan("install", package)
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
