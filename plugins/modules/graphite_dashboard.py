#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_dashboard
short_description: A dashboard of graphite-web exists with this content, or does not exist
version_added: 1.0.0
description:
  - Creates, changes and deletes dashboards in graphite-web's database. Who owns a dashboard stays as it is.
  - What a dashboard shows is compared, not its bytes. A browser that saves it unchanged has changed nothing.
  - Before anything is written, graphite-web itself judges the targets, without fetching a series. One that it could not render
    is refused, with graphite-web's words, and so is one that it would read only the beginning of, such as a function
    whose last bracket is missing. One whose parameters it calls wrong, but that it would try to render as long as its
    setting C(ENFORCE_INPUT_VALIDATION) is off, gives a warning.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
options:
  name:
    description:
      - Name of the dashboard, which is a part of its address. Up to 128 characters of any script, but none of
        / ? \ & < > ~ ! @ # $ % ^ * ( ) and the backtick. Required without O(dashboards).
    type: str
  graphs: &graphs
    description:
      - The graphs, in their order. With O(state=present), either this or O(definition) is required.
    type: list
    elements: dict
    suboptions:
      targets:
        description:
          - Metric names, patterns or functions, as the render API takes them.
        type: list
        elements: str
        required: true
      title:
        description:
          - Title of the graph. Without it, graphite-web shows the target of a graph that has only one.
        type: str
      options:
        description:
          - Other parameters of the render API, such as C(vtitle), C(yMin), C(areaMode) and C(lineMode).
        type: dict
  definition: &definition
    description:
      - The dashboard as graphite-web exports it, as a dict or as JSON; the answer of C(/dashboard/load/NAME) will do. It has
        graphs, time range, size and refresh of its own. The name in it does not matter.
    type: json
  from: &from
    description:
      - Begin of the time range of O(graphs), relative to now.
    type: str
    default: -2hours
  until: &until
    description:
      - End of the time range of O(graphs), V(now) or relative to it.
    type: str
    default: now
  width: &width
    description:
      - Width of each of O(graphs), in pixels.
    type: int
    default: 600
  height: &height
    description:
      - Height of each of O(graphs), in pixels.
    type: int
    default: 300
  refresh: &refresh
    description:
      - How often the page draws O(graphs) anew, in seconds; V(0) for never.
    type: int
    default: 60
  state: &state
    description:
      - Whether the dashboard exists.
    type: str
    choices: [present, absent]
    default: present
  dashboards:
    description:
      - Several dashboards at once, each with O(name) and the other options of a dashboard. It costs what one of them costs, and
        if one is refused, none is written.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - As the option of this name above.
        type: str
        required: true
      graphs: *graphs
      definition: *definition
      from: *from
      until: *until
      width: *width
      height: *height
      refresh: *refresh
      state: *state
attributes:
  check_mode:
    description: Reports what would change, and refuses what would be refused; changes nothing.
    support: full
  diff_mode:
    description: Shows what the dashboard means, as RV(dashboards) does.
    support: full
"""

EXAMPLES = r"""
- name: Provide a dashboard
  metricstack.graphite.graphite_dashboard:
    name: Web shop
    from: -6hours
    graphs:
      - title: Requests per second
        targets:
          - alias(sumSeries(stats.counters.shop.*.requests.rate), 'requests')
        options:
          yMin: 0
          areaMode: first
      - targets:
          - stats.timers.shop.*.latency.upper_90

- name: Provide a dashboard that somebody has exported
  metricstack.graphite.graphite_dashboard:
    name: Web shop
    definition: "{{ lookup('ansible.builtin.file', 'shop.json') }}"

- name: Provide several
  metricstack.graphite.graphite_dashboard:
    dashboards:
      - name: Web shop
        graphs: [{targets: [stats.counters.shop.*.requests.rate]}]
      - name: Old shop
        state: absent

