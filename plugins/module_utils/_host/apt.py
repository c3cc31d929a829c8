# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What dpkg has and what apt would do. This file is private to the collection.

The states are those of dpkg(1); the plans are what ``apt-get --simulate`` prints (apt-get(8)).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

INSTALLED = ("installed", "triggers-awaited", "triggers-pending")
_ABSENT = ("not-installed", "config-files")


class PackageError(Exception):
    """apt or dpkg could not answer; the message has their words."""


class UninstallableError(PackageError):
    """Packages are not in the archives that apt knows, or do not go with what is installed."""


def refuse_other_systems() -> None:
    """Raise :class:`PackageError` where there is no apt."""
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        raise PackageError("it has no dpkg and no apt; Debian, Ubuntu and what is made from them have")


def read_states() -> dict[str, str]:
    """Return the state of every package that dpkg knows, by its name."""
    output = _run(["dpkg-query", "--show", "--showformat", r"${Package} ${db:Status-Status} ${db:Status-Eflag}\n"])
    states: dict[str, str] = {}
    for name, status, flag in (line.split() for line in output.splitlines()):
        state = status if flag == "ok" else flag
        # Of two architectures, the one that matters is the one that is not whole.
        if state not in INSTALLED + _ABSENT or states.get(name, "not-installed") in _ABSENT:
            states[name] = state
    return states


def half_installed(states: dict[str, str]) -> dict[str, str]:
    """Return the packages whose installation began and did not end."""
    return {name: state for name, state in states.items() if state not in INSTALLED + _ABSENT}


def plan(*words: str) -> tuple[list[str], list[str]]:
    """Return what apt-get would install and what it would remove; change nothing."""
    output = _run(["apt-get", "--simulate", "--quiet", "--option=APT::Install-Recommends=false", *words])
    installs, removals = ([match[1] for match in re.finditer(rf"(?m)^{word} (\S+)", output)] for word in ("Inst", "(?:Remv|Purg)"))
    return installs, removals


def read_requested() -> set[str]:
    """Return the packages that somebody asked for by name."""
    return set(_run(["apt-mark", "showmanual"]).split())


def refuse_uninstallable(packages: list[str]) -> None:
    """Raise :class:`UninstallableError` unless apt could install the packages; lists that are too old are fetched anew."""
    try:
        removals = plan("install", *packages)[1]
    except PackageError:
        complaint = _start(["apt-get", "--quiet", "update"]).stderr.strip()
        try:
            removals = plan("install", *packages)[1]
        except PackageError as error:
            raise UninstallableError(
                f"apt cannot install {', '.join(packages)}: {error}" + (f" (apt-get update: {complaint})" if complaint else "")
            ) from error
    if removals:
        raise UninstallableError(
            f"to install {', '.join(packages)}, apt would remove {', '.join(removals)}; remove or replace what is in the way"
        )


def _run(command: list[str]) -> str:
    process = _start(command)
    if process.returncode != 0:
        # Of a refusal, the reasons are on standard output after its heading.
        _head, heading, reasons = process.stdout.partition("The following packages have unmet dependencies:")
        raise PackageError("\n".join(part.strip() for part in (heading + reasons, process.stderr) if part.strip()))
    return process.stdout


def _start(command: list[str]) -> subprocess.CompletedProcess:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
