# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a store has, and for whom: the series of other homes, and those that this store shares with others.

This file is private to the collection.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import IO, NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import RELAY, Homes, Ring
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.remove import MOVING, recover
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.state import State, write_line
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import NotWhisperError, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.merge import presence
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.parallel import Worker, in_parallel
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import (
    NAMED,
    SUFFIX,
    Entry,
    LeaseError,
    is_too_long,
    metric_name,
    open_series,
    printable,
    walk,
)

# Files that are asked about at once.
PORTION = 5000
# A file that was written to within these seconds may be written to while it is copied. The next pass takes it.
SETTLED_SECONDS = 5


class Names:
    """Names of series with tags, by the hashes that carbon makes names of files of (``TAG_HASH_FILENAMES``)."""

    def __init__(self, find: Callable[[str], str | None] | None = None) -> None:
        self._find = find or (lambda _digest: None)

    def of(self, path: str) -> str | None:
        """Return the name of the series that carbon would keep in the file ``path``; ``None`` if that is unknown.

        Source: ``TaggedSeries.encode`` of ``carbon/util.py``, carbon 1.1.10.
        """
        name = metric_name(path)
        if name is None:
            name = self._find(os.path.basename(path)[: -len(SUFFIX)])
        return name if name is not None and path in _paths(name) else None


def _paths(name: str) -> list[str]:
    if ";" not in name:
        return [name.replace(".", "/") + SUFFIX]
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    return [f"_tagged/{digest[:3]}/{digest[3:6]}/{item}{SUFFIX}" for item in (name.replace(".", "_DOT_"), digest)]


class Placement(NamedTuple):
    """A whisper file and the stores that should have it."""

    path: str
    homes: tuple[str, ...]
    kind: str  # home, stray, own, unnamed


class Survey(NamedTuple):
    """What one scan is asked for."""

    ring: Ring
    store: str
    own_prefixes: tuple[str, ...]  # of the series that each store writes about itself, past the ring
    relay: str = RELAY

    @property
    def is_leaving(self) -> bool:
        return self.store not in self.ring.names

    def place(self, paths: list[str], homes: Homes, names: Names) -> Iterator[Placement]:
        """Yield each file with its homes.

        What the store writes about itself, and what has no known name, stays where it is, unless the store leaves.
        """
        known = [names.of(path) for path in paths]
        for path, name, found in zip(paths, known, homes.of(name or "" for name in known)):
            if not found:
                yield Placement(path, tuple(self.ring.names) if self.is_leaving else (self.store,), "unnamed")
            elif name is not None and name.startswith(self.own_prefixes):
                yield Placement(path, found if self.is_leaving else (self.store,), "own")
            else:
                yield Placement(path, found, "home" if self.store in found else "stray")


def series_paths(top: int, unreadable: Callable[[Entry], None]) -> Iterator[str]:
    """Yield the path of each whisper file of a tree, and of each that a removal has begun with."""
    for entry in walk(top, unreadable=unreadable):
        if not entry.is_foreign and (_is_series(entry.name) or entry.name.endswith(SUFFIX + MOVING)):
            yield entry.path


