# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Read and write dashboards."""

from __future__ import annotations

from .schema import refuse_without_tables
from .targets import check_dashboards


def read_dashboards(connection, names: list[str]) -> dict[str, str]:
    """Return the states of those of the dashboards that exist, as they are stored, by name."""
    from graphite.dashboard.models import Dashboard

    refuse_without_tables(connection)
    return dict(Dashboard.objects.filter(name__in=names).values_list("name", "state"))


def write_dashboards(connection, dashboards: list[dict]) -> dict:
    """Give each dashboard its ``state`` and leave its owners alone; ``None`` deletes it. All are written, or none.

    Returns what :func:`check_dashboards` does, and writes nothing where it refuses a target.
    """
    from django.db import transaction
    from graphite.dashboard.models import Dashboard

    refuse_without_tables(connection)
    verdict = check_dashboards(connection, dashboards)
    if verdict["refused"]:
        return verdict
    with transaction.atomic():
        for dashboard in dashboards:
            name, state = dashboard["name"], dashboard["state"]
            if state is None:
                Dashboard.objects.filter(name=name).delete()
            elif not Dashboard.objects.filter(name=name).update(state=state):
                Dashboard.objects.create(name=name, state=state)
    return verdict
