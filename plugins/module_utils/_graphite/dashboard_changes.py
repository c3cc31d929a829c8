# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Creates, changes and deletes dashboards of graphite-web. This file is private to the collection."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import Application, ApplicationError
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import (
    DEFAULT_FROM,
    DEFAULT_HEIGHT,
    DEFAULT_REFRESH,
    DEFAULT_UNTIL,
    DEFAULT_WIDTH,
    DashboardError,
    meaning,
    render_requests,
    stored_meaning,
    to_text,
    wanted_state,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind

DASHBOARD_SPEC: dict = {
    "name": {"type": "str"},
    "graphs": {
        "type": "list",
        "elements": "dict",
        "options": {
            "targets": {"type": "list", "elements": "str", "required": True},
            "title": {"type": "str"},
            "options": {"type": "dict"},
        },
    },
    "definition": {"type": "json"},
    "from": {"type": "str", "default": DEFAULT_FROM},
    "until": {"type": "str", "default": DEFAULT_UNTIL},
    "width": {"type": "int", "default": DEFAULT_WIDTH},
    "height": {"type": "int", "default": DEFAULT_HEIGHT},
    "refresh": {"type": "int", "default": DEFAULT_REFRESH},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
DASHBOARDS_SPEC: dict = {
    "type": "list",
    "elements": "dict",
    "options": {**DASHBOARD_SPEC, "name": {"type": "str", "required": True}},
}


class TargetError(ValueError):
    """Graphite-web refuses the target of a graph."""


class Comparison:
    """A dashboard as it is wanted beside what is stored. Raises ``DashboardError``."""

    def __init__(self, options: dict) -> None:
        self.name: str = options["name"]
        self.stored: str | None = None
        try:
            self._state = wanted_state(options) if options["state"] == "present" else None
        except DashboardError as error:
            raise DashboardError(f"Dashboard '{self.name}' {error}") from error

    @property
    def wanted(self) -> dict | None:
        return None if self._state is None else meaning(self._state)

    @property
    def current(self) -> dict | None:
        return None if self.stored is None else stored_meaning(self.stored)

    @property
    def differs(self) -> bool:
        return (self.stored is None) != (self._state is None) or self.current != self.wanted

    @property
    def diff(self) -> dict:
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": _shown(self.stored is not None, self.current),
            "after": _shown(self.wanted is not None, self.wanted),
        }

    @property
    def order(self) -> dict:
        """What the application is asked to check and to write."""
        if self._state is None:
            return {"name": self.name, "state": None, "graphs": []}
        return {"name": self.name, "state": to_text(self._state), "graphs": render_requests(self._state)}


def _shown(exists: bool, dashboard: dict | None) -> dict:
    """Return what a diff shows of a dashboard; one that exists can mean nothing to graphite-web's pages."""
    if not exists:
        return {"state": "absent"}
    return {"state": "present", **(dashboard or {"graphs": "not to be loaded"})}


def apply_dashboards(application: Application, dashboards: list[dict], check_mode: bool) -> tuple[list[Comparison], list[str]]:
    """Write the dashboards that differ, all or none, or in check mode compare them; return them and warnings.

    Raises ``ApplicationError``, ``DashboardError`` and ``TargetError``.
    """
    comparisons = [Comparison(options) for options in dashboards]
    if not comparisons:
        return [], []
    installed = True
    stored: dict = {}
    try:
        stored = application.ask("read_dashboards", names=[comparison.name for comparison in comparisons])
    except ApplicationError as error:
        if not (check_mode and error.kind in (Kind.NOT_INSTALLED, Kind.NO_SCHEMA)):
            raise
        installed = error.kind is not Kind.NOT_INSTALLED
    for comparison in comparisons:
        comparison.stored = stored.get(comparison.name)
    orders = [comparison.order for comparison in comparisons if comparison.differs]
    verdict: dict = {"refused": [], "doubtful": []}
    if orders and installed:
        verdict = application.ask("check_dashboards" if check_mode else "write_dashboards", dashboards=orders)
    if verdict["refused"]:
        refusals = "; ".join(f"dashboard '{name}', target {target!r}: {message}" for name, target, message in verdict["refused"])
        raise TargetError(f"graphite-web refuses {refusals}")
    return comparisons, [
        f"Dashboard '{name}': graphite-web doubts target {target!r}: {message}" for name, target, message in verdict["doubtful"]
    ]
