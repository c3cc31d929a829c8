# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a host is called. This file is private to the collection.

Source of the format of addresses: ``ip/ipaddress.c`` of iproute2 6.1 and 6.15.
"""

from __future__ import annotations

import functools
import re
import socket

from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run


@functools.lru_cache(maxsize=None)
def own_names() -> tuple[str, ...]:
    """Return the name of the host without and with its domain; asking for the domain may take a server's time."""
    name = socket.gethostname()
    return tuple(dict.fromkeys([name.partition(".")[0], name, socket.getfqdn()]))


@functools.lru_cache(maxsize=None)
def own_addresses() -> tuple[str, ...]:
    """Return the addresses of the host without those that are local to a link, sorted; none where there is no ``ip``.

    Those that are local to a link come and go with the interfaces of containers.
    """
    shown = run(["ip", "-oneline", "address"]).stdout
    return tuple(sorted(address for address in set(re.findall(r" inet6? ([^/ ]+)", shown)) if not address.startswith("fe80:")))