def _is_series(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def portions(paths: Iterator[str]) -> Iterator[list[str]]:
    """Yield the paths in lists of bounded length."""
    portion: list[str] = []
    for path in paths:
        portion.append(path)
        if len(portion) == PORTION:
            yield portion
            portion = []
    if portion:
        yield portion


class Scan:
    """One look at the tree, in several processes. Nothing in the tree changes but what a killed removal has left."""

    def __init__(self, top: int, survey: Survey, state: State, names: Callable[[], Names] = Names) -> None:
        self._top = top
        self._survey = survey
        self._state = state
        self._names = names

    def run(self, processes: int, pass_id: str, until: int | None, write: bool, tell: Callable[[str], None]) -> dict:
        """Return what the store has.

        With ``until``, the points before that time are compared with those of the other homes, and with ``write``, the lists for the
        other stores are written. Raises ``RingError``, ``WorkerError`` and ``OSError``.
        """
        others = [name for name in self._survey.ring.names if name != self._survey.store]
        if write:
            self._state.renew("out")
            self._state.renew("own", "strays")
            self._state.renew("own", "shared")
            for name in others:
                self._state.make("out", pass_id, "to", name)

        def work(worker: Worker) -> dict:
            with contextlib.ExitStack() as stack:
                lists = None
                if write:
                    opened = {
                        (kind, name): stack.enter_context(open(self._state.path(*parts, str(worker.index)), "w", encoding="ascii"))
                        for kind, name, parts in [
                            *(("to", name, ("out", pass_id, "to", name)) for name in others),
                            ("own", "strays", ("own", "strays")),
                            ("own", "shared", ("own", "shared")),
                        ]
                    }
                    lists = _Lists(opened)
                homes = stack.enter_context(Homes(self._survey.ring, self._survey.relay))
                return self._look(worker, homes, until, lists)

        answers = in_parallel(processes, work, lambda done: tell(f"{done} series looked at"))
        counts: Counter[str] = Counter()
        to: dict[str, Counter[str]] = {}
        unreadable: list[dict[str, str]] = []
        for answer in answers:
            counts.update(answer["counts"])
            for name, figures in answer["to"].items():
                to.setdefault(name, Counter()).update(figures)
            unreadable += answer["unreadable"]
        return {"counts": dict(counts), "to": {name: dict(figures) for name, figures in to.items()}, "unreadable": unreadable[:NAMED]}

    def _look(self, worker: Worker, homes: Homes, until: int | None, lists: _Lists | None) -> dict:
        found = _Found()
        names = self._names()

        def unreadable(directory: Entry) -> None:
            if worker.index == 0:
                found.name(directory.path, "the directory cannot be read, or is too deep")

        mine = (
            path for path in series_paths(self._top, unreadable) if zlib.crc32(os.fsencode(_plain(path))) % worker.processes == worker.index
        )
        for portion in portions(mine):
            paths = []
            for path in portion:
                if _is_series(os.path.basename(path)):
                    paths.append(path)
                elif lists is not None:
                    self._recover(path, found)
            for placement in self._survey.place(paths, homes, names):
                self._take(placement, until, found, lists)
                worker.count()
        return found.as_data()

    def _recover(self, path: str, found: _Found) -> None:
        try:
            recover(self._top, path)
            found.counts["recovered"] += 1
        except (OSError, LeaseError, NotWhisperError) as error:
            found.name(path, str(error))

    def _take(self, placement: Placement, until: int | None, found: _Found, lists: _Lists | None) -> None:
        counts = found.counts
        counts["series"] += 1
        counts[placement.kind] += 1
        targets = [name for name in placement.homes if name != self._survey.store]
        if not targets or (placement.kind == "home" and until is None):
            return
        if placement.kind == "own" and until is None:
            return  # its file changes with every report
        try:
            status, digest = self._inspect(placement.path, until)
        except FileNotFoundError:
            return
        except (OSError, NotWhisperError, LeaseError) as error:
            counts["strays"] += placement.kind != "home"
            found.name(placement.path, getattr(error, "strerror", None) or str(error))
            return
        used = min(status.st_blocks * 512, status.st_size)
        is_stray = placement.kind != "home"
        is_settled = status.st_mtime < time.time() - SETTLED_SECONDS
        if placement.kind in ("stray", "unnamed"):
            counts["strays"] += 1
            counts["stray_bytes"] += used
            counts["unsettled"] += not is_settled
        if is_stray:
            for name in targets:
                found.to.setdefault(name, Counter()).update(series=1, bytes=used)
        else:
            counts["shared"] += 1
        if lists is None:
            return
        if placement.kind == "home":
            lists.write("own", "shared", placement.path, digest)
        elif not is_settled and placement.kind != "own":
            return
        elif placement.kind != "own":
            lists.write("own", "strays", placement.path, status.st_mtime_ns, status.st_size, placement.homes)
        sparse = status.st_blocks * 512 < status.st_size
        for name in targets:
            lists.write("to", name, placement.path, status.st_mtime_ns, status.st_size, used, sparse, is_stray, digest)

    def _inspect(self, path: str, until: int | None) -> tuple[os.stat_result, str]:
        name = os.path.basename(path)
        if is_too_long(f".{name}{MOVING}"):
            raise OSError(errno.ENAMETOOLONG, "its name is too long to be given a second one")
        descriptor = open_series(self._top, path)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotWhisperError("it is no file")
            header = read_header(descriptor)
            return status, "" if until is None else presence(descriptor, header, until)
        finally:
            os.close(descriptor)


def _plain(path: str) -> str:
    """Return the path of the series that a name belongs to."""
    folder, name = os.path.split(path)
    return os.path.join(folder, name[1 : -len(MOVING)]) if name.endswith(MOVING) else path


class _Lists:
    def __init__(self, streams: Mapping[tuple[str, str], IO[str]]) -> None:
        self._streams = streams

    def write(self, kind: str, name: str, *items: object) -> None:
        write_line(self._streams[kind, name], *items)


class _Found:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.to: dict[str, Counter[str]] = {}
        self.unreadable: list[dict[str, str]] = []

    def name(self, path: str, reason: str) -> None:
        self.counts["unreadable"] += 1
        if len(self.unreadable) < NAMED:
            self.unreadable.append({"path": printable(path), "reason": reason})

    def as_data(self) -> dict:
        return {"counts": self.counts, "to": self.to, "unreadable": self.unreadable}
