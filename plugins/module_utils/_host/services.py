# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Units of systemd: their state, their age, and what they read at their start. This file is private to the collection.

Sources of the formats: systemctl(1), proc_pid_maps(5).
"""

from __future__ import annotations

import calendar
import fnmatch
import glob
import os
import re
import time

from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import Socket

_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "NRestarts",
    "NFileDescriptorStore",
    "Result",
    "ActiveEnterTimestamp",
    "StateChangeTimestamp",
)
_RUNNING = ("active", "reloading", "refreshing")
_ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "alias", "generated", "linked")
_LIBRARY = re.compile(r"\.so[\w.+-]* \(deleted\)\Z")
# Where programs map files that they delete by themselves: closures of libffi and the like.
_PASSING = ("/memfd:", "/dev/", "/SYSV", "/tmp/", "/var/tmp/", "/run/")


class ServiceError(Exception):
    """An error of systemd, with its message."""


def systemctl(*arguments: str) -> str:
    """Run systemctl and return what it prints; raise :class:`ServiceError` if it fails."""
    process = run(["systemctl", *arguments])
    if process.returncode != 0:
        raise ServiceError(f"systemctl {' '.join(arguments)}: {(process.stderr or process.stdout).strip()}")
    return process.stdout


def read_states(units: list[str]) -> dict[str, dict[str, str]]:
    """Return the properties of each unit, by its name; a unit that does not exist has the ``LoadState`` ``not-found``."""
    if not units:
        return {}
    output = systemctl("show", "--timestamp=us+utc", f"--property={','.join(_PROPERTIES)}", "--", *units)
    blocks = output.strip("\n").split("\n\n")
    return {unit: dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for unit, block in zip(units, blocks)}


def is_running(state: dict[str, str]) -> bool:
    """Return whether the unit runs, or is just being started by another process."""
    return state["ActiveState"] in _RUNNING or (state["ActiveState"] == "activating" and not state["SubState"].startswith("auto-restart"))


def is_enabled(state: dict[str, str]) -> bool:
    """Return whether the unit is started at boot, according to its file."""
    return state.get("UnitFileState") in _ENABLED


def active_since(state: dict[str, str]) -> float | None:
    """Return when the unit became active, in seconds since the epoch; a reload does not count. ``None`` if it never did."""
    return _timestamp(state.get("ActiveEnterTimestamp", ""))


def state_since(state: dict[str, str]) -> float | None:
    """Return when the unit has entered its state, in seconds since the epoch; ``None`` if it has always been in it."""
    return _timestamp(state.get("StateChangeTimestamp", ""))


def _timestamp(text: str) -> float | None:
    match = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)? UTC", text)
    if not match:
        return None
    return calendar.timegm(time.strptime(match[1], "%Y-%m-%d %H:%M:%S")) + float(match[2] or 0)


def matching_units(patterns: list[str], directory: str = "/etc/systemd/system") -> list[str]:
    """Return the units that match one of the globs and are loaded, or would be started with the next boot."""
    if not patterns:
        return []
    lines = systemctl("list-units", "--all", "--plain", "--no-legend", "--", *patterns).splitlines()
    names = {line.split()[0] for line in lines if line.split()}
    for pattern in patterns:
        names |= {os.path.basename(path) for path in glob.glob(f"{directory}/*.wants/{pattern}")}
    return sorted(names)


def boot_links(unit: str, directory: str = "/etc/systemd/system") -> list[str]:
    """Return the links by which targets want the unit at boot, also where the file of the unit is gone."""
    return glob.glob(f"{directory}/*.wants/{glob.escape(unit)}")


def disable(unit: str, state: dict[str, str]) -> None:
    """Take the unit out of the next boot; systemctl does not do that where the file of the unit is gone."""
    if state["LoadState"] != "not-found":
        systemctl("disable", "--", unit)
        return
    for link in boot_links(unit):
        os.unlink(link)


def changed_at(path: str) -> float:
    """Return when ``path`` has changed last, in seconds since the epoch; a link counts by its own age and by its target's.

    A time of modification in the future says nothing, so that the time of the change of the inode counts then.
    """
    times = [os.lstat(path)]
    if os.path.islink(path) and os.path.exists(path):
        times.append(os.stat(path))
    now = time.time()
    return max(min(status.st_ctime, now) if status.st_mtime > now else status.st_mtime for status in times)


def newer_path(patterns: list[str], started: float) -> str | None:
    """Return the first path that matches one of the globs and has changed after ``started``, or ``None``."""
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            try:
                if changed_at(path) > started:
                    return path
            except FileNotFoundError:
                continue
    return None


def touched_path(patterns: list[str], changed_paths: list[str]) -> str | None:
    """Return the first of ``changed_paths`` that matches one of the globs, or ``None``."""
    return next((path for path in changed_paths for pattern in patterns if fnmatch.fnmatchcase(path, pattern)), None)


def processes_of(unit: str, proc: str = "/proc") -> list[int]:
    """Return the processes in the control group of ``unit``."""
    found = []
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                with open(f"{proc}/{entry}/cgroup") as stream:
                    groups = stream.read()
            except OSError:
                continue
            if any(unit in line.split(":", 2)[-1].split("/") for line in groups.splitlines()):
                found.append(int(entry))
    return sorted(found)


def replaced_file(pid: int, proc: str = "/proc") -> str | None:
    """Return the executable or a library that the process uses although it has been replaced on disk, or ``None``.

    What may not be looked at counts as current.
    """
    try:
        executable = os.readlink(f"{proc}/{pid}/exe")
        if executable.endswith(" (deleted)") and not executable.startswith("/memfd:"):
            return executable[: -len(" (deleted)")]
        with open(f"{proc}/{pid}/maps") as stream:
            for line in stream:
                path = line.rstrip("\n").split(None, 5)[5:]
                if path and _LIBRARY.search(path[0]) and not path[0].startswith(_PASSING):
                    return path[0][: -len(" (deleted)")]
    except OSError:
        return None
    return None


def missing_sockets(unit: str, wanted: list[dict], sockets: list[Socket], pids: list[int]) -> list[str]:
    """Return those of the ``wanted`` sockets (``protocol``, ``port``) that no process of ``unit`` has opened."""
    own = [socket for socket in sockets if unit in socket.group.split("/") or (pids and set(socket.pids) & set(pids))]
    opened = {(protocol, socket.port) for socket in own for protocol in (socket.protocol, "any")}
    return [
        f"port {item['port']}" if item["protocol"] == "any" else f"{item['protocol']} port {item['port']}"
        for item in wanted
        if (item["protocol"], int(item["port"])) not in opened
    ]


def last_lines(unit: str, number: int = 15) -> str:
    """Return the last lines of the journal of ``unit``."""
    output = run(["journalctl", "--no-pager", "--quiet", "--output=short", f"--lines={number}", f"--unit={unit}"]).stdout
    return output.strip() or "(the journal has none)"
