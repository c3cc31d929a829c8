# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that ask the render API of graphite-web."""

    DOCUMENTATION = r"""
options:
  targets:
    description:
      - Metric names, patterns or functions, as the render API takes them.
    type: list
    elements: str
    required: true
  from:
    description:
      - Begin of the time range, as the render API takes it.
    type: str
    aliases: [begin]
    default: -1h
  until:
    description:
      - End of the time range, as the render API takes it. Without it, now.
    type: str
    aliases: [end]
  use_cache:
    description:
      - Whether graphite-web may answer from its data cache, which can be older than the points that carbon holds.
    type: bool
    default: false
"""
