#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: python_imports_info
short_description: Check whether a Python interpreter can import modules
version_added: 2.0.0
description:
  - Imports the modules in a separate process, to find out whether a service could start before the service is changed. For
    example, Ubuntu 24.04 has a carbon that its Python cannot import, because that Python no longer has the module C(imp).
  - Returns the packages of the distribution that are known to provide missing modules. Fails with the traceback of any other error.
author:
  - metricstack maintainers (@metricstack)
options:
  modules:
    description:
      - Python modules that are tried one after the other, since some need others before them.
    type: list
    elements: str
    required: true
  python:
    description:
      - Path of the interpreter that tries to import the modules.
    type: path
    default: /usr/bin/python3
  packages_installed:
    description:
      - Whether the packages have been installed. If so, the module also fails for modules that these packages should provide.
    type: bool
    default: false
attributes:
  check_mode:
    description:
      - Changes nothing, in either mode; Python writes no compiled files. In check mode, an interpreter that is not there
        yet is a warning.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: N/A
seealso:
  - module: metricstack.graphite.packages
  - module: metricstack.graphite.host_requirements_info
"""

EXAMPLES = r"""
- name: Check whether the system Python can import carbon
  metricstack.graphite.python_imports_info:
    modules: [carbon.service]
  register: imports

- name: Install the packages with the missing modules
  metricstack.graphite.packages:
    packages: {carbon: "{{ imports.packages }}"}

- name: Check that a virtual environment can import graphite-web
  metricstack.graphite.python_imports_info:
    python: /opt/graphite/venv/bin/python
    modules: [django, graphite.app_settings]
    packages_installed: true
"""

RETURN = r"""
missing:
  description: Modules that are missing, and that a package has.
  returned: success
  type: list
  elements: str
  sample: [imp]
packages:
  description: Packages to install.
  returned: success
  type: list
  elements: str
  sample: [python3-zombie-imp]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt, imports


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "modules": {"type": "list", "elements": "str", "required": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "packages_installed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    python, names = module.params["python"], module.params["modules"]
    if module.check_mode and not os.path.exists(python):
        module.warn(f"Cannot determine whether {python} could import {', '.join(names)} before it is there")
        module.exit_json(changed=False, missing=[], packages=[])
    answer = imports.ask(python, names)
    missing, error = answer["missing"], answer["error"]
    packages = [imports.PROVIDERS[name] for name in missing]
    if missing and not error:
        lacking = f"it has no module {', no module '.join(missing)}"
        if module.params["packages_installed"]:
            error = lacking
        else:
            try:
                for warning in apt.refuse_uninstallable(packages, timeout=600):
                    module.warn(warning)
            except apt.PackageError as refusal:
                error = f"{lacking}. {', '.join(packages)} would provide that, but cannot be installed here: {refusal}"
    if error:
        module.fail_json(msg=f"{python} cannot import {', '.join(names)}; no service was touched: {error}")
    module.exit_json(changed=False, missing=missing, packages=packages)


if __name__ == "__main__":
    main()
