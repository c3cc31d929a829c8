# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Figures of a benchmark, as data and for people. Each filter is documented beside this file."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.plugin_utils._wrk import WrkError, parse_summary


def wrk_summary(text: str) -> dict:
    try:
        return parse_summary(text)
    except WrkError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict:
        return {"wrk_summary": wrk_summary}
