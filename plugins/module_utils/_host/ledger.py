# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which packages were installed for which owner, and which of them can go. This file is private to the collection.

The ledger has a line ``OWNER PACKAGE`` for each package that was missing when its owner needed it. A package without a line was
on the host before, and stays.
"""

from __future__ import annotations

import os

from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt
from ansible_collections.metricstack.graphite.plugins.module_utils._host.files import replace_file

# Belongs to any host that has a network, whoever installed it first; never recorded and never removed.
_PERMANENT = {"iproute2"}


class Ledger:
    """The file ``path``, as pairs of owner and package in the order of their lines."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries: list[tuple[str, str]] = []
        if os.path.exists(path):
            with open(path) as stream:
                self._entries = [(line.split()[0], line.split()[1]) for line in stream if len(line.split()) == 2]

    def add(self, packages: dict[str, list[str]]) -> bool:
        """Record packages by owner; return whether the file changed."""
        added = [(owner, name) for owner, names in packages.items() for name in names if name not in _PERMANENT]
        return self._write(list(dict.fromkeys(self._entries + added)))

    def remove(self, owners: list[str]) -> bool:
        """Remove all lines of the owners; return whether the file changed."""
        return self._write([entry for entry in self._entries if entry[0] not in owners])

    def packages_of(self, owners: list[str]) -> set[str]:
        """Return the packages that were installed for the owners."""
        return {name for owner, name in self._entries if owner in owners}

    def packages_of_others(self, owners: list[str]) -> set[str]:
        """Return the packages that were installed for other owners."""
        return {name for owner, name in self._entries if owner not in owners}

    def has_owner(self, owners: list[str]) -> bool:
        """Return whether the file has a line of one of the owners."""
        return any(owner in owners for owner, _name in self._entries)

    def _write(self, entries: list[tuple[str, str]]) -> bool:
        if entries == self._entries:
            return False
        replace_file(self._path, "".join(f"{owner} {name}\n" for owner, name in entries), os.geteuid(), os.getegid(), 0o644)
        self._entries = entries
        return True


def removable_packages(packages: dict[str, list[str]], ledger: Ledger) -> tuple[list[str], dict[str, str]]:
    """Return the packages that can go with the owners, and those that are installed and stay, each with the reason.

    Those that can go are the ones installed for the owners that nothing else needs that was installed manually, and with them those
    that only they needed. What has no use any more for other reasons stays.
    """
    owners = list(packages)
    recorded, others = ledger.packages_of(owners), ledger.packages_of_others(owners)
    states = apt.read_states()
    wanted = {name for names in packages.values() for name in names} - _PERMANENT
    installed = [name for name in sorted(wanted | recorded) if states.get(name) in apt.INSTALLED]
    candidates, kept = [], {}
    requested = apt.read_requested() if installed else set()
    for name in installed:
        if name not in recorded:
            kept[name] = "was there before"
        elif name in others:
            kept[name] = "another role needs it"
        elif users := set(apt.plan("remove", name)[1]) & requested - recorded:
            kept[name] = f"{', '.join(sorted(users))} needs it"
        else:
            candidates.append(name)
    if not candidates:
        return [], kept
    idle_anyway = set(apt.plan("autoremove")[1])
    return sorted(set(apt.plan("autoremove", *candidates)[1]) - idle_anyway), kept
