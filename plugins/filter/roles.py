# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the roles. Each filter is documented beside this file."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles import RULES
from ansible_collections.metricstack.graphite.plugins.plugin_utils._validation import removal_problems


def role_problems(variables: dict, role: str) -> list[str]:
    if role not in RULES:
        raise AnsibleFilterError(f"role_problems knows no role '{role}'; it knows {', '.join(RULES)}")
    return RULES[role](variables) + removal_problems(role, variables)


class FilterModule:
    def filters(self) -> dict:
        return {"role_problems": role_problems}
