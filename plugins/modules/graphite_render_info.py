#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

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
options:
  url:
    description:
      - Address of graphite-web, without C(/render).
    type: str
    default: http://127.0.0.1
  targets:
    description:
      - Metric names, patterns or functions, as the render API takes them.
    type: list
    elements: str
    required: true
  from:
    description:
      - Begin of the time range, as the render API takes it.
    type: str
    aliases: [begin]
    default: -1h
  until:
    description:
      - End of the time range, as the render API takes it. Without it, now.
    type: str
    aliases: [end]
  use_cache:
    description:
      - Whether graphite-web may answer from its data cache, which can be older than the points that carbon holds.
    type: bool
    default: false
  timeout:
    description:
      - Time to wait for the answer, in seconds.
    type: int
    default: 30
  url_username:
    description:
      - User name for HTTP basic authentication.
    type: str
  url_password:
    description:
      - Password for HTTP basic authentication.
    type: str
  force_basic_auth:
    description:
      - Whether to send the credentials with the first request, without being asked for them.
    type: bool
    default: false
  use_proxy:
    description:
      - Whether to ask through the proxy that the environment names.
    type: bool
    default: true
  validate_certs:
    description:
      - Whether to check the certificate of an HTTPS server.
    type: bool
    default: true
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
  until: requests.series | length > 0
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

import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.metricstack.graphite.plugins.module_utils._render import (
    RenderError,
    render_query,
    summarize_series,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1"},
            "targets": {"type": "list", "elements": "str", "required": True},
            "from": {"type": "str", "default": "-1h", "aliases": ["begin"]},
            "until": {"type": "str", "aliases": ["end"]},
            "use_cache": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
            # The three names that fetch_url reads from the module's parameters.
            "url_username": {"type": "str"},
            "url_password": {"type": "str", "no_log": True},
            "force_basic_auth": {"type": "bool", "default": False},
            "use_proxy": {"type": "bool", "default": True},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    url = module.params["url"].rstrip("/") + "/render"
    query = render_query(module.params["targets"], module.params["from"], module.params["until"], module.params["use_cache"])
    # As a form: a long list of targets does not fit into an address.
    response, info = fetch_url(
        module,
        url,
        data=query,
        method="POST",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=module.params["timeout"],
        use_proxy=module.params["use_proxy"],
    )
    if info["status"] != 200:
        body = info.get("body") or b""
        module.fail_json(
            msg=f"{url} answered {info['status']}: {info['msg']}",
            body=body.decode("utf-8", "replace")[:2000] if isinstance(body, bytes) else body[:2000],
        )
    try:
        series = summarize_series(json.loads(response.read()))
    except (ValueError, RenderError) as error:
        module.fail_json(msg=f"{url} did not answer as graphite-web does: {error}")
    module.exit_json(changed=False, series=series)


if __name__ == "__main__":
    main()
