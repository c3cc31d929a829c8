#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_render_info
short_description: Read series from graphite-web
version_added: 1.0.0
description:
  - Asks the render API of graphite-web for series and returns their points, with a summary of each that is handy in
    C(until) and C(that).
  - Changes nothing; check mode and real mode are the same.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.render
  - metricstack.graphite.web_api
attributes:
  check_mode:
    description: Runs in check mode as it does otherwise.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
notes:
  - A target that matches nothing is not an error; it gives no series. Wrap it in C(removeEmptySeries()) to leave out
    series whose points are all missing, too.
"""

EXAMPLES = r"""
- name: Wait until requests are counted
  metricstack.graphite.graphite_render_info:
    url: http://graphite.example.org
    targets:
      - removeEmptySeries(stats.counters.requests.count)
    from: -5min
  register: requests
  until: requests.series | default([]) | length > 0
  retries: 30
  delay: 1
"""

RETURN = r"""
series:
  description: The series, in the order in which graphite-web returned them.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: Name of the series.
      type: str
    tags:
      description: Its tags by name, of which C(name) is the name without tags and functions.
      type: dict
    datapoints:
      description: Pairs of value (or null) and Unix time in seconds.
      type: list
      elements: list
    step:
      description: Distance between two points in seconds; null with fewer than two points.
      type: int
    count:
      description: Number of points that have a value.
      type: int
    sum:
      description: Sum of the values; null if there is none.
      type: float
    min:
      description: Least of the values; null if there is none.
      type: float
    max:
      description: Greatest of the values; null if there is none.
      type: float
    last:
      description: Newest of the values; null if there is none.
      type: float
    last_time:
      description: Unix time of the newest value in seconds; null if there is none.
      type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.api import FORM, WEB_API_ARGUMENT_SPEC, WebApi
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.render import (
    RENDER_ARGUMENT_SPEC,
    render_query,
    summarize_series,
)


def main() -> None:
    module = AnsibleModule(argument_spec={**WEB_API_ARGUMENT_SPEC, **RENDER_ARGUMENT_SPEC}, supports_check_mode=True)
    series = WebApi(module).read(summarize_series, "/render", render_query(module.params, "json"), FORM)
    module.exit_json(changed=False, series=series)


if __name__ == "__main__":
    main()
