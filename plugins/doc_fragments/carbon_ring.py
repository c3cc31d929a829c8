# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that know the stores of a cluster."""

    DOCUMENTATION = r"""
options:
  store:
    description: Which of the stores the host is, by its name in the ring.
    type: str
    required: true
  cluster:
    description: All stores, from which the homes of each series are computed as the relays do.
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
            description: Name that is hashed for the ring. Another name moves series.
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
            description: Whether the store is no home of any series any more, so that what it has goes to the other stores.
            type: bool
            default: false
          host:
            description: Name in the inventory, by which messages mean the store.
            type: str
"""
