# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that know the stores of a cluster."""

    DOCUMENTATION = r"""
options:
  store:
    description: Name of this store in the ring.
    type: str
    required: true
  cluster:
    description: The stores, and their ring.
    type: dict
    required: true
    suboptions:
      replicas:
        description: On how many stores each series is.
        type: int
        required: true
      stores:
        description: The stores, in the order in which the relays have them.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: Name in the ring.
            type: str
            required: true
          address:
            description: Address at which other hosts reach it.
            type: str
            required: true
          port:
            description: Port to which the relays send its points.
            type: int
            required: true
          leaving:
            description: Whether it is out of the ring, to be emptied.
            type: bool
            default: false
          host:
            description: Name in the inventory.
            type: str
"""
