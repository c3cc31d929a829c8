#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

DOCUMENTATION = r"""
module: host_requirements
short_description: A host can carry what is to be installed on it
version_added: 1.0.0
description:
  - Looks, feature by feature, whether systemd runs, whether dpkg is in good order, and whether the packages are there or could
    be installed; fails with everything that is missing, before anything has been changed.
  - Whether packages could be installed is what C(apt-get --simulate) says, so that dependencies count. Nothing is asked of
    apt while all packages are there.
author:
  - metricstack maintainers (@metricstack)
options:
  packages:
    description:
      - Packages that are needed, without recommended ones.
    type: list
    elements: str
    required: true
  advice:
    description:
      - What to do where the packages cannot be installed; ends the message.
    type: str
    default: ""
attributes:
  check_mode:
    description:
      - Changes nothing, in either mode. Lists of packages that do not have what is needed are fetched anew in either mode, as
        M(ansible.builtin.apt) does.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
"""

EXAMPLES = r"""
- name: Make sure that the host can carry carbon
  metricstack.graphite.host_requirements:
    packages: [graphite-carbon]
  register: host

- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ host.missing }}"
  when: host.missing | length > 0
"""

RETURN = r"""
missing:
  description: Those of the packages that are not installed.
  returned: success
  type: list
  elements: str
  sample: [graphite-carbon]
problems:
  description: Everything that stands in the way.
  returned: failure
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "advice": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    problems: list[str] = []
    missing: list[str] = []
    if not os.path.isdir("/run/systemd/system"):
        problems.append("systemd does not run on it, and all services are units of systemd (there is no /run/systemd/system)")
    try:
        apt.refuse_other_systems()
        states = apt.read_states()
        missing = [name for name in module.params["packages"] if states.get(name) not in apt.INSTALLED]
        half = apt.half_installed(states)
        # What is half installed elsewhere is in apt's way only.
        half = half if missing else {name: state for name, state in half.items() if name in module.params["packages"]}
        if half:
            listed = ", ".join(f"{name} ({state})" for name, state in sorted(half.items()))
            cure = "dpkg --configure -a --force-confdef --force-confold && apt-get -f install"
            problems.append(f"the installation of packages has begun and not ended: {listed}. Run: {cure}")
        elif missing:
            apt.refuse_uninstallable(missing)
    except apt.UninstallableError as error:
        problems.append("\n  ".join(filter(None, (str(error), module.params["advice"]))))
    except apt.PackageError as error:
        problems.append(str(error))
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        module.fail_json(msg=f"This host cannot carry what is wanted; nothing was changed:\n{listed}", problems=problems)
    module.exit_json(changed=False, missing=missing)


if __name__ == "__main__":
    main()
