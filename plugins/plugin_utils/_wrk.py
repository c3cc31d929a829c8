# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What wrk prints.

Source of the format: ``main`` and ``print_stats`` in ``wrk.c``, and ``format_metric`` in ``units.c``, of wrk 4.1.0. This
file is private to the collection.
"""

from __future__ import annotations

import re

_TIME_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}
_BYTE_UNITS: dict[str, float] = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "PB": 2**50}
_QUANTITY = re.compile(r"([\d.]+)([A-Za-z]+)\Z")


class WrkError(ValueError):
    """The text is not the summary that wrk prints at its end."""


def parse_summary(text: str) -> dict:
    """Return the figures of a summary that ``wrk --latency`` printed.

    Latencies are in milliseconds, ``duration`` in seconds, sizes in bytes. ``errors`` counts answers that were no success
    and connections that failed. Raises ``WrkError``.
    """
    try:
        requests, duration, size = _found(r"(\d+) requests in (\S+), (\S+) read", text)
        average, deviation, longest = _found(r"Latency +(\S+) +(\S+) +(\S+) +\S+%", text)
        return {
            "requests": int(requests),
            "duration": _milliseconds(duration) / 1000,
            "bytes": _quantity(size, _BYTE_UNITS),
            "requests_per_second": float(_found(r"Requests/sec: +(\S+)", text)[0]),
            "bytes_per_second": _quantity(_found(r"Transfer/sec: +(\S+)", text)[0], _BYTE_UNITS),
            "latency": {
                "mean": _milliseconds(average),
                "deviation": _milliseconds(deviation),
                "max": _milliseconds(longest),
                **{f"p{percent}": _milliseconds(value) for percent, value in re.findall(r"^ +(\d+)% +(\S+)$", text, re.MULTILINE)},
            },
            "errors": sum(
                int(count)
                for line in re.findall(r"(?:Socket errors|Non-2xx or 3xx responses): .*", text)
                for count in re.findall(r"\b\d+(?!xx)\b", line.partition(":")[2])
            ),
        }
    except (AttributeError, KeyError, ValueError) as error:
        raise WrkError(f"wrk did not end with its summary, but with: {text.strip()[-500:] or 'nothing'}") from error


def _found(pattern: str, text: str) -> tuple[str, ...]:
    return re.search(pattern, text).groups()  # type: ignore[union-attr]


def _quantity(text: str, units: dict[str, float]) -> float:
    number, unit = _QUANTITY.match(text).groups()  # type: ignore[union-attr]
    return float(number) * units[unit]


def _milliseconds(text: str) -> float:
    return _quantity(text, _TIME_UNITS)
