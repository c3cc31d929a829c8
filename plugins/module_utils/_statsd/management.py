# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD's management interface, a TCP port.

Source of the protocol: ``stats.js``, ``lib/mgmt_server.js`` and ``lib/mgmt_console.js`` of StatsD 0.9.0. A command is what
one packet holds; an answer ends with ``END`` and an empty line, except that of ``health``, a single line. Counters, gauges
and timers are dumped by ``util.inspect`` of Node.js, which shows every name, but of each timer only the first hundred
values. This file is private to the collection.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

# Described in the documentation fragment statsd_management.
MANAGEMENT_ARGUMENT_SPEC: dict = {
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 8126},
    "timeout": {"type": "int", "default": 10},
}

# A command with it still fits into one packet.
_LONGEST_NAME = 1000
_END = b"END\n\n"
# Of util.inspect, and of JSON.
_TOKEN = re.compile(
    r"""\s*(?: \.\.\.\ (?P<more>\d+)\ more\ items?
             | (?P<text>'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | `(?:[^`\\]|\\.)*`)
             | (?P<word>[^\s:,\[\]{}'"`]+)
             | (?P<sign>[:,\[\]{}]) )\s*""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class ManagementError(Exception):
    """StatsD's management interface is not there, or not what answers."""


class Management:
    """A connection to the management interface of one StatsD, which ``health`` is known of. Raises ``ManagementError``."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._timeout = timeout
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except socket.gaierror as error:
            raise ManagementError(f"host '{host}' has no address: {error.strerror}.") from error
        except OSError as error:
            raise ManagementError(
                f"{self._address} cannot be reached: {error.strerror or error}. See that StatsD runs, and that these are its"
                " mgmt_address and mgmt_port."
            ) from error
        try:
            self.health = self._health()
        except ManagementError:
            self._socket.close()
            raise

    def __enter__(self) -> Management:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def stats(self) -> dict:
        """Return what StatsD says of itself: values, and a dict of values for each of its parts and backends."""
        stats: dict = {}
        for line in self._ask("stats").splitlines():
            name, _colon, value = line.rpartition(": ")
            part, _dot, detail = name.partition(".")
            place, key = (stats.setdefault(part, {}), detail) if detail else (stats, part)
            try:
                place[key] = _number(value)
            except ValueError:  # backends of other makers may say what they like
                place[key] = value
        return stats

    def metrics(self, kind: str) -> dict:
        """Return the metrics of a kind, ``counters``, ``gauges`` or ``timers``, by their names.

        A number is ``None`` if JSON has none for it. A timer is a dict of ``count`` and ``values``.
        """
        answer = self._ask(kind)
        try:
            return parse_dump(answer)
        except ValueError as error:
            raise ManagementError(f"{self._address} answers '{kind}' as StatsD 0.9.0 does not: {error}") from error

    def delete(self, kind: str, name: str) -> None:
        """Delete the metric of a kind, or the folder if the name ends with ``.*``."""
        self._ask(f"del{kind} {name}")

    def _health(self) -> str:
        answer = self._answer_to("health", lambda answer: answer.endswith(b"\n"))
        match = re.match(r"health: (\S+)\n\Z", answer)
        if not match:
            raise ManagementError(f"{self._address} is not StatsD's management interface: it answers 'health' with {answer[:60]!r}.")
        return match.group(1)

    def _ask(self, command: str) -> str:
        answer = self._answer_to(command, lambda answer: answer.endswith(_END) or answer == b"ERROR\n")
        if answer == "ERROR\n":
            raise ManagementError(f"{self._address} does not know '{command.partition(' ')[0]}'. Name a StatsD, rather than its proxy.")
        return answer[: -len(_END)]

    def _answer_to(self, command: str, is_complete) -> str:
        deadline = time.monotonic() + self._timeout
        answer = bytearray()
        try:
            self._socket.sendall(f"{command}\n".encode())
            while not is_complete(answer):
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                received = self._socket.recv(65536)
                if not received:
                    raise ManagementError(f"{self._address} hung up on '{command}'{_shown(answer)}.")
                answer += received
        except socket.timeout as error:
            raise ManagementError(
                f"{self._address} did not answer '{command}' within {self._timeout} s{_shown(answer)}. See that it is StatsD's"
                " management port, rather than one for metrics."
            ) from error
        except OSError as error:
            raise ManagementError(f"{self._address} broke off at '{command}': {error.strerror or error}.") from error
        return answer.decode("utf-8", "replace")


def name_problems(kind: str, names: list[str]) -> list[str]:
    """Return one sentence for each name or folder that no command could delete."""
    return [
        f"{kind} has {name[:60]!r}; give a name of up to {_LONGEST_NAME} characters of ASCII without space, or a folder such as 'shop.*'."
        for name in names
        if not re.match(rf"[!-~]{{1,{_LONGEST_NAME}}}\Z", name)
    ]


def names_of(metrics: dict, patterns: list[str]) -> list[str]:
    """Return the names among ``metrics`` that StatsD deletes for ``patterns``, sorted.

    For StatsD, ``.*`` at the end is everything in that folder and the folders below; elsewhere, an asterisk is a character.
    """
    folders = tuple(pattern[:-1] for pattern in patterns if pattern.endswith(".*"))
    return sorted(name for name in metrics if name in patterns or name.startswith(folders))


def parse_dump(text: str) -> dict:
    """Return the metrics in a dump. Raises ``ValueError`` with the place that is not understood."""
    tokens = _tokens(text)
    metrics = {}
    _expect(tokens, "{")
    kind, token = next(tokens)
    while token != "}":
        if token == "[":  # such as ['__proto__']
            kind, token = next(tokens)
            _expect(tokens, "]")
        if kind not in ("text", "word"):
            raise ValueError(f"there is {token!r} where a name is expected")
        _expect(tokens, ":")
        metrics[_unquoted(token) if kind == "text" else token] = _value(tokens)
        kind, token = next(tokens)
    if next(tokens)[0] != "end":
        raise ValueError("it goes on after its end")
    return metrics


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"{text[position : position + 60]!r} is no part of a dump")
        # Commas separate what is separate without them, too.
        if match.group("sign") != ",":
            yield match.lastgroup, match.group(match.lastgroup)
        position = match.end()
    while True:
        yield "end", "its end"


def _expect(tokens: Iterator[tuple[str, str]], sign: str) -> None:
    _kind, token = next(tokens)
    if token != sign:
        raise ValueError(f"there is {token!r} where {sign!r} is expected")


def _value(tokens: Iterator[tuple[str, str]]) -> object:
    kind, token = next(tokens)
    if kind == "word":
        return _number(token)
    if token != "[":
        raise ValueError(f"there is {token!r} where a number or a list is expected")
    values: list = []
    more = 0
    for kind, token in tokens:
        if kind == "word":
            values.append(_number(token))
        elif kind == "more":
            more = int(token)
        elif token == "]":
            break
        else:
            raise ValueError(f"there is {token!r} where a number is expected")
    return {"count": len(values) + more, "values": values}


def _number(text: str) -> int | float | None:
    if text in ("NaN", "Infinity", "-Infinity", "null", "undefined"):
        return None
    try:
        return int(text)
    except ValueError:
        return float(text)


def _unquoted(text: str) -> str:
    def character(match: re.Match) -> str:
        code = match.group(1) or match.group(2)
        return chr(int(code, 16)) if code else _CONTROL.get(match.group(3), match.group(3))

    return _ESCAPE.sub(character, text[1:-1])


def _shown(answer: bytes | bytearray) -> str:
    return f", after {bytes(answer[-60:])!r}" if answer else ""
