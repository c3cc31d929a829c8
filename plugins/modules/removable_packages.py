#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

DOCUMENTATION = r"""
module: removable_packages
short_description: Which packages go with what brought them
version_added: 1.0.0
description:
  - Of the packages that a role needs, tells those that the role itself has brought to the host, and that nothing else needs
    which somebody asked for; and with them those that only they needed. Nothing is removed.
  - What was on the host before stays, and so does what has no use any more for other reasons than these packages.
author:
  - metricstack maintainers (@metricstack)
options:
  packages:
    description:
      - Packages that the role needs.
    type: list
    elements: str
    required: true
  record:
    description:
      - File in which roles write down the packages that they bring, as lines of the role's name and the package's. Without the
        file, or a line in it, a package counts as one that was there before.
    type: path
    default: /var/lib/metricstack.graphite
  role:
    description:
      - Name of the role in the file.
    type: str
    required: true
attributes:
  check_mode:
    description: Changes nothing, in either mode.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
"""

EXAMPLES = r"""
- name: Learn what goes with carbon
  metricstack.graphite.removable_packages:
    packages: [graphite-carbon]
    role: carbon_cache
  register: removable

- name: Remove it
  ansible.builtin.apt:
    name: "{{ removable.packages }}"
    state: absent
"""

RETURN = r"""
packages:
  description: Installed packages that can go.
  returned: success
  type: list
  elements: str
  sample: [graphite-carbon, python3-twisted]
kept:
  description: Those of O(packages) that are installed and stay, and why.
  returned: success
  type: dict
  sample: {nodejs: was there before}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "record": {"type": "path", "default": "/var/lib/metricstack.graphite"},
            "role": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    role = module.params["role"]
    record = Path(module.params["record"])
    lines = [line.split() for line in record.read_text().splitlines()] if record.exists() else []
    brought = {line[1] for line in lines if line[0] == role}
    others = {line[1] for line in lines if line[0] != role}
    try:
        apt.refuse_other_systems()
        states = apt.read_states()
        installed = [name for name in sorted({*module.params["packages"], *brought}) if states.get(name) in apt.INSTALLED]
        requested = apt.read_requested()
        candidates, kept = [], {}
        for name in installed:
            if name not in brought:
                kept[name] = "was there before"
            elif name in others:
                kept[name] = "another role needs it"
            elif users := set(apt.plan("remove", name)[1]) & requested - brought:
                kept[name] = f"{', '.join(sorted(users))} needs it"
            else:
                candidates.append(name)
        packages = []
        if candidates:
            idle_anyway = set(apt.plan("autoremove")[1])
            packages = sorted(set(apt.plan("autoremove", *candidates)[1]) - idle_anyway)
    except apt.PackageError as error:
        module.fail_json(msg=f"Cannot tell which packages can go: {error}")
    module.exit_json(changed=False, packages=packages, kept=kept)


if __name__ == "__main__":
    main()
