# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Whether systemd can keep a service from an address. This file is private to the collection.

Source: ``IPAddressDeny=`` in systemd.resource-control(5). Without a kernel or a container that lets systemd attach such a filter, systemd
starts the service all the same.
"""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run

# Nobody receives what is sent; the filter refuses it before.
_SEND = """
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))
except PermissionError:
    print("filtered")
"""


def ip_firewall_problems(variable: str) -> list[str]:
    """Return a message if ``variable``, which needs the filter, would have no effect on this host; none without a variable."""
    if not variable:
        return []
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--property=IPAddressDeny=any"]
    answer = run([*command, "/usr/bin/python3", "-c", _SEND])
    if answer.stdout.strip() == "filtered":
        return []
    return [
        f"{variable} cannot be enforced: systemd of this host attaches no filter of addresses to a service"
        f" ({answer.stderr.strip() or 'the kernel or the container does not let it'}). Leave the variable empty, and let a firewall do it."
    ]
