# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""How the modules start programs of the system. This file is private to the collection."""

from __future__ import annotations

import os
import subprocess

_ADMINISTRATION = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def system_path(path: str | None) -> str:
    """Return ``path`` with the directories of the administration, which ``su`` and ``doas`` leave out."""
    present = (path or "/usr/local/bin:/usr/bin:/bin").split(":")
    return ":".join([*present, *(directory for directory in _ADMINISTRATION if directory not in present)])


def run(command: list[str]) -> subprocess.CompletedProcess:
    """Run ``command`` in the language C and return the completed process; a program that is missing has the status 127."""
    path = system_path(os.environ.get("PATH"))
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": path, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    try:
        # With a PATH of its own, subprocess searches in that one.
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
