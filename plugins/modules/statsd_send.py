#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: statsd_send
short_description: Send metrics to StatsD
version_added: 2.0.0
description:
  - Sends lines to StatsD in one datagram. UDP gives no answer, so that success means that the datagram has left the host; use
    M(metricstack.graphite.statsd_probe) to check that StatsD counts.
author:
  - metricstack maintainers (@metricstack)
options:
  lines:
    description:
      - Metrics, as StatsD takes them, C(NAME:VALUE|TYPE).
    type: list
    elements: str
    required: true
  address:
    description:
      - Name or address to which the datagram is sent.
    type: str
    default: 127.0.0.1
  port:
    description:
      - UDP port there, on which StatsD takes metrics.
    type: int
    default: 8125
attributes:
  check_mode:
    description: Sends nothing.
    support: full
  diff_mode:
    description: A datagram leaves no state to compare.
    support: N/A
seealso:
  - module: metricstack.graphite.statsd_info
  - module: metricstack.graphite.statsd_probe
"""

EXAMPLES = r"""
- name: Count a deployment
  metricstack.graphite.statsd_send:
    lines: ["shop.deployments:1|c"]

- name: Send a gauge and a timer to another host
  metricstack.graphite.statsd_send:
    address: metrics.example.org
    lines:
      - shop.workers:8|g
      - shop.migration:5300|ms
"""

RETURN = r"""
bytes:
  description: Size of the datagram, in bytes.
  returned: success
  type: int
  sample: 20
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.metrics import send


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lines": {"type": "list", "elements": "str", "required": True},
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 8125},
        },
        supports_check_mode=True,
    )
    address, port, lines = (module.params[name] for name in ("address", "port", "lines"))
    if not module.check_mode:
        try:
            send(address, port, lines)
        except OSError as error:
            module.fail_json(msg=f"Nothing can be sent to UDP port {port} of {address}: {error}")
    module.exit_json(changed=True, bytes=len("\n".join(lines).encode()))


if __name__ == "__main__":
    main()
