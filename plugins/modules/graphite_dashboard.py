#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_dashboard
short_description: Manage graphite-web dashboards
version_added: 1.0.0
description:
  - Creates, changes and deletes dashboards in graphite-web's database. The owner of a dashboard is not changed.
  - Compares the meaning of a dashboard, not its bytes. Saving an unchanged dashboard in a browser is not a change.
  - Before anything is written, graphite-web itself checks the targets, without fetching a series. One that it could not render
    is refused, with graphite-web's message, and so is one that it would read only the beginning of, such as a function
    whose last bracket is missing. One whose parameters it calls wrong, but that it would try to render as long as its
    setting C(ENFORCE_INPUT_VALIDATION) is off, gives a warning.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
  - metricstack.graphite.content.dashboard
  - metricstack.graphite.content.dashboards
options:
  name:
    description:
      - Name of the dashboard, which is a part of its address. Up to 128 characters of any script, but none of
        / ? \ & < > ~ ! @ # $ % ^ * ( ) and the backtick. Required without O(dashboards).
    required: false
attributes:
  check_mode:
    description: Reports what would change, and refuses what would be refused; changes nothing.
    support: full
  diff_mode:
    description: Shows what the dashboard means, as RV(dashboards) does.
    support: full
seealso:
  - module: metricstack.graphite.graphite_database
  - module: metricstack.graphite.graphite_user
"""

EXAMPLES = r"""
- name: Create a dashboard
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

- name: Create a dashboard from an export
  metricstack.graphite.graphite_dashboard:
    name: Web shop
    definition: "{{ lookup('ansible.builtin.file', 'shop.json') }}"

- name: Manage several dashboards
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
      description: The time range as the page displays it.
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
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboard_changes import (
    DASHBOARD_SPEC,
    DASHBOARDS_SPEC,
    TargetError,
    apply_dashboards,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import DashboardError


def main() -> None:
    module = AnsibleModule(
        argument_spec={**DJANGO_ARGUMENT_SPEC, **DASHBOARD_SPEC, "dashboards": DASHBOARDS_SPEC},
        mutually_exclusive=[("name", "dashboards")],
        required_one_of=[("name", "dashboards")],
        supports_check_mode=True,
    )
    dashboards = [module.params] if module.params["dashboards"] is None else module.params["dashboards"]
    try:
        with Application(module) as application:
            comparisons, warnings = apply_dashboards(application, dashboards, module.check_mode)
    except DashboardError as error:
        module.fail_json(msg=str(error))
    except TargetError as error:
        module.fail_json(msg=str(error), kind="target")
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", **error.details)
    for warning in warnings:
        module.warn(warning)
    differing = [comparison for comparison in comparisons if comparison.differs]
    module.exit_json(
        changed=bool(differing),
        dashboards=[comparison.wanted for comparison in comparisons],
        diff=[comparison.diff for comparison in differing],
    )


if __name__ == "__main__":
    main()
