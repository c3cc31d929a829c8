# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which packages provide a time zone. This file is private to the collection."""

from __future__ import annotations

import os

DIRECTORY = "/usr/share/zoneinfo"
# Names from before the present ones of the continents, such as US/Eastern, are in the second package since Debian 13 and
# Ubuntu 24.04.
PACKAGES = ("tzdata", "tzdata-legacy")
_UNIVERSAL = ("UTC", "Etc/UTC")


def packages_for(name: str, installed: set[str], available: set[str], directory: str = DIRECTORY) -> list[str]:
    """Return the packages that are to be installed for the time zone; an empty list if it exists or if no package is known to provide it.

    Which of the packages has a name is not known before they are unpacked, so that both are named where both are missing.
    """
    if exists(name, directory):
        return []
    wanted = PACKAGES[:1] if name in _UNIVERSAL else PACKAGES
    return [package for package in wanted if package in available and package not in installed]


def exists(name: str, directory: str = DIRECTORY) -> bool:
    """Return whether the host knows the time zone."""
    return os.path.isfile(os.path.join(directory, name))


def problem(variable: str, name: str) -> str:
    """Return the message for a time zone that no package provides."""
    return (
        f"{variable} is {name}, but the host has no such time zone ({DIRECTORY}/{name} does not exist), and no package that apt knows"
        " provides it. Choose one of those that timedatectl list-timezones prints."
    )
