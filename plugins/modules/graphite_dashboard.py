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
        / ? \ & < > ~ ! @ # $ % ^ * ( ) and the backtick.
    type: str
    required: true
  graphs:
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
  definition:
    description:
      - The dashboard as graphite-web exports it, as a dict or as JSON; the answer of C(/dashboard/load/NAME) will do. It has
        graphs, time range, size and refresh of its own. The name in it does not matter.
    type: json
  from:
    description:
      - Begin of the time range of O(graphs), relative to now.
    type: str
    default: -2hours
  until:
    description:
      - End of the time range of O(graphs), V(now) or relative to it.
    type: str
    default: now
  width:
    description:
      - Width of each of O(graphs), in pixels.
    type: int
    default: 600
  height:
    description:
      - Height of each of O(graphs), in pixels.
    type: int
    default: 300
  refresh:
    description:
      - How often the page draws O(graphs) anew, in seconds; V(0) for never.
    type: int
    default: 60
  state:
    description:
      - Whether the dashboard exists.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Reports what would change, and refuses what would be refused; changes nothing.
    support: full
  diff_mode:
    description: Shows what the dashboard means, as RV(dashboard) does.
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

- name: Remove a dashboard
  metricstack.graphite.graphite_dashboard:
    name: Web shop
    state: absent
"""

RETURN = r"""
dashboard:
  description: What the dashboard means now (in check mode, what it would mean); null if there is none. Parameters are texts.
  returned: success
  type: dict
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
from ansible_collections.metricstack.graphite.plugins.module_utils._dashboard import (
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
from ansible_collections.metricstack.graphite.plugins.module_utils._django import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)


def shown(exists: bool, dashboard: dict | None) -> dict:
    """Return what a diff shows of a dashboard; one that exists can mean nothing to graphite-web's pages."""
    if not exists:
        return {"state": "absent"}
    return {"state": "present", **(dashboard or {"graphs": "not to be loaded"})}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "name": {"type": "str", "required": True},
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
        },
        mutually_exclusive=[("graphs", "definition")],
        required_if=[("state", "present", ("graphs", "definition"), True)],
        supports_check_mode=True,
    )
    application = Application(module)
    name = module.params["name"]
    try:
        state = wanted_state(module.params) if module.params["state"] == "present" else None
        text = to_text(state) if state is not None else None
    except DashboardError as error:
        module.fail_json(msg=f"Dashboard '{name}' {error}")
    graphs = render_requests(state) if state is not None else []
    installed = True
    verdict: dict = {"refused": [], "doubtful": []}
    try:
        try:
            stored = application.ask("read_dashboard", name=name)["dashboard"]
        except ApplicationError as error:
            if not (module.check_mode and error.kind in ("not_installed", "no_schema")):
                raise
            stored = None
            installed = error.kind != "not_installed"
        current = stored_meaning(stored) if stored is not None else None
        wanted = meaning(state) if state is not None else None
        changed = (stored is None) != (wanted is None) or current != wanted
        if changed and not module.check_mode:
            verdict = application.ask("write_dashboard", name=name, wanted=text, graphs=graphs)
        elif changed and installed:
            verdict = application.ask("check_targets", graphs=graphs)
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", kind=error.kind, stderr=error.output)
    if verdict["refused"]:
        refusals = "; ".join(f"target {target!r}: {words}" for target, words in verdict["refused"])
        module.fail_json(msg=f"Dashboard '{name}': graphite-web refuses {refusals}", kind="target")
    for target, words in verdict["doubtful"]:
        module.warn(f"Dashboard '{name}': graphite-web doubts target {target!r}: {words}")
    module.exit_json(
        changed=changed,
        dashboard=wanted,
        diff={"before": shown(stored is not None, current), "after": shown(wanted is not None, wanted)},
    )


if __name__ == "__main__":
    main()
