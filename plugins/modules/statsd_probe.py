#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: statsd_probe
short_description: Check that StatsD counts what is sent to it
version_added: 2.0.0
description:
  - Sends a counter to StatsD by UDP, waits until StatsD's management interface shows the counter, and deletes the counter again.
    Fails if the counter does not arrive.
  - Takes well under a second where StatsD works, for it does not wait for a flush. In check mode, nothing is sent.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.statsd_management
options:
  address:
    description:
      - Name or address to which the counter is sent.
    type: str
    default: 127.0.0.1
  udp_port:
    description:
      - UDP port there, on which StatsD takes the counter.
    type: int
    default: 8125
  name:
    description:
      - Name of the counter. Choose one that nothing else uses.
    type: str
    default: metricstack_probe
attributes:
  check_mode:
    description: Asks for StatsD's health only.
    support: partial
    details: What StatsD does with a counter is not known before the counter is sent.
  diff_mode:
    description: The module leaves nothing behind that could differ.
    support: N/A
seealso:
  - module: metricstack.graphite.statsd_info
  - module: metricstack.graphite.carbon_probe
notes:
  - If a flush comes between the counter and its deletion, carbon gets one point of a series with the name of the counter.
"""

EXAMPLES = r"""
- name: Check that StatsD works
  metricstack.graphite.statsd_probe:

- name: Check a StatsD that listens on an address of its own
  metricstack.graphite.statsd_probe:
    address: 10.0.0.5
    udp_port: 8125
    host: 127.0.0.1
    port: 8126
"""

RETURN = r"""
attempts:
  description: How often the counter was sent. A flush sets counters back, so that one may have to be sent again.
  returned: success
  type: int
  sample: 1
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import (
    MANAGEMENT_ARGUMENT_SPEC,
    Management,
    ManagementError,
    name_problems,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.metrics import send

ATTEMPTS = 5
SECONDS_FOR_EACH = 1.0


def probe(management: Management, address: str, port: int, name: str) -> int | None:
    """Return how often the counter had to be sent, or ``None`` if StatsD has not counted it."""
    for attempt in range(1, ATTEMPTS + 1):
        send(address, port, [f"{name}:1|c"])
        deadline = time.monotonic() + SECONDS_FOR_EACH
        while time.monotonic() < deadline:
            # After a flush, the counter is there with 0.
            if management.metrics("counters").get(name):
                return attempt
            time.sleep(0.05)
    return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **MANAGEMENT_ARGUMENT_SPEC,
            "address": {"type": "str", "default": "127.0.0.1"},
            "udp_port": {"type": "int", "default": 8125},
            "name": {"type": "str", "default": "metricstack_probe"},
        },
        supports_check_mode=True,
    )
    address, port, name = (module.params[key] for key in ("address", "udp_port", "name"))
    problems = name_problems("name", [name])
    if problems:
        module.fail_json(msg=problems[0])
    try:
        with Management(module.params["host"], module.params["port"], module.params["timeout"]) as management:
            if module.check_mode:
                module.exit_json(changed=False, attempts=0)
            attempts = probe(management, address, port, name)
            management.delete("counters", name)
    except ManagementError as error:
        module.fail_json(msg=f"StatsD: {error}")
    except OSError as error:
        module.fail_json(msg=f"Nothing can be sent to UDP port {port} of {address}: {error}")
    if attempts is None:
        module.fail_json(
            msg=f"StatsD runs, but has not counted any of {ATTEMPTS} counters sent to UDP port {port} of {address}. Check that"
            " statsd_address and statsd_port are those on which it listens: ss -lunp."
        )
    module.exit_json(changed=False, attempts=attempts)


if __name__ == "__main__":
    main()
