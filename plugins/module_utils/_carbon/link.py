# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Asks carbon-cache for the points that it has received and not yet written.

An answer is a pickle, as is a request, behind its length in four bytes. Source: ``CacheManagementHandler`` of
``carbon/protocols.py``, carbon 1.1.7 and 1.1.10. This file is private to the collection.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct

_LENGTH = struct.Struct("!I")
# More than the points that the largest cache may hold for the metrics of one request.
_LONGEST_ANSWER = 256 << 20


class CarbonLinkError(Exception):
    """The instance does not answer, or not as carbon-cache does."""


class _DataUnpickler(pickle.Unpickler):
    """Takes lists, dictionaries, texts and numbers; any other pickled object could run foreign code."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it wants {module}.{name}")


class CarbonLink:
    """A connection to the query port of one instance, made when it is first needed."""

    def __init__(self, address: str, port: int, timeout: float = 10.0) -> None:
        self.name = f"{address}:{port}"
        self._address = (address, port)
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def cached(self, metrics: list[str]) -> dict[str, list[tuple[int, float]]]:
        """Return the cached points of those of the metrics that have any. Raises ``CarbonLinkError``."""
        request = pickle.dumps({"type": "cache-query-bulk", "metrics": metrics}, protocol=2)
        # An instance that was restarted hangs up on connections of before.
        attempts = 1 if self._socket is None else 2
        while True:
            attempts -= 1
            try:
                answer = self._exchange(request)
                break
            except OSError as error:
                self.close()
                if not attempts:
                    raise CarbonLinkError(f"{self.name}: {error}") from error
        try:
            by_metric = _DataUnpickler(io.BytesIO(answer)).load()["datapointsByMetric"]
            return {metric: [(int(when), float(value)) for when, value in by_metric[metric]] for metric in metrics if by_metric[metric]}
        except Exception as error:  # a pickle may fail in any way
            self.close()
            raise CarbonLinkError(f"{self.name} did not answer as carbon-cache does: {error}") from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, request: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._timeout)
        self._socket.sendall(_LENGTH.pack(len(request)) + request)
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
        if length > _LONGEST_ANSWER:
            raise OSError(f"an answer of {length} bytes")
        return self._receive(length)

    def _receive(self, length: int) -> bytes:
        if self._socket is None:
            raise OSError("the connection is closed")
        received = bytearray()
        while len(received) < length:
            part = self._socket.recv(min(length - len(received), 1 << 20))
            if not part:
                raise OSError("the connection was closed")
            received += part
        return bytes(received)