- name: Remove a dashboard
  metricstack.graphite.graphite_dashboard:
    name: Web shop
    state: absent
"""

RETURN = r"""
dashboards:
  description:
    - What each dashboard means now (in check mode, what it would mean), in the order of the options; null if there is none.
      Parameters are texts.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    from:
      description: Begin of the time range of its graphs.
      type: str
    until:
      description: End of the time range of its graphs.
      type: str
    range:
      description: The time range as the page words it.
      type: str
    width:
      description: Width of each graph in pixels.
      type: str
    height:
      description: Height of each graph in pixels.
      type: str
    refresh:
      description: Seconds after which the page draws the graphs anew; 0 for never.
      type: int
    defaults:
      description: Parameters of the render API for graphs that do not have them.
      type: dict
    graphs:
      description: Its graphs, in their order.
      type: list
      elements: dict
      contains:
        title:
          description: Title, if it has one.
          type: str
        targets:
          description: What it shows.
          type: list
          elements: str
        options:
          description: Its other parameters of the render API.
          type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
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


def shown(exists: bool, dashboard: dict | None) -> dict:
    """Return what a diff shows of a dashboard; one that exists can mean nothing to graphite-web's pages."""
    if not exists:
        return {"state": "absent"}
    return {"state": "present", **(dashboard or {"graphs": "not to be loaded"})}


class Comparison:
    """A dashboard as it is wanted beside what is stored of it."""

    def __init__(self, options: dict, module: AnsibleModule) -> None:
        self.name = options["name"]
        self.stored: str | None = None
        try:
            self._state = wanted_state(options) if options["state"] == "present" else None
        except DashboardError as error:
            module.fail_json(msg=f"Dashboard '{self.name}' {error}")

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
            "before": shown(self.stored is not None, self.current),
            "after": shown(self.wanted is not None, self.wanted),
        }

    @property
    def order(self) -> dict:
        """What the application is asked to check and to write."""
        if self._state is None:
            return {"name": self.name, "state": None, "graphs": []}
        return {"name": self.name, "state": to_text(self._state), "graphs": render_requests(self._state)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            **DASHBOARD_SPEC,
            "dashboards": {
                "type": "list",
                "elements": "dict",
                "options": {**DASHBOARD_SPEC, "name": {"type": "str", "required": True}},
            },
        },
        mutually_exclusive=[("name", "dashboards")],
        required_one_of=[("name", "dashboards")],
        supports_check_mode=True,
    )
    application = Application(module)
    several = module.params["dashboards"]
    comparisons = [Comparison(options, module) for options in ([module.params] if several is None else several)]
    verdict: dict = {"refused": [], "doubtful": []}
    try:
        installed = True
        stored: dict[str, str] = {}
        try:
            stored = application.ask("read_dashboards", names=[comparison.name for comparison in comparisons])["stored"]
        except ApplicationError as error:
            if not (module.check_mode and error.kind in ("not_installed", "no_schema")):
                raise
            installed = error.kind != "not_installed"
        for comparison in comparisons:
            comparison.stored = stored.get(comparison.name)
        differing = [comparison for comparison in comparisons if comparison.differs]
        orders = [comparison.order for comparison in differing]
        if orders and installed:
            verdict = application.ask("check_dashboards" if module.check_mode else "write_dashboards", dashboards=orders)
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", kind=error.kind, stderr=error.output)
    if verdict["refused"]:
        refusals = "; ".join(f"dashboard '{name}', target {target!r}: {words}" for name, target, words in verdict["refused"])
        module.fail_json(msg=f"graphite-web refuses {refusals}", kind="target")
    for name, target, words in verdict["doubtful"]:
        module.warn(f"Dashboard '{name}': graphite-web doubts target {target!r}: {words}")
    module.exit_json(
        changed=bool(differing),
        dashboards=[comparison.wanted for comparison in comparisons],
        diff=[comparison.diff for comparison in differing],
    )


if __name__ == "__main__":
    main()
