# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Upgrades a database to the schema of the installed graphite-web. This file is private to the collection."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import Application


@dataclass
class Upgrade:
    """What a database lacked, what was done about it, and what it still lacks."""

    pending: list[str]
    remaining: list[str]
    applied: list[str] = field(default_factory=list)
    faked: list[str] = field(default_factory=list)
    completed: dict[str, list[str]] = field(default_factory=dict)
    backup_file: str | None = None

    @property
    def result(self) -> dict:
        """What a module returns."""
        return {
            "pending": self.pending,
            "applied": self.applied,
            "faked": self.faked,
            "completed": self.completed,
            "backup_file": self.backup_file,
        }

    @property
    def diff(self) -> dict:
        """What a module shows."""
        return {
            "before_header": "migrations",
            "after_header": "migrations",
            "before": {"pending": self.pending},
            "after": {"pending": self.remaining},
        }


def upgrade(application: Application, database: str, backup_directory: str | None, check_mode: bool) -> Upgrade:
    """Apply what is pending, or in check mode list it. Raises ``ApplicationError``."""
    pending = application.ask("pending", database)["pending"]
    if check_mode or not pending:
        return Upgrade(pending, [])
    done = application.ask("migrate", database, backup_directory=backup_directory)
    return Upgrade(pending, application.ask("pending", database)["pending"], **done)
