#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: whisper_rebalance_info
short_description: Tell how far the moving of whisper files is
version_added: 2.1.0
description:
  - Tells what M(metricstack.graphite.whisper_rebalance) is doing on a host.
author:
  - metricstack maintainers (@metricstack)
options:
  wait:
    description: Seconds for which the module waits if the phase is at work, before it says how far it is.
    type: int
    default: 0
  state_directory:
    description: As for M(metricstack.graphite.whisper_rebalance).
    type: path
    default: /var/lib/graphite-rebalance
attributes:
  check_mode:
    description: The module only reads.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
seealso:
  - module: metricstack.graphite.whisper_rebalance
"""

EXAMPLES = r"""
- name: Ask how far the moving of series is
  metricstack.graphite.whisper_rebalance_info:
  register: rebalance

- name: Wait up to a minute for the end of the phase
  metricstack.graphite.whisper_rebalance_info:
    wait: 60
"""

RETURN = r"""
running:
  description: Whether a phase is at work.
  returned: success
  type: bool
phase:
  description: The phase; the last one, if none is at work; empty, if there was none since the host has started.
  returned: success
  type: str
  sample: pull
text:
  description: How far it is.
  returned: success
  type: str
  sample: 2000 of 12345 files, 512 of 3021 MiB, from b
"""

import json
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.state import PROGRESS, RUN_DIRECTORY, State


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "wait": {"type": "int", "default": 0},
            "state_directory": {"type": "path", "default": "/var/lib/graphite-rebalance"},
        },
        supports_check_mode=True,
    )
    state = State(module.params["state_directory"])
    deadline = time.monotonic() + module.params["wait"]
    while (running := state.is_locked()) and time.monotonic() < deadline:
        time.sleep(0.3)
    try:
        with open(os.path.join(RUN_DIRECTORY, PROGRESS), encoding="utf-8") as stream:
            told = json.load(stream)
    except (FileNotFoundError, ValueError):
        told = {}
    module.exit_json(changed=False, running=running, phase=told.get("phase", ""), text=told.get("text", ""))


if __name__ == "__main__":
    main()
