# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which stores are the homes of a series, as the relays themselves see it.

The relay is asked: ``carbon-c-relay -t`` reads names and prints where each would go. Source of the format: ``router_test`` and
``router_printconfig`` of ``router.c``, carbon-c-relay 3.7.3. This file is private to the collection.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

RELAY = "/usr/bin/carbon-c-relay"
RING_FILE = "/etc/carbon/ring.json"
# Carbon takes every character in a name. The relay replaces those that it does not know by "_", which makes different names one. It
# looks at bytes: these characters have all that there are in UTF-8, and with ";" in the list, tags belong to the hashed name.
_PUNCTUATION = "!\"#$%&'()*+,-/:;<=>?@[\\]^_`{|}~"
_FOLLOWING_BYTES = map(chr, range(0x100, 0x140))
_FIRST_BYTES = map(chr, (*range(0xA1, 0x800, 0x40), 0x841, *range(0x1041, 0x10000, 0x1000), 0x10041, *range(0x40041, 0x110000, 0x40000)))
CHARACTERS = "".join([_PUNCTUATION, *_FOLLOWING_BYTES, *_FIRST_BYTES])
# Names for which one process of the relay is started: what is in memory.
_AT_ONCE = 20_000
# What ends a name in a line, or is no part of one.
_NO_NAME = re.compile(r"[\x00-\x20\x7f]")
# The relay reads lines of at most 8191 bytes, with the value and the time.
_LONGEST_NAME = 8000
_NAME, _TARGET = b"    * -> ", b"        "

# As the documentation fragment carbon_ring describes them.
RING_ARGUMENT_SPEC = {
    "store": {"type": "str", "required": True},
    "cluster": {
        "type": "dict",
        "required": True,
        "options": {
            "replicas": {"type": "int", "required": True},
            "stores": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "leaving": {"type": "bool", "default": False},
                    "host": {"type": "str"},
                },
            },
        },
    },
}


class RingError(Exception):
    """The relay does not say where series go; the message says why."""


class Store(NamedTuple):
    """A host of carbon as the relays know it. ``name`` decides its places in the ring."""

    name: str
    address: str
    port: int


class Ring(NamedTuple):
    """The stores that share the series, in the order of the inventory, and on how many of them each series is."""

    replicas: int
    stores: tuple[Store, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Ring:
        """Return the ring of ``replicas`` and ``stores``, without the stores that are ``leaving``.

        Raises ``KeyError``, ``TypeError`` and ``ValueError`` for data of another form.
        """
        stores = [
            Store(str(store["name"]), str(store["address"]), int(store["port"])) for store in data["stores"] if not store.get("leaving")
        ]
        return cls(int(data["replicas"]), tuple(stores))

    @property
    def names(self) -> list[str]:
        return [store.name for store in self.stores]

    def as_data(self) -> dict:
        """Return the ring as plain data, of which ``of`` makes the same ring."""
        return {"replicas": self.replicas, "stores": [store._asdict() for store in self.stores]}

    def described(self) -> str:
        """Return the ring as part of a sentence."""
        return f"{', '.join(self.names)} with {self.replicas} {'replica' if self.replicas == 1 else 'replicas'}"


def relay_string(text: object) -> str:
    """Return ``text`` as a quoted string of the relay's configuration."""
    return '"' + re.sub(r'([\\"#])', r"\\\1", str(text)) + '"'


def is_relayed(name: str) -> bool:
    """Return whether a relay can get a point of this name: names with spaces or control characters are not of its protocol."""
    return bool(name) and _NO_NAME.search(name) is None and len(os.fsencode(name)) <= _LONGEST_NAME


def recorded_ring(path: str = RING_FILE) -> Ring | None:
    """Return the ring that the host recorded, ``None`` if it has none. Raises ``RingError`` for a file of another form."""
    try:
        with open(path, encoding="utf-8") as stream:
            return Ring.of(json.load(stream))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RingError(
            f"{path} does not hold a ring: {error!r}. Move it away, and the host counts as one with a ring of itself"
        ) from error


class Homes:
    """Tells the homes of series in a ring. Close it at the end, or use it as a context."""

    def __init__(self, ring: Ring, relay: str = RELAY) -> None:
        self._ring = ring
        self._relay = relay
        self._file = tempfile.NamedTemporaryFile("w", prefix="ring-", suffix=".conf", encoding="utf-8")  # noqa: SIM115  # close() closes it
        self._file.write(_configuration(ring))
        self._file.flush()
        # Where points go, as the relay prints it, by the name of the store.
        self._names: dict[bytes, str] = {}

    def __enter__(self) -> Homes:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def of(self, names: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Yield the homes of each name, in the order of the ring's answer; an empty tuple for what ``is_relayed`` refuses.

        Names are taken in portions, for each of which one process of the relay runs. Raises ``RingError``.
        """
        source = iter(names)
        while portion := list(islice(source, _AT_ONCE)):
            answers = self._ask([name for name in portion if is_relayed(name)])
            yield from (next(answers, ()) if is_relayed(name) else () for name in portion)

    def _ask(self, names: list[str]) -> Iterator[tuple[str, ...]]:
        if len(self._ring.stores) == 1:
            return iter([(self._ring.stores[0].name,)] * len(names))
        if not names:
            return iter([])
        wanted = [os.fsencode(name) for name in names]
        command = [self._relay, "-t", "-c", CHARACTERS, "-f", self._file.name]
        try:
            done = subprocess.run(command, input=b"\n".join([*wanted, b""]), capture_output=True, check=False)
        except OSError as error:
            raise RingError(f"{self._relay} cannot be started: {error.strerror}; the package carbon-c-relay has it") from error
        printed = done.stdout.split(b"\n")
        if done.returncode or not self._names:
            self._names = self._read_members(printed)
        if done.returncode or len(self._names) != len(self._ring.stores):
            reason = (done.stderr or done.stdout[-400:]).decode("utf-8", "replace").strip()
            raise RingError(f"{self._relay} does not take the ring {self._ring.described()}: {reason}")
        return self._read_homes(printed, wanted)

    def _read_members(self, printed: list[bytes]) -> dict[bytes, str]:
        """Return the names of the stores by their targets, as both stand in the configuration that the relay prints first."""
        known = set(self._ring.names)
        members = (line.strip().rpartition(b"=") for line in printed[: 60 + len(known)] if line.startswith(_TARGET))
        return {target: os.fsdecode(name) for target, _equals, name in members if os.fsdecode(name) in known}

    def _read_homes(self, printed: list[bytes], names: list[bytes]) -> Iterator[tuple[str, ...]]:
        lines = iter(printed)
        for name in names:
            if next((line for line in lines if line.startswith(_NAME)), b"") != _NAME + name:
                raise RingError(f"{self._relay} does not say where {os.fsdecode(name)!r} goes")
            homes = []
            for line in lines:
                if line.startswith(_TARGET):
                    homes.append(self._names[line.strip()])
                elif line == b"    stop":
                    break
            if len(homes) != self._ring.replicas:
                raise RingError(f"{self._relay} names {len(homes)} homes of {os.fsdecode(name)!r} instead of {self._ring.replicas}")
            yield tuple(homes)


def _configuration(ring: Ring) -> str:
    replication = f" replication {ring.replicas}" if ring.replicas > 1 else ""
    members = [f"        {relay_string(f'{_in_url(store.address)}:{store.port}')}={relay_string(store.name)}" for store in ring.stores]
    return "\n".join([f'cluster "stores"\n    fnv1a_ch{replication}', *members, '    ;\nmatch *\n    send to "stores"\n    stop\n    ;\n'])


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
