# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The kinds of refusal, which this process and the module that started it have in common."""

from __future__ import annotations

from enum import Enum


class Kind(str, Enum):
    """Why the application did not do what it was asked for."""

    NOT_INSTALLED = "not_installed"
    SETTINGS = "settings"
    NO_SCHEMA = "no_schema"
    NEWER_DATABASE = "newer_database"
    MIGRATION = "migration"
    DATABASE = "database"
    PERMISSION = "permission"
    ENGINE = "engine"
    UNREACHABLE = "unreachable"
    PENDING = "pending"
    CONTENT = "content"
    MOVE = "move"
    CRASH = "crash"


class RefusalError(Exception):
    """A state in which nothing may be changed; ``kind`` identifies it for the caller."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
