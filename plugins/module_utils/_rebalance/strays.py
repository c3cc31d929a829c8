# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which strays of this store all of their homes have, and their removal. This file is private to the collection."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator

from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.remove import Stray, remove
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.state import State, Table, as_text, read_lines
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.transfer import Peer, Transfer
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.parallel import StoppedError, Worker, in_parallel
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import locked

# Files that go at once.
_PORTION = 500
_COLUMNS = "path TEXT, home TEXT, mtime_ns INTEGER, size INTEGER, PRIMARY KEY (path, home)"


class Strays:
    """The series of a store that are at home elsewhere."""

    def __init__(self, top: int, state: State, peers: list[Peer], transfer: Transfer) -> None:
        self._top = top
        self._state = state
        self._peers = peers
        self._transfer = transfer

    def run(self, store: str, pass_id: str, processes: int, tell: Callable[[str], None]) -> dict:
        """Ask the other stores what of this one they have merged, and remove what all homes have; return the figures.

        Raises ``RebalanceError``, ``TreeBusyError`` and ``WorkerError``.
        """
        table = Table(self._state.path("work.sqlite"), "path TEXT")
        table.connection.execute("DROP TABLE rows")
        table.connection.execute(f"CREATE TABLE rows ({_COLUMNS})")
        for peer in self._peers:
            tell(f"asking {peer.name}")
            target = self._state.renew("in", peer.name)
            self._transfer.lists(peer, f"{pass_id}/merged/{store}", target)
            table.fill((as_text(path), peer.name, *items) for path, *items in read_lines(target))
        counts: Counter[str] = Counter(removed=0, stayed=0)
        confirmed = self._confirmed(table, counts)
        while portion := list(itertools.islice(confirmed, _PORTION * processes)):
            with locked(self._top, timeout=600):
                for answer in in_parallel(processes, _removing(self._top, portion), lambda _done: None):
                    counts.update(answer)
            tell(f"{counts['removed']} removed, {counts['stayed'] + counts['unconfirmed']} stay for now")
        table.close()
        return dict(counts)

    def _confirmed(self, table: Table, counts: Counter[str]) -> Iterator[Stray]:
        query = "SELECT count(*) FROM rows WHERE path = ? AND mtime_ns = ? AND size = ? AND home = ?"
        for path, mtime_ns, size, homes in read_lines(self._state.path("own", "strays")):
            state = (as_text(path), mtime_ns, size)
            if homes and all(table.connection.execute(query, (*state, home)).fetchone()[0] for home in homes):
                yield Stray(path, mtime_ns, size)
            else:
                counts["unconfirmed"] += 1


def _removing(top: int, strays: list[Stray]) -> Callable[[Worker], dict]:
    def work(worker: Worker) -> dict:
        try:
            worker.count()
        except StoppedError:
            return {}
        return dict(remove(top, strays[worker.index :: worker.processes]))

    return work
