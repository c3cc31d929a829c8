# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Units that do not run, or that systemd has restarted. This file is private to the collection."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import (
    ONGOING_SECONDS,
    Limits,
    Report,
    counted,
    iso_time,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.services import active_since, is_running, state_since

# One restart may be an accident; after the third, the cause is still there.
_MANY_RESTARTS = 3


def check_services(report: Report, limits: Limits, states: dict[str, dict[str, str]], now: float) -> None:
    """Report services that do not run, and those that were restarted lately."""
    for unit, state in states.items():
        restarts = int(state.get("NRestarts") or 0)
        look = f"journalctl --unit {unit} has the reason"
        if state["LoadState"] == "not-found":
            report.critical("unit_down", None, "not-found", f"{unit} does not exist. Run site.yml.")
        elif not is_running(state) or (restarts and state["ActiveState"] == "activating"):
            # systemd does not record when a unit that it starts again and again has run last.
            since = None if state["ActiveState"] == "activating" else state_since(state)
            value = f"{state['ActiveState']} ({state['SubState']})"
            report.critical(
                "unit_down",
                since,
                value,
                f"{unit} is {value}, after {counted(restarts, 'restart')} by systemd. {look}; site.yml starts the unit.",
            )
        elif restarts:
            since = active_since(state)
            if since is None or since < now - limits.recent:
                continue
            add = report.critical if restarts >= _MANY_RESTARTS and since >= now - ONGOING_SECONDS else report.warn
            add(
                "unit_restarted",
                since,
                restarts,
                f"systemd has restarted {unit} {counted(restarts, 'time')}, most recently at {iso_time(since)}. What it had in memory is"
                f" lost. {look}.",
            )


def check_jobs(report: Report, states: dict[str, dict[str, str]]) -> None:
    """Report jobs, units that a timer starts, whose last run has failed."""
    for unit, state in states.items():
        if state["ActiveState"] == "failed":
            report.warn(
                "job_failed",
                state_since(state),
                state.get("Result", "failed"),
                f"The last run of {unit} has failed ({state.get('Result', 'failed')}). journalctl --unit {unit} has the reason.",
            )
