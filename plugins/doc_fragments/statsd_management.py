# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that ask StatsD's management interface."""

    DOCUMENTATION = r"""
options:
  host:
    description:
      - Name or address of StatsD's management interface. By default, only the host that StatsD runs on reaches it.
    type: str
    default: 127.0.0.1
  port:
    description:
      - TCP port on which the management interface answers.
    type: int
    default: 8126
  timeout:
    description:
      - Time to wait for each answer, in seconds.
    type: int
    default: 10
"""
