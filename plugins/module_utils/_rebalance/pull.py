# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Brings what other stores have for this one, in batches, and merges each file into the live one.

How no point is lost: a file of another store is recorded as merged when it has been merged, when the disk has it, and, if it has become
a new series, when a second later carbon has not created a file over it. Only a record lets the other store remove its file. This file is
private to the collection.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import POINT_BYTES
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.state import (
    STAGING,
    Journal,
    State,
    Table,
    as_path,
    as_text,
    read_lines,
    write_line,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.transfer import Offer, Peer, Transfer
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import NotWhisperError, newest_time, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.merge import Content, merge_into
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.parallel import StoppedError, Worker, in_parallel
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import (
    NAMED,
    LeaseError,
    entry_of,
    locked,
    printable,
    read_all,
)

# What is on its way at once. A file that is larger travels alone.
BATCH_BYTES = 256 << 20
BATCH_FILES = 2000
# A process of carbon that had seen no file of a name before it got one has created and emptied it by then.
GRACE_SECONDS = 1.0
# FS_IOC_GETVERSION of linux/fs.h.
_GET_VERSION = 2 << 30 | struct.calcsize("l") << 16 | ord("v") << 8 | 1
_COLUMNS = (
    "path TEXT, source TEXT, mtime_ns INTEGER, size INTEGER, used INTEGER, sparse INTEGER, stray INTEGER, digest TEXT,"
    " done INTEGER, PRIMARY KEY (source, path)"
)


class _Made(NamedTuple):
    """A series that is new here: where its newest point is."""

    path: str
    inode: int
    position: int
    newest: int


class Pull:
    """What other stores have for this one, and the way here."""

    def __init__(self, top: int, directory: str, state: State, peers: list[Peer], transfer: Transfer) -> None:
        self._top = top
        self._directory = os.path.realpath(directory)
        self._state = state
        self._peers = peers
        self._transfer = transfer
        self._status = os.fstat(top)
        state.make()
        self._journal = Journal(state.path("journal.sqlite"))
        self._staging = staging_directory(self._directory)

    def close(self) -> None:
        self._journal.close()

    def plan(self, store: str, pass_id: str, tell: Callable[[str], None]) -> dict:
        """Fetch the lists of the other stores and return what is to be brought, and the room that this needs.

        Raises ``RebalanceError``, also for lists of another pass.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._state.path("work.sqlite"))
        offers = Table(self._state.path("work.sqlite"), _COLUMNS)
        offers.connection.execute("CREATE TABLE shared (path TEXT PRIMARY KEY, digest TEXT) WITHOUT ROWID")
        offers.connection.execute("BEGIN")
        for path, digest in read_lines(self._state.path("own", "shared")):
            offers.connection.execute("INSERT OR REPLACE INTO shared VALUES (?, ?)", (as_text(path), digest))
        offers.connection.execute("COMMIT")
        for peer in self._peers:
            tell(f"asking {peer.name}")
            target = self._state.renew("in", peer.name)
            self._transfer.lists(peer, f"{pass_id}/to/{store}", target)
            offers.fill((as_text(path), peer.name, *items, 0) for path, *items in read_lines(target))
        # What both have need not travel; of several that have the same, one is enough, and a stray travels in any case.
        offers.connection.executescript(
            "CREATE INDEX by_path ON rows (path, digest);"
            "DELETE FROM rows WHERE NOT stray AND digest = (SELECT digest FROM shared WHERE shared.path = rows.path);"
            "DELETE FROM rows WHERE NOT stray AND EXISTS (SELECT 1 FROM rows AS other WHERE other.path = rows.path"
            " AND other.digest = rows.digest AND (other.stray OR other.source < rows.source));"
        )
        counts: Counter[str] = Counter(series=0, bytes=0, new=0, needed=0)
        by_source: dict[str, Counter[str]] = {}
        seen = ""
        query = "SELECT path, source, mtime_ns, size, used, stray FROM rows ORDER BY path, used DESC"
        recorded = []
        for text, source, mtime_ns, size, used, stray in offers.connection.execute(query):
            live = self._live(as_path(text), pass_id)
            if stray and live is not None and self._journal.state(source, as_path(text)) == (mtime_ns, size, live):
                recorded.append((source, text))
                continue
            figures = by_source.setdefault(source, Counter())
            figures.update(series=1, bytes=size)
            counts.update(series=1, bytes=size)
            if live is None and text != seen:
                counts.update(needed=used, new=1)
            seen = text
        offers.connection.execute("BEGIN")
        offers.connection.executemany("UPDATE rows SET done = 1 WHERE source = ? AND path = ?", recorded)
        offers.connection.execute("COMMIT")
        offers.close()
        if counts["series"]:
            counts["needed"] += min(2 * BATCH_BYTES, counts["bytes"])
        room = os.fstatvfs(self._top)
        return {**counts, "available": room.f_bavail * room.f_frsize, "from": {name: dict(items) for name, items in by_source.items()}}

    def _live(self, path: str, pass_id: str) -> str | None:
        try:
            with entry_of(self._top, path) as entry:
                descriptor = entry.open()
        except (OSError, LeaseError):
            return None
        try:
            return identity(descriptor, pass_id)
        finally:
            os.close(descriptor)

    def run(self, pass_id: str, processes: int, until: int | None, tell: Callable[[str], None]) -> dict:
        """Bring and merge what is planned, and write for the other stores what of theirs is here."""
        table = Table(self._state.path("work.sqlite"), _COLUMNS)
        total, size = table.connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM rows WHERE NOT done").fetchone()
        counts: Counter[str] = Counter()
        failed: list[dict[str, str]] = []
        done_bytes = 0
        remove_staging(self._directory)
        try:
            for peer in self._peers:
                for batch, sparse in self._batches(table, peer):
                    tell(f"{counts['files']} of {total} files, {done_bytes >> 20} of {size >> 20} MiB, from {peer.name}")
                    self._bring(table, peer, batch, sparse, processes, until, pass_id, counts, failed)
                    done_bytes += sum(offer.size for offer in batch)
        finally:
            remove_staging(self._directory)
        for peer in self._peers:
            with open(os.path.join(self._state.make("out", pass_id, "merged", peer.name), "list"), "w", encoding="ascii") as stream:
                query = "SELECT path, mtime_ns, size FROM rows WHERE source = ? AND stray AND done"
                for text, mtime_ns, length in table.connection.execute(query, (peer.name,)):
                    write_line(stream, as_path(text), mtime_ns, length)
        table.close()
        return {**counts, "failures": failed[:NAMED]}

    def _batches(self, table: Table, peer: Peer) -> Iterator[tuple[list[Offer], bool]]:
        for sparse in (False, True):
            # What the batches before have done is passed by: a cursor that is open would not see it.
            last = ""
            while True:
                batch: list[Offer] = []
                size = 0
                query = (
                    "SELECT path, mtime_ns, size, used, sparse, stray FROM rows"
                    " WHERE source = ? AND sparse = ? AND NOT done AND path > ? ORDER BY path LIMIT ?"
                )
                for text, *items in table.connection.execute(query, (peer.name, sparse, last, BATCH_FILES)):
                    size += items[1]
                    if batch and size > BATCH_BYTES:
                        break
                    batch.append(Offer(as_path(text), *items))
                    last = text
                if not batch:
                    break
                yield batch, sparse

    def _bring(
        self,
        table: Table,
        peer: Peer,
        batch: list[Offer],
        sparse: bool,
        processes: int,
        until: int | None,
        pass_id: str,
        counts: Counter[str],
        failed: list[dict[str, str]],
    ) -> None:
        os.makedirs(self._staging, mode=0o700)
        run_as = None
        if os.geteuid() == 0:
            os.chown(self._staging, self._status.st_uid, self._status.st_gid)
            run_as = (self._status.st_uid, self._status.st_gid)
        self._transfer.files(peer, batch, sparse, self._directory, self._staging, run_as)
        strays = [offer for offer in batch if offer.stray]
        changing = self._transfer.changed(peer, strays, self._staging, run_as) if strays else set()
        counts["changing"] += len(changing.intersection(offer.path for offer in strays))

        def work(worker: Worker) -> dict:
            if run_as is not None:
                os.setgroups([])
                os.setgid(run_as[1])
                os.setuid(run_as[0])
            mine = [offer for offer in batch[worker.index :: worker.processes] if offer.path not in changing]
            return _Merging(self._top, self._staging, until, self._status.st_mode & 0o777, pass_id).run(mine, worker)

        with locked(self._top, timeout=600):
            answers = in_parallel(min(processes, len(batch)), work, lambda _done: None)
        # The journal must not know more than the disk has.
        _sync(self._top)
        rows: list[tuple] = []
        for answer in answers:
            counts.update(answer["counts"])
            failed += answer["failed"]
            rows += map(tuple, answer["merged"])
        offered = {offer.path: offer for offer in batch}
        self._journal.record(peer.name, (row for row in rows if offered[row[0]].stray))
        exact = [row for row in rows if (offered[row[0]].mtime_ns, offered[row[0]].size) == row[1:3]]
        table.connection.execute("BEGIN")
        table.connection.executemany(
            "UPDATE rows SET done = 1 WHERE source = ? AND path = ?", [(peer.name, as_text(row[0])) for row in exact]
        )
        table.connection.execute("COMMIT")
        counts["files"] += len(rows)
        shutil.rmtree(self._staging)


class _Merging:
    """The share that one process has in a batch."""

    def __init__(self, top: int, staging: str, until: int | None, mode: int, pass_id: str) -> None:
        self._top = top
        self._staging = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._until = until
        self._mode = mode
        self._pass_id = pass_id
        self._counts: Counter[str] = Counter()
        self._made: list[tuple[_Made, os.stat_result]] = []
        self._merged: list[tuple[str, int, int, str]] = []
        self._failed: list[dict[str, str]] = []

    def run(self, offers: list[Offer], worker: Worker) -> dict:
        for offer in offers:
            try:
                self._merge(offer)
            except FileNotFoundError:
                self._counts["gone"] += 1  # from the other store
            except (OSError, LeaseError, NotWhisperError, whisper.WhisperException, struct.error) as error:
                self._failed.append({"path": printable(offer.path), "reason": getattr(error, "strerror", None) or str(error)})
                self._counts["failed"] += 1
            try:
                worker.count()
            except StoppedError:
                break
        if self._made:
            time.sleep(GRACE_SECONDS)
        for made, status in self._made:
            self._check(made, status)
        return {"counts": self._counts, "merged": self._merged, "failed": self._failed[:NAMED]}

    def _merge(self, offer: Offer) -> None:
        with entry_of(self._staging, offer.path) as staged:
            descriptor = staged.open()
            try:
                status = os.fstat(descriptor)
                header = read_header(descriptor)
                with self._folder(offer.path) as folder:
                    made = self._place(staged.directory, staged.name, descriptor, folder, offer.path)
                    if made is not None:
                        self._made.append((made, status))
                        return
                    with entry_of(self._top, offer.path) as live:
                        content = Content(read_all(descriptor), header)
                        self._counts["points"] += merge_into(live, content, None if offer.stray else self._until)
                        merged_into = live.open()
                        try:
                            file = identity(merged_into, self._pass_id)
                        finally:
                            os.close(merged_into)
            finally:
                os.close(descriptor)
        self._counts["merged"] += 1
        self._merged.append((offer.path, status.st_mtime_ns, status.st_size, file))

    def _place(self, staged: int, name: str, descriptor: int, folder: int, path: str) -> _Made | None:
        """Make a file the series itself, if there is none; return ``None`` if there is one."""
        header = read_header(descriptor)
        body = os.pread(descriptor, header.archives[0].points * POINT_BYTES, header.offsets[0])
        newest = newest_time(body)
        # Where whisper itself would find it.
        base = int.from_bytes(body[:4], "big")
        place = (newest - base) // header.archives[0].seconds_per_point % header.archives[0].points if newest else 0
        try:
            os.link(name, name, src_dir_fd=staged, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return None
        return _Made(path, os.fstat(descriptor).st_ino, header.offsets[0] + place * POINT_BYTES, newest)

    def _check(self, made: _Made, status: os.stat_result) -> None:
        """Record a new series if it still has its newest point, or a newer one in the place of it."""
        try:
            with entry_of(self._top, made.path) as live:
                descriptor = live.open()
                try:
                    is_same = os.fstat(descriptor).st_ino == made.inode and os.fstat(descriptor).st_size == status.st_size
                    when = int.from_bytes(os.pread(descriptor, 4, made.position), "big")
                    file = identity(descriptor, self._pass_id)
                finally:
                    os.close(descriptor)
        except OSError:
            return
        if is_same and when >= made.newest:
            self._counts["created"] += 1
            self._merged.append((made.path, status.st_mtime_ns, status.st_size, file))
        else:
            self._counts["overwritten"] += 1

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """Give the directory of a series, which is made if it is missing."""
        directory = os.dup(self._top)
        try:
            for part in path.split("/")[:-1]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, self._mode, dir_fd=directory)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                os.close(directory)
                directory = below
            yield directory
        finally:
            os.close(directory)


def identity(descriptor: int, pass_id: str) -> str:
    """Return what no other file has that gets the place of this one later, such as one from a backup.

    A number of an inode is given again, with another generation. Where the file system has none, the identity is for one run.
    """
    try:
        generation = fcntl.ioctl(descriptor, _GET_VERSION, bytes(struct.calcsize("l"))).hex()
    except OSError:
        generation = pass_id.rpartition("-")[0] or pass_id
    return f"{os.fstat(descriptor).st_ino}-{generation}"


def _sync(descriptor: int) -> None:
    """Bring all that was written to a file system to the disk. Raises ``OSError``."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def staging_directory(directory: str) -> str:
    """Return a name for the staging directory of this process, on the file system of the tree."""
    return os.path.join(_staging_parent(directory), f"{STAGING}.{os.getpid()}")


def remove_staging(directory: str) -> None:
    """Remove the staging directories of all processes."""
    parent = _staging_parent(directory)
    for name in os.listdir(parent):
        if name.startswith(f"{STAGING}."):
            shutil.rmtree(os.path.join(parent, name), ignore_errors=True)


def _staging_parent(directory: str) -> str:
    directory = os.path.realpath(directory)
    parent = os.path.dirname(directory)
    return parent if os.stat(parent).st_dev == os.stat(directory).st_dev else directory
