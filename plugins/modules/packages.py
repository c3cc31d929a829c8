#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install or remove the packages of components
version_added: 2.0.0
description:
  - Installs the packages of all components of a host in one apt transaction, and records on the host which of them were missing for
    which component. Removes with a component the packages that were installed for it and that nothing else needs, and those that only
    they needed.
  - Where all packages are installed, the module only asks dpkg.
  - Waits for another process that holds a lock of apt or dpkg, and names it in a warning. Package lists that are older than an hour are
    fetched; a source that cannot be fetched is a warning that names it, and its old lists are used.
  - An action plugin with this module as its part on the host; the transaction itself is that of M(ansible.builtin.apt), with a C(PATH)
    that has the directories of root's programs.
author:
  - metricstack maintainers (@metricstack)
options:
  packages:
    description:
      - Names of packages by component, for example by role. Recommended packages are not installed.
      - A package that is installed for no component in the record counts as one that was there before, and is never removed. C(iproute2)
        is never recorded.
    type: dict
    required: true
  state:
    description:
      - V(present) installs what is missing. V(absent) removes what was installed for the components, and their record.
    type: str
    choices: [present, absent]
    default: present
  imports:
    description:
      - Modules that an interpreter must be able to import after the installation. Packages that are known to have missing ones, such as
        C(python3-zombie-imp), are installed and recorded for the component; anything else fails with the traceback, as in
        M(metricstack.graphite.python_imports_info).
      - Ignored in check mode while packages are missing, and with O(state=absent).
    type: list
    elements: dict
    default: []
    suboptions:
      component:
        description: Component on whose behalf a package that provides a module is installed and recorded.
        type: str
        required: true
      python:
        description: Path of the interpreter that tries to import the modules.
        type: path
        required: true
      modules:
        description: Python modules that it has to be able to import; tried in this order.
        type: list
        elements: str
        required: true
  masked_units:
    description:
      - Units of systemd that are masked before packages are installed, so that a package does not start them. A file of that name in
        C(/etc/systemd/system) is kept beside it, with the time in its name.
    type: list
    elements: str
    default: []
  purge:
    description:
      - Whether O(state=absent) also removes configuration files, as C(apt-get purge) does.
    type: bool
    default: false
  record:
    description:
      - File with the packages that were installed, as lines of the component's name and the package's.
    type: path
    default: /var/lib/metricstack.graphite
  lock_timeout:
    description:
      - Seconds to wait for another process that holds a lock of apt or dpkg.
    type: int
    default: 600
attributes:
  check_mode:
    description: Reports what would be installed or removed; changes nothing and fetches no package lists.
    support: full
  diff_mode:
    description: Shows the packages that are installed or removed.
    support: full
notes:
  - The host needs Debian, Ubuntu or a derivative.
seealso:
  - module: ansible.builtin.apt
  - module: metricstack.graphite.host_requirements_info
  - module: metricstack.graphite.python_imports_info
"""

EXAMPLES = r"""
- name: Install the packages of carbon and StatsD
  metricstack.graphite.packages:
    packages:
      carbon_cache: [graphite-carbon]
      statsd: [nodejs]
    masked_units: [carbon-cache.service]
    imports:
      - {component: carbon_cache, python: /usr/bin/python3, modules: [carbon.service]}

- name: Remove the packages that were installed for StatsD
  metricstack.graphite.packages:
    packages: {statsd: [nodejs]}
    state: absent
"""

RETURN = r"""
installed:
  description: Packages that were missing and were installed, by component (in check mode, would be).
  returned: state is present
  type: dict
  sample: {carbon_cache: [graphite-carbon], statsd: []}
removed:
  description: Packages that were removed (in check mode, would be).
  returned: state is absent
  type: list
  elements: str
  sample: [graphite-carbon, python3-twisted]
kept:
  description: Those of O(packages) that are installed and stay, with the reason.
  returned: state is absent
  type: dict
  sample: {nodejs: was there before}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt, ledger, process

UNITS = "/etc/systemd/system"


def mask(module: AnsibleModule, units: list[str]) -> bool:
    """Mask the units; return whether that was a change."""
    changed = False
    for unit in units:
        path = os.path.join(UNITS, unit)
        if os.path.realpath(path) == os.devnull:
            continue
        changed = True
        if module.check_mode:
            continue
        if os.path.lexists(path):
            module.backup_local(path)
            os.unlink(path)
        os.symlink(os.devnull, path)
    return changed


def prepare_installation(module: AnsibleModule, record: ledger.Ledger) -> dict:
    """Return the missing packages, by component; make everything ready for their installation."""
    states = apt.read_states()
    missing = {
        owner: [name for name in dict.fromkeys(names) if states.get(name) not in apt.INSTALLED]
        for owner, names in module.params["packages"].items()
    }
    changed = False
    if any(missing.values()):
        warnings = apt.wait_for_locks(module.params["lock_timeout"])
        if not module.check_mode:
            warnings += apt.refresh_old_lists(module.params["lock_timeout"])
            record.add(missing)
        for warning in warnings:
            module.warn(warning)
        changed = mask(module, module.params["masked_units"])
    return {"changed": changed, "installed": missing}


def prepare_removal(module: AnsibleModule, record: ledger.Ledger) -> dict:
    """Return the packages to remove, and those that stay; where there are none to remove, forget the components."""
    owners = list(module.params["packages"])
    packages, kept = ledger.removable_packages(module.params["packages"], record)
    changed = False
    if packages:
        for warning in apt.wait_for_locks(module.params["lock_timeout"]):
            module.warn(warning)
    elif record.has_owner(owners):
        changed = True
        if not module.check_mode:
            record.remove(owners)
    return {"changed": changed, "removed": packages, "kept": kept}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "imports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "component": {"type": "str", "required": True},
                    "python": {"type": "path", "required": True},
                    "modules": {"type": "list", "elements": "str", "required": True},
                },
            },
            "masked_units": {"type": "list", "elements": "str", "default": []},
            "purge": {"type": "bool", "default": False},
            "record": {"type": "path", "default": "/var/lib/metricstack.graphite"},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    for owner, names in module.params["packages"].items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            module.fail_json(msg=f"packages: {owner} has {names!r}; give a list of names of packages")
    prepare = prepare_installation if module.params["state"] == "present" else prepare_removal
    try:
        apt.refuse_other_systems()
        result = prepare(module, ledger.Ledger(module.params["record"]))
    except apt.PackageError as error:
        module.fail_json(msg=f"Cannot tell which packages to {'install' if module.params['state'] == 'present' else 'remove'}: {error}")
    module.exit_json(search_path=process.system_path(os.environ.get("PATH")), **result)


if __name__ == "__main__":
    main()
