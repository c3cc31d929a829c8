# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Finds out whether graphite-web could use a PostgreSQL database, without a change. This file is private to the collection."""

from __future__ import annotations

import re

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite import client_check, postgresql_client


def problem(database: dict, python: str, user: str) -> str | None:
    """Return what is in the way of graphite-web, or ``None``. Raises ``CheckError``."""
    answer, account = client_check.answer(postgresql_client, "python3-psycopg2", database, python, user)
    if answer["problem"] and account != user and re.search("[Pp]eer authentication", answer["problem"]):
        raise client_check.CheckError(f"it lets users in by their system account, and '{user}' does not exist yet")
    return answer["problem"]
