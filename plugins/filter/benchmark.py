# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Figures of a benchmark, as data and for people. Each filter is documented beside this file."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.plugin_utils._go_benchmark import RestartError, load_summary, runtime_series
from ansible_collections.metricstack.graphite.plugins.plugin_utils._wrk import WrkError, parse_summary


def go_load_summary(answer: list[dict], series: dict[str, str], began: int, ended: int) -> dict:
    try:
        return load_summary(answer, series, int(began), int(ended))
    except RestartError as error:
        raise AnsibleFilterError(str(error)) from error


def wrk_summary(text: str) -> dict:
    try:
        return parse_summary(text)
    except WrkError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict:
        return {"go_load_summary": go_load_summary, "go_runtime_series": runtime_series, "wrk_summary": wrk_summary}
