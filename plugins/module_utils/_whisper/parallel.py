# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The same work on a share each, in several processes. This file is private to the collection."""

from __future__ import annotations

import json
import mmap
import os
import selectors
import struct
import time
import traceback
from collections.abc import Callable

_COUNTER = struct.Struct("Q")


class WorkerError(Exception):
    """A process ended without a result; the message says how."""


class StoppedError(Exception):
    """Another process, or the one that started all, has given up."""


class Worker:
    """What a process knows of the others."""

    def __init__(self, index: int, processes: int, shared: mmap.mmap) -> None:
        self.index = index
        self.processes = processes
        self._shared = shared
        self._parent = os.getppid()
        self._done = 0

    def count(self, items: int = 1) -> None:
        """Say that ``items`` more are done. Raises ``StoppedError`` if there is no point in going on."""
        self._done += items
        _COUNTER.pack_into(self._shared, self.index * _COUNTER.size, self._done)
        if self._shared[-1] or os.getppid() != self._parent:
            raise StoppedError

    def stop_all(self) -> None:
        """Let the other processes end at their next ``count``."""
        self._shared[-1] = 1


def in_parallel(processes: int, work: Callable[[Worker], dict], progress: Callable[[int], None], interval: float = 10.0) -> list[dict]:
    """Run ``work`` in each of ``processes`` children; return what they return, which must be plain data.

    ``progress`` is called with the sum of what they have counted, every ``interval`` seconds.

    Raises ``WorkerError`` if one of them fails; the others are waited for.
    """
    shared = mmap.mmap(-1, (processes + 1) * _COUNTER.size)
    results: list[dict] = []
    failures: list[dict] = []
    with selectors.DefaultSelector() as selector:
        for index in range(processes):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                _be_worker(Worker(index, processes, shared), work, writer)
            os.close(writer)
            selector.register(reader, selectors.EVENT_READ, (child, bytearray()))
        reported = time.monotonic()
        while selector.get_map():
            for key, _events in selector.select(timeout=interval):
                child, received = key.data
                part = os.read(key.fd, 1 << 16)
                received += part
                if not part:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    status = os.waitpid(child, 0)[1]
                    answer = json.loads(received) if received and status == 0 else {"failure": f"a process ended with status {status}"}
                    (failures if "failure" in answer else results).append(answer)
            if selector.get_map() and time.monotonic() - reported >= interval:
                reported = time.monotonic()
                progress(sum(_COUNTER.unpack_from(shared, index * _COUNTER.size)[0] for index in range(processes)))
    if failures:
        raise WorkerError(failures[0]["failure"])
    return results


def _be_worker(worker: Worker, work: Callable[[Worker], dict], writer: int) -> None:
    try:
        answer = work(worker)
    except BaseException:  # whatever it is, the parent has to say it
        worker.stop_all()
        answer = {"failure": traceback.format_exc()}
    try:
        with os.fdopen(writer, "w") as stream:
            json.dump(answer, stream)
    finally:
        os._exit(0)
