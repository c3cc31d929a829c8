# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What single variables may hold, and mean: ports, addresses, directories, counts. This file is private to the collection."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Iterator

# No service with PrivateTmp, as Apache's and this collection's are, sees /tmp and /var/tmp.
_OF_THE_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "proc", "root", "run", "sbin", "sys", "tmp", "usr")
# Each with what belongs to other services.
_SHARED = tuple(f"/var/{name}" for name in ("backups", "cache", "lib", "local", "log", "mail", "opt", "spool", "www"))

# What graphite-web and its site have at the top. Its pages look for some of these names anywhere in their address.
OWN_PATHS = (
    "account",
    "admin",
    "browser",
    "composer",
    "dashboard",
    "events",
    "functions",
    "graphite-health",
    "metrics",
    "render",
    "S",
    "s",
    "static",
    "tags",
    "version",
    "whitelist",
)

_WILDCARDS = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def connect_address(address: object) -> str:
    """Return the address at which a listener on ``address`` is reached from its own host: that of loopback for a wildcard."""
    return _WILDCARDS.get(str(address), str(address))


def is_loopback(address: str) -> bool:
    """Return whether an address leads to the host itself."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, which only the host can resolve


def is_private(address: str) -> bool:
    """Return whether an address is one of a network that no router of the Internet knows; a name is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_private and not (found.is_loopback or found.is_link_local or found.is_unspecified)


def port_problem(name: str, value: object) -> str | None:
    """Return a sentence if ``value`` is not a port number, else ``None``; ``name`` says which variable it is."""
    if isinstance(value, bool) or not re.match(r"\d+\Z", str(value)) or not 1 <= int(str(value)) <= 65535:
        return f"{name} is {value}; a port is a number from 1 to 65535."
    return None


def address_problem(name: str, value: object) -> str | None:
    """Return a sentence if ``value`` is not an IP address to listen on, else ``None``."""
    try:
        ipaddress.ip_address(str(value))
    except ValueError:
        return f"{name} is '{value}'; give an IP address of the host, such as 127.0.0.1, or 0.0.0.0 for all."
    return None


def network_problems(name: str, values: Iterable[object]) -> Iterator[str]:
    """Yield one message for each value of a list that is neither an address nor a network."""
    for value in values:
        try:
            ipaddress.ip_network(str(value))
        except ValueError as error:
            yield f"{name} has '{value}' ({error}); give an address or a network, such as 192.0.2.7 or 192.0.2.0/24."


def is_outside(address: str, networks: Iterable[object]) -> bool:
    """Return whether an address is in none of the networks; a name may be in any."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not any(found in ipaddress.ip_network(str(network)) for network in networks)


def everybody_problem(name: str, values: Iterable[object]) -> str | None:
    """Return a sentence if a list of proxies has everybody in it, who could then claim anything, else ``None``."""
    for value in values:
        if re.search(r"/0\Z", str(value)):
            return f"{name} has '{value}', which is everybody: any client could then claim to be another. List the proxies alone."
    return None


def url_prefix(value: object) -> str:
    """Return a prefix of URLs with a slash at its beginning and none at its end; an empty text for none."""
    bare = re.sub(r"\A/?(.*?)/?\Z", r"\1", str(value or ""), flags=re.DOTALL)
    return f"/{bare}" if bare else ""


def url_prefix_problem(name: str, value: object) -> str | None:
    """Return a sentence if graphite-web cannot have ``value`` in front of its URLs, else ``None``."""
    parts = url_prefix(value).split("/")[1:]
    if "//" in str(value) or not all(re.match(r"[A-Za-z0-9_-]+\Z", part) for part in parts):
        return (
            f"{name} is '{value}'; give names of letters, digits, '_' and '-' with a single '/' between them, such as /graphite or"
            " /tools/graphite."
        )
    taken = [part for part in parts if part in OWN_PATHS]
    if taken:
        return f"{name} is '{value}'; '{taken[0]}' is a path of graphite-web or its site already. Give another name, such as /graphite."
    return None


def host_name_problem(name: str, value: object) -> str | None:
    """Return a sentence if ``value`` is not a host name, as a client asks for it without a port, else ``None``."""
    if not re.match(r"[\w.-]+\Z", str(value)):
        return f"{name} is '{value}'; give one host name, such as graphite.example.org."
    return None


def directory_problem(name: str, value: object, example: str = "/var/lib/graphite/whisper") -> str | None:
    """Return a sentence if ``value`` is not a directory to give to an application with all that it contains."""
    path = posixpath.normpath(re.sub("^/+", "/", str(value)))
    top, *rest = path.split("/")[1:] if path.startswith("/") else [""]
    if not rest or top in _OF_THE_SYSTEM or path in _SHARED or path.startswith("/var/tmp/"):
        return f"{name} is '{value}'; give a directory of its own by its absolute path, such as {example}."
    return None


def plain_path_problem(name: str, value: object) -> str | None:
    """Return a sentence if ``value`` is an absolute path that units, which split and expand it, or comparisons would take for another."""
    path = posixpath.normpath(re.sub("^/+", "/", str(value)))
    if str(value) != path:
        return f"{name} is '{value}'; write the path without '..', '.', '//' and a slash at its end, such as {path}."
    if not re.match(r"[\w./@+-]+\Z", path):
        return f"{name} is '{value}', which a unit would not take as it is; use letters, digits and . _ @ + - / only."
    return None


def earlier_installation_problem(name: str, value: object) -> str | None:
    """Return a sentence if ``value`` cannot be the directory of an installation in the layout of Graphite's source, else ``None``."""
    if str(value).startswith("/") and plain_path_problem(name, value) is None:
        return None
    return f"{name} is '{value}'; give the absolute path of the earlier installation, such as /opt/graphite"


def count_problem(name: str, value: object) -> str | None:
    """Return a sentence if ``value`` is not a whole number of at least 1, else ``None``."""
    if isinstance(value, bool) or not re.match(r"[1-9]\d*\Z", str(value)):
        return f"{name} is {value}; give a number of at least 1."
    return None
