# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Units of systemd. Each filter is documented beside this file."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.plugin_utils._systemd import unit_sandbox


def unit_sandbox_of(options: dict) -> str:
    try:
        return unit_sandbox(options)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict:
        return {"unit_sandbox": unit_sandbox_of}
