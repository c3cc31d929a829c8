# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role statsd. This file is private to the collection."""

from __future__ import annotations

import re

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon_config import address_problem, port_problem


def statsd_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``statsd_``."""
    problems = [port_problem(f"statsd_{name}", variables[name]) for name in ("port", "management_port", "graphite_port")]
    problems += [address_problem(f"statsd_{name}", variables[name]) for name in ("address", "management_address")]
    if not re.match(r"[1-9]\d*000\Z", str(variables["flush_interval"])):
        problems.append(
            f"statsd_flush_interval is {variables['flush_interval']}; it is in milliseconds, and carbon keeps points by the"
            " second: give a multiple of 1000."
        )
    if not re.match(r"\d+\Z", str(variables["receive_buffer_bytes"])):
        problems.append(
            f"statsd_receive_buffer_bytes is {variables['receive_buffer_bytes']}; give a number of bytes, or 0 for the kernel's default."
        )
    return [problem for problem in problems if problem]
