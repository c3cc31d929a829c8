# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What dpkg has and what apt would do. This file is private to the collection.

The states are those of dpkg(1); the plans are what ``apt-get --simulate`` prints (apt-get(8)).
"""

from __future__ import annotations

import os
import re
import shutil
import time

from ansible_collections.metricstack.graphite.plugins.module_utils._host import locks
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run

INSTALLED = ("installed", "triggers-awaited", "triggers-pending")
_ABSENT = ("not-installed", "config-files")
# Seconds for which fetched package lists are used before an installation, as a mirror soon drops replaced versions.
_LISTS_VALID = 3600
# An update that finds nothing new writes to the last of these directories only.
_LISTS = ("/var/lib/apt/periodic/update-success-stamp", "/var/lib/apt/lists", "/var/lib/apt/lists/partial")


class PackageError(Exception):
    """apt or dpkg failed or cannot be used; the text is its own message."""


class UninstallableError(PackageError):
    """Packages are not in the archives that apt knows, or conflict with installed ones."""


class LockedError(PackageError):
    """Another process has held a lock of apt or dpkg for longer than the caller waits."""


def refuse_other_systems() -> None:
    """Raise :class:`PackageError` where there is no apt."""
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        raise PackageError("dpkg or apt is missing; the collection supports Debian, Ubuntu and their derivatives")


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


def dependencies(package: str, is_installed: bool) -> list[str]:
    """Return what a package depends on, as installed, or else as apt would install it; nothing if there is none."""
    if is_installed:
        text = _run(["dpkg-query", "--show", "--showformat", "${Depends}", package])
    else:
        shown = run(["apt-cache", "show", "--no-all-versions", package]).stdout
        text = "".join(line.partition(":")[2] for line in shown.splitlines() if line.startswith("Depends:"))
    return re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]*)", text)


def half_installed(states: dict[str, str]) -> dict[str, str]:
    """Return the packages whose installation began and did not end."""
    return {name: state for name, state in states.items() if state not in INSTALLED + _ABSENT}


def plan(*arguments: str) -> tuple[list[str], list[str]]:
    """Return what apt-get would install and what it would remove; change nothing."""
    output = _run(["apt-get", "--simulate", "--quiet", "--option=APT::Install-Recommends=false", *arguments])
    installs, removals = ([match[1] for match in re.finditer(rf"(?m)^{word} (\S+)", output)] for word in ("Inst", "(?:Remv|Purg)"))
    return installs, removals


def read_requested() -> set[str]:
    """Return the packages that were installed manually."""
    return set(_run(["apt-mark", "showmanual"]).split())


def available_packages(packages: tuple[str, ...]) -> set[str]:
    """Return those of the packages of which the package lists of the host have a version that could be installed."""
    return set(re.findall(r"(?m)^(\S+):\n(?: .*\n)*? +Candidate: (?!\(none\))", _run(["apt-cache", "policy", *packages])))


def refuse_uninstallable(packages: list[str], timeout: float) -> list[str]:
    """Raise :class:`UninstallableError` unless apt could install the packages.

    Package lists that are older than an hour or do not have the packages are fetched, with a wait of ``timeout`` seconds for other
    processes. Returns a warning for each source that could not be fetched and each process that was waited for.
    """
    warnings = refresh_old_lists(timeout)
    try:
        removals = plan("install", *packages)[1]
    except PackageError:
        warnings += refresh_lists(timeout)
        try:
            removals = plan("install", *packages)[1]
        except PackageError as error:
            raise UninstallableError("\n  ".join([f"apt cannot install {', '.join(packages)}: {error}", *warnings])) from error
    if removals:
        raise UninstallableError(
            f"to install {', '.join(packages)}, apt would remove {', '.join(removals)}; remove or replace the conflicting packages"
        )
    return warnings


def refresh_old_lists(timeout: float) -> list[str]:
    """Fetch the package lists if they are older than an hour; return warnings as :func:`refresh_lists` does."""
    fetched = max((os.stat(path).st_mtime for path in _LISTS if os.path.exists(path)), default=0)
    return refresh_lists(timeout) if time.time() - fetched > _LISTS_VALID else []


def refresh_lists(timeout: float) -> list[str]:
    """Fetch the package lists; return a warning for each process that was waited for and each source that failed.

    A source that cannot be fetched is no error: the lists of all others are current then, and its own are the old ones.
    """
    warnings = wait_for_locks(timeout)
    process = run(["apt-get", "--quiet", "update"])
    return warnings + failed_sources(process.stderr)


def failed_sources(errors: str) -> list[str]:
    """Return a warning for each source that ``apt-get update`` could not fetch, from what it prints to standard error."""
    failures = dict.fromkeys(re.findall(r"(?m)^[WE]: (?:Failed to fetch |The repository |GPG error: )(.+)$", errors))
    return [f"a package source could not be fetched, its old package lists are used: {failure.strip()}" for failure in failures]


def wait_for_locks(timeout: float) -> list[str]:
    """Wait until no other process holds a lock of apt or dpkg; return a warning for each one that was waited for.

    Raises :class:`LockedError` after ``timeout`` seconds.
    """
    names, released = locks.wait(timeout)
    if not released:
        raise LockedError(
            f"{names[-1]} has held a lock of apt or dpkg for the {timeout:g} s that this run waited. Run the playbook again once it has"
            " ended."
        )
    return [f"waited for {name}, which held a lock of apt or dpkg" for name in names]


def _run(command: list[str]) -> str:
    process = run(command)
    if process.returncode != 0:
        # Of a refusal, the reasons are on standard output after its heading.
        _head, heading, reasons = process.stdout.partition("The following packages have unmet dependencies:")
        raise PackageError("\n".join(part.strip() for part in (heading + reasons, process.stderr) if part.strip()))
    return process.stdout
