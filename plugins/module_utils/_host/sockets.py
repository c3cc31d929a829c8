# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a host listens on, as ``ss --cgroup`` prints it. This file is private to the collection."""

from __future__ import annotations

import ipaddress
import re

_SOCKET = re.compile(
    r'(?P<protocol>tcp|udp)\s+\S+\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+(?:\s+users:\(\("(?P<program>.*?)",pid=(?P<pid>\d+))?'
    r".*?\scgroup:(?P<group>\S+)"
)
_WILDCARDS = {"*", "0.0.0.0", "::"}


def port_holders(sockets: str, wanted: list[dict], own_units: str) -> list[dict]:
    """Return the sockets in the way of ``wanted``, each with a sentence for it under ``problem``.

    ``sockets`` is what ``ss -Hltunp --cgroup`` prints, ``wanted`` has ``variable``, ``protocol``, ``address`` and ``ports``
    of the sockets to open; those of units that match ``own_units`` are in nobody's way.
    """
    holders = []
    for match in map(_SOCKET.match, sockets.splitlines()):
        if not match:
            continue
        unit = match["group"].rpartition("/")[2]
        address = match["address"].partition("%")[0].strip("[]")
        if re.fullmatch(own_units, unit):
            continue
        for socket in wanted:
            if match["protocol"] != socket["protocol"] or match["port"] not in map(str, socket["ports"]):
                continue
            if not _collide(address, socket["address"]):
                continue
            service = unit if unit.endswith(".service") else ""
            pid = int(match["pid"]) if match["pid"] else None
            owner = [match["program"], f"process {pid}" if pid else "", f"unit {service}" if service else ""]
            cure = f"systemctl disable --now {service}" if service else f"kill {pid}" if pid else "as root, ss -ltunp names it"
            holders.append(
                {
                    "pid": pid,
                    "unit": service,
                    "problem": f"{socket['variable']} has port {match['port']}, but {', '.join(filter(None, owner)) or 'another process'}"
                    f" holds {match['address']}:{match['port']} ({match['protocol']}). Stop it ({cure}), or give another port.",
                }
            )
    return holders


def _collide(held: str, wanted: str) -> bool:
    if held in _WILDCARDS or wanted in _WILDCARDS or held == wanted:
        return True
    try:
        return ipaddress.ip_address(held) == ipaddress.ip_address(wanted)
    except ValueError:
        return True  # a name, which only the host can resolve
