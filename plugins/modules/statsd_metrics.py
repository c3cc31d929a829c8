#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: statsd_metrics
short_description: Delete metrics from StatsD
version_added: 1.0.0
description:
  - Deletes counters, gauges and timers through StatsD's management interface, so that StatsD stops reporting metrics
    that it no longer receives. Sets cannot be deleted in this way.
  - Points that StatsD has already sent to carbon stay in the whisper files. A metric is created again if a program still sends it.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.statsd_management
options:
  counters:
    description: &names
      - Names, or folders with all that is below them, such as V(shop.*). An asterisk has this meaning at the end only.
    type: list
    elements: str
    default: []
  gauges:
    description: *names
    type: list
    elements: str
    default: []
  timers:
    description: *names
    type: list
    elements: str
    default: []
  state:
    description:
      - Whether StatsD holds them. Metrics come to StatsD by being sent.
    type: str
    choices: [absent]
    required: true
attributes:
  check_mode:
    description: Reports what would be deleted; deletes nothing.
    support: full
  diff_mode:
    description: Shows the names that are deleted.
    support: full
"""

EXAMPLES = r"""
- name: Delete the metrics of the old shop
  metricstack.graphite.statsd_metrics:
    counters: [oldshop.*]
    gauges: [oldshop.*, queues.oldshop]
    timers: [oldshop.*]
    state: absent
"""

RETURN = r"""
deleted:
  description: Names that were deleted (in check mode, would be), by kind.
  returned: success
  type: dict
  contains:
    counters:
      description: Names of counters.
      type: list
      elements: str
    gauges:
      description: Names of gauges.
      type: list
      elements: str
    timers:
      description: Names of timers.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import (
    MANAGEMENT_ARGUMENT_SPEC,
    Management,
    ManagementError,
    name_problems,
    names_of,
)

KINDS = ("counters", "gauges", "timers")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MANAGEMENT_ARGUMENT_SPEC,
            **{kind: {"type": "list", "elements": "str", "default": []} for kind in KINDS},
            "state": {"type": "str", "choices": ["absent"], "required": True},
        },
        supports_check_mode=True,
    )
    problems = [problem for kind in KINDS for problem in name_problems(kind, module.params[kind])]
    if problems:
        module.fail_json(msg="\n".join(problems))
    deleted: dict[str, list[str]] = {kind: [] for kind in KINDS}
    try:
        with Management(module.params["host"], module.params["port"], module.params["timeout"]) as management:
            for kind in KINDS:
                if not module.params[kind]:
                    continue
                held = management.metrics(kind)
                for name in module.params[kind]:
                    names = [item for item in names_of(held, [name]) if item not in deleted[kind]]
                    if names and not module.check_mode:
                        management.delete(kind, name)
                    deleted[kind] += names
    except ManagementError as error:
        module.fail_json(msg=f"StatsD: {error}", changed=any(deleted.values()), deleted=deleted)
    module.exit_json(
        changed=any(deleted.values()),
        deleted=deleted,
        diff={"before": {kind: names for kind, names in deleted.items() if names}, "after": {}},
    )


if __name__ == "__main__":
    main()
