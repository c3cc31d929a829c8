# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a host listens on, as ``ss -Hltunp --cgroup`` prints it, and what it could listen on. This file is private to the collection.

Source of the format: ``misc/ss.c`` and ``lib/fs.c`` of iproute2 6.1 and 6.15.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket as network
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._host.identity import own_addresses
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run

_SOCKET = re.compile(
    r"(?P<protocol>tcp|udp)\s+\S+\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+"
    r"(?:\s+users:\((?P<users>.*?)\)(?=\s|$))?(?:.*?\scgroup:(?P<group>\S+))?"
)
_GONE = "unreachable:"
_USER = re.compile(r'\("(?P<program>.*?)",pid=(?P<pid>\d+)')

# The host has no such address, no such family of addresses, or several networks with it (one that is local to a link).
_UNAVAILABLE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)


class Socket(NamedTuple):
    """A socket that listens (TCP) or receives (UDP); without root's rights, programs and processes are not to be seen."""

    protocol: str
    address: str
    port: int
    program: str
    pids: tuple
    group: str

    @property
    def unit(self) -> str:
        """The unit that opened the socket, or an empty text."""
        return next((part for part in reversed(self.group.split("/")) if re.search(r"\.(service|socket|scope)\Z", part)), "")

    @property
    def local(self) -> str:
        """Address and port, as ``ss`` writes them."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def owner(self) -> str:
        """Program, process and unit that hold the socket, for a message."""
        service = self.unit if self.unit.endswith(".service") else ""
        process = f"process {self.pids[0]}" if self.pids else ""
        return ", ".join(filter(None, (self.program, process, f"unit {service}" if service else ""))) or "another process"

    @property
    def remedy(self) -> str:
        """The command that stops the holder, for a message."""
        if self.unit.endswith(".service"):
            return f"systemctl disable --now {self.unit}"
        return f"kill {self.pids[0]}" if self.pids else "as root, ss -ltunp names it"


def parse_sockets(text: str) -> list[Socket]:
    """Return the sockets that ``ss -Hltunp --cgroup`` has printed.

    Of a socket that systemd keeps while a service restarts, systemd is not the owner.
    """
    sockets = []
    for match in filter(None, map(_SOCKET.match, text.splitlines())):
        users = list(_USER.finditer(match["users"] or ""))
        users = [user for user in users if user["pid"] != "1"] or users
        sockets.append(
            Socket(
                match["protocol"],
                match["address"].partition("%")[0].strip("[]"),
                int(match["port"]),
                users[0]["program"] if users else "",
                tuple(int(user["pid"]) for user in users),
                match["group"] or "",
            )
        )
    return sockets


def read_sockets() -> list[Socket]:
    """Return the sockets of this host; none where there is no ``ss``, as on a host without iproute2."""
    return [with_control_group(socket) for socket in parse_sockets(run(["ss", "-Hltunp", "--cgroup"]).stdout)]


def with_control_group(socket: Socket, proc: str = "/proc") -> Socket:
    """Return the socket with the control group of its process, if that in which it was opened is gone, as after a restart."""
    if not socket.group.startswith(_GONE) or not socket.pids:
        return socket
    try:
        with open(f"{proc}/{socket.pids[0]}/cgroup") as stream:
            groups = [line.split(":", 2)[-1] for line in stream.read().splitlines() if line.startswith("0::")]
    except OSError:  # it has just ended
        return socket
    return socket._replace(group=groups[0]) if groups else socket


def overlap(wanted: str, held: str) -> bool:
    """Return whether the kernel refuses the address ``wanted`` because of the address ``held``, on the same port.

    ``*`` is all addresses of both families, and so is ``::`` in ``wanted``, for programs open it so; ``ss`` writes ``::``
    for IPv6 alone.
    """
    if wanted in ("*", "::") or held == "*" or wanted == held:
        return True
    try:
        ours, theirs = ipaddress.ip_address(wanted), ipaddress.ip_address(held)
    except ValueError:
        return True  # a name, which only the host can resolve
    theirs = getattr(theirs, "ipv4_mapped", None) or theirs
    return ours.version == theirs.version and (ours == theirs or ours.is_unspecified or theirs.is_unspecified)


def holders(sockets: list[Socket], protocol: str, address: str, port: int, own_units: str) -> list[Socket]:
    """Return those of ``sockets`` that stand in the way of ``address`` and ``port``.

    ``own_units`` is a regular expression; units whose names match it as a whole are not a conflict.
    """
    return [
        socket
        for socket in sockets
        if (socket.protocol, socket.port) == (protocol, port)
        and not re.fullmatch(own_units, socket.unit)
        and overlap(address, socket.address)
    ]


def port_holders(sockets: list[Socket], wanted: dict) -> list[dict]:
    """Return those of ``sockets`` in the way of ``wanted``, each with a message under ``problem``.

    ``wanted`` has ``variable``, ``protocol``, ``address`` and ``ports`` of the sockets to open; those of units that match its regular
    expression ``units`` are not a conflict.
    """
    return [
        {
            "pid": holder.pids[0] if holder.pids else None,
            "unit": holder.unit if holder.unit.endswith(".service") else "",
            "problem": f"{wanted['variable']} has port {port}, but {holder.owner} holds {holder.local} ({holder.protocol})."
            f" Stop it ({holder.remedy}), or give another port.",
        }
        for port in wanted["ports"]
        for holder in holders(sockets, wanted["protocol"], wanted["address"], int(port), wanted["units"])
    ]


def address_problem(variable: str, address: str) -> str | None:
    """Return a message if no program could listen on ``address``, which ``variable`` has, whatever the port; else ``None``."""
    if _is_available(address):
        return None
    known = ", ".join(own_addresses()) or "those that 'ip address' shows"
    return (
        f"{variable} is {address}, which is not an address of this host; it has {known}. Give one of these, or add {address} to the host."
    )


def _is_available(address: str) -> bool:
    """Return whether the host lets a program listen on ``address``; for a name, on one of its addresses."""
    if address == "*":
        return True
    try:
        found = network.getaddrinfo(address, 0, type=network.SOCK_STREAM)
    except OSError:
        return False
    return any(_can_bind(family, place) for family, _kind, _protocol, _name, place in found)


def _can_bind(family: int, place: tuple) -> bool:
    # Port 0 is any that is free, so that what is in use does not matter; the kernel's ip_nonlocal_bind does.
    try:
        with network.socket(family, network.SOCK_STREAM) as probe:
            probe.bind(place)
    except OSError as error:
        return error.errno not in _UNAVAILABLE
    return True
