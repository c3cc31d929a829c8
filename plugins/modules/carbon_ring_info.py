#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: carbon_ring_info
short_description: Count the series that another ring of stores gives other homes
version_added: 2.1.0
description:
  - Compares the ring of stores that a host has recorded with the one that the inventory gives, and counts the series on the disk of the
    host of which a home would be another one. The relays themselves are asked for the homes.
  - A host that has recorded no ring is one that has all of its series alone.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.carbon_ring
options:
  directory:
    description: Top of the tree of whisper files.
    type: path
    default: /var/lib/graphite/whisper
  own_prefixes:
    description: What the names of the series begin with that each store writes about itself, past the ring. They are not counted.
    type: list
    elements: str
    default: [carbon.agents.]
  ring_file:
    description: Where the host has recorded its ring.
    type: path
    default: /etc/carbon/ring.json
  relay:
    description: The program carbon-c-relay. Where it is missing, all series count.
    type: path
    default: /usr/bin/carbon-c-relay
attributes:
  check_mode:
    description: The module only reads.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
seealso:
  - module: metricstack.graphite.whisper_rebalance
"""

EXAMPLES = r"""
- name: Count the series that would have other homes
  metricstack.graphite.carbon_ring_info:
    store: a
    cluster: "{{ stack.cluster }}"
  register: ring

- name: Compare a store with a ring of three
  metricstack.graphite.carbon_ring_info:
    store: a
    cluster:
      replicas: 2
      stores:
        - {name: a, address: 192.0.2.1, port: 2013}
        - {name: b, address: 192.0.2.2, port: 2013}
        - {name: c, address: 192.0.2.3, port: 2013}
"""

RETURN = r"""
series:
  description: Number of series on the disk, without those that carbon writes about itself.
  returned: success
  type: int
moving:
  description: Number of those that would have another home, or of which the name is unknown, as of most series with tags.
  returned: success
  type: int
message:
  description: What this means, and what to do; empty if no series would have another home.
  returned: success
  type: str
recorded:
  description: The recorded ring, as the option O(cluster); V(null) if there is none.
  returned: success
  type: dict
wanted:
  description: The wanted ring, in the form in which it is recorded.
  returned: success
  type: dict
"""

import os
from collections.abc import Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import (
    RING_ARGUMENT_SPEC,
    Homes,
    Ring,
    RingError,
    Store,
    recorded_ring,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.scan import Names, portions, series_paths
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import open_tree


def counted_names(top: int, own_prefixes: tuple[str, ...]) -> Iterator[list[str | None]]:
    """Yield the names of the series that count, in portions; ``None`` for those of which the name is unknown."""
    names = Names()
    for portion in portions(series_paths(top, lambda _directory: None)):
        yield [name for name in map(names.of, portion) if name is None or not name.startswith(own_prefixes)]


def count(top: int, before: Ring, after: Ring, own_prefixes: tuple[str, ...], relay: str) -> tuple[int, int]:
    """Return the number of series in a tree, and of those that ``after`` gives other homes than ``before``. Raises ``RingError``.

    Without the program ``relay``, it is unknown which series stay, so that all of them count.
    """
    if not os.path.exists(relay):
        number = sum(map(len, counted_names(top, own_prefixes)))
        return number, number
    series = moving = 0
    with Homes(before, relay) as old, Homes(after, relay) as new:
        for found in counted_names(top, own_prefixes):
            known = [name for name in found if name is not None]
            series += len(found)
            moving += len(found) - len(known)
            moving += sum(1 for one, other in zip(old.of(known), new.of(known)) if set(one) != set(other))
    return series, moving


def described(store: str, before: Ring | None, after: Ring, series: int, moving: int) -> str:
    """Return what the user has to know and to do."""
    if not moving:
        return ""
    now = "alone until now" if before is None else f"now in the ring {before.described()}"
    return (
        f"carbon on {store}, {now}, has {series:,} series; {moving:,} of them would have other homes in the ring {after.described()}."
        " Run site.yml with -e carbon_ring_may_move=true and rebalance.yml after that, which moves them while points arrive."
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/var/lib/graphite/whisper"},
            **RING_ARGUMENT_SPEC,
            "own_prefixes": {"type": "list", "elements": "str", "default": ["carbon.agents."]},
            "ring_file": {"type": "path", "default": "/etc/carbon/ring.json"},
            "relay": {"type": "path", "default": "/usr/bin/carbon-c-relay"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    wanted = Ring.of(parameters["cluster"])
    try:
        recorded = recorded_ring(parameters["ring_file"])
        before = recorded or Ring(1, (Store(parameters["store"], "127.0.0.1", 2003),))
        series = moving = 0
        # Another address alone gives no series another home, unless two stores share a place of the ring.
        if before != wanted and os.path.isdir(parameters["directory"]):
            top = open_tree(parameters["directory"])
            series, moving = count(top, before, wanted, tuple(parameters["own_prefixes"]), parameters["relay"])
    except (RingError, OSError) as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    module.exit_json(
        changed=False,
        series=series,
        moving=moving,
        message=described(parameters["store"], recorded, wanted, series, moving),
        recorded=recorded.as_data() if recorded else None,
        wanted=wanted.as_data(),
    )


if __name__ == "__main__":
    main()
