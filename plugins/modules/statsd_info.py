#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: statsd_info
short_description: Gather information about StatsD and its metrics
version_added: 1.0.0
description:
  - Asks StatsD's management interface for its health, its statistics and the metrics that it holds. Sets are not shown there.
  - Changes nothing; check mode and real mode are the same.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.statsd_management
options:
  gather_subset:
    description:
      - What to ask for, besides health. Less is faster where there are many metrics.
    type: list
    elements: str
    choices: [stats, counters, gauges, timers]
    default: [stats, counters, gauges, timers]
attributes:
  check_mode:
    description: Runs in check mode as it does otherwise.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
notes:
  - A flush sets counters to 0 and empties timers, or forgets them, and gauges as well, where StatsD's setting
    C(deleteIdleStats) is on. What arrived before the last flush is in graphite-web, for
    M(metricstack.graphite.graphite_render_info).
"""

EXAMPLES = r"""
- name: Wait until the shop has something to report
  metricstack.graphite.statsd_info:
    gather_subset: [counters]
  register: statsd
  until: statsd.counters['shop.requests'] | default(0) > 0
  retries: 30
  delay: 1

- name: Check that StatsD is healthy, understands its packets and reaches carbon
  metricstack.graphite.statsd_info:
    gather_subset: [stats]
  register: statsd
  failed_when: >-
    statsd.health != 'up' or statsd.stats.messages.bad_lines_seen > 0
    or statsd.stats.graphite.last_exception < statsd.stats.graphite.last_flush
"""

RETURN = r"""
health:
  description: V(up), or another value that was set through the management interface.
  returned: success
  type: str
  sample: up
stats:
  description:
    - What StatsD says of itself. C(uptime) is in seconds, C(messages) has C(last_msg_seen) and C(bad_lines_seen), and each
      backend adds a dict of its own, such as C(graphite). What is called C(last_) something is how many seconds ago it was;
      of what has never been, since 1970.
    - In C(graphite), C(last_flush) is when carbon has taken a flush, and C(last_exception) when it has not; C(unsent_flushes) and
      C(unsent_bytes) wait for carbon, and C(dropped_flushes) were too many to wait. This is true of the StatsD that the role
      P(metricstack.graphite.statsd#role) runs; another does not notice when carbon does not take a flush.
  returned: if asked for
  type: dict
  sample:
    uptime: 4711
    messages: {last_msg_seen: 2, bad_lines_seen: 0}
    graphite:
      last_flush: 4
      last_exception: 1795632806
      flush_time: 1
      flush_length: 1432
      unsent_flushes: 0
      unsent_bytes: 0
      dropped_flushes: 0
      last_dropped: 1795632806
counters:
  description: Counts since the last flush, by name; null if it is no finite number.
  returned: if asked for
  type: dict
gauges:
  description: Gauges, by name; null if it is no finite number.
  returned: if asked for
  type: dict
timers:
  description: Timers since the last flush, by name.
  returned: if asked for
  type: dict
  contains:
    count:
      description: Number of values that have arrived.
      type: int
    values:
      description: The values, of which StatsD shows the first hundred.
      type: list
      elements: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import (
    MANAGEMENT_ARGUMENT_SPEC,
    Management,
    ManagementError,
)

SUBSETS = ["stats", "counters", "gauges", "timers"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MANAGEMENT_ARGUMENT_SPEC,
            "gather_subset": {"type": "list", "elements": "str", "choices": SUBSETS, "default": SUBSETS},
        },
        supports_check_mode=True,
    )
    try:
        with Management(module.params["host"], module.params["port"], module.params["timeout"]) as management:
            found = {
                subset: management.stats() if subset == "stats" else management.metrics(subset) for subset in module.params["gather_subset"]
            }
            module.exit_json(changed=False, health=management.health, **found)
    except ManagementError as error:
        module.fail_json(msg=f"StatsD: {error}")


if __name__ == "__main__":
    main()
