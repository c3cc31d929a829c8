# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Libraries that only the interpreter of the system has. This file is private to the collection."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

_SYSTEM_PYTHON = "/usr/bin/python3"


def require_library(module: AnsibleModule, name: str, error: str) -> None:
    """Run the module again under the system's Python, or fail, where importing the library ``name`` has ended with ``error``.

    With ``ansible_python_interpreter`` in a virtual environment, packages of the distribution are invisible to the module.
    """
    if not error:
        return
    interpreter = None if has_respawned() else probe_interpreters_for_module([_SYSTEM_PYTHON], name)
    if interpreter:
        respawn_module(interpreter)
    module.fail_json(msg=missing_required_lib(name), exception=error)
