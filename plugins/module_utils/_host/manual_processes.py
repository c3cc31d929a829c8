# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which processes were started manually. This file is private to the collection."""

from __future__ import annotations

import os
import re

from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run

# A process under another program would be started again by it.
_PARENTS = re.compile(r"|init|systemd|.*sh|screen|tmux.*|sudo|su|cron")


def is_started_manually(pid: int, names: list[str], command: str) -> bool:
    """Return whether the process was started from a shell or the like, and runs one of the programs with a matching command line.

    ``names`` are the base names of the program's file, ``command`` is a regular expression to find in its arguments, joined by
    spaces. A process of a container or a supervisor, or the main process of a service, does not count: it would be started again.
    """
    try:
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")) not in names:
            return False
        if os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            return False
        parent = _field(_read(f"/proc/{pid}/status"), r"(?m)^PPid:\s*(\d+)$")
        arguments = _read(f"/proc/{pid}/cmdline").replace("\0", " ")
        unit = _field(_read(f"/proc/{pid}/cgroup"), r"(?m)^0::.*/([^/]*\.service)$")
    except OSError:
        return False
    if not re.search(command, arguments) or not _PARENTS.fullmatch(_name(parent)):
        return False
    return not unit or run(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout.strip() != str(pid)


def _name(pid: str) -> str:
    try:
        return _read(f"/proc/{pid}/comm").strip()
    except OSError:
        return ""


def _read(path: str) -> str:
    with open(path, errors="replace") as stream:
        return stream.read()


def _field(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
