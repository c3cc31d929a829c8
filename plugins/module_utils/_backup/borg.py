# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A directory with backups: a Borg repository, what Borg keeps beside it, and the lock by which one run at a time is in it.

A backup is an archive ``HOST-YYYY-MM-DDTHH:MM:SS``. It gets that name once it is whole; before, and for ever if the run
was killed, it has another, which is not that of a backup, but lets the next run reuse its data.
Works with Borg 1.2 and 1.4. This file is private to the collection.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import glob
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import IO, NamedTuple

UNFINISHED = ".unfinished"
# Whisper files change in place, a few points at the write position of each archive. Blocks that are always cut at the same
# places keep what has not changed. A quarter of this size saves nothing and takes Borg more memory for its index.
CHUNKER = "fixed,65536"
_TIME = "%Y-%m-%dT%H:%M:%S"
_TIME_PATTERN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
_UNFINISHED_NAME = re.compile("-" + _TIME_PATTERN + re.escape(UNFINISHED) + r"\.\d+(\.checkpoint\w*)?\Z")


class BackupError(Exception):
    """What was asked for cannot be done; the message says what to do about it."""


class Archive(NamedTuple):
    """A whole backup."""

    name: str
    id: str


class Backups:
    """The backups in a directory, for as long as the lock is held."""

    def __init__(self, directory: str, passphrase: str | None, lock: int) -> None:
        self.directory = directory
        self.repository = os.path.join(directory, "repository")
        self._lock = lock
        self._passphrase = passphrase or ""
        self._environment = {
            "BORG_BASE_DIR": os.path.join(directory, "borg"),
            "BORG_EXIT_CODES": "legacy",
            # The directory may be a mount, or have come back from the controller.
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "HOME": directory,
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        self._encryption = "repokey-blake2" if passphrase else "none"

    @property
    def exists(self) -> bool:
        return os.path.exists(os.path.join(self.repository, "config"))

    def prepare(self) -> bool:
        """Create the repository unless it exists, and remove the remains of a killed run; return whether it was made."""
        made = not self.exists
        if made:
            version = re.search(r"\d+\.\d+", self._run("--version").decode())
            if version and tuple(map(int, version[0].split("."))) < (1, 2):
                raise BackupError(f"Borg is {version[0]}, which takes no stream; 1.2 or later is needed, as in Debian 12 and Ubuntu 22.04")
            # Under another name until it is whole.
            unfinished = self.repository + UNFINISHED
            shutil.rmtree(unfinished, ignore_errors=True)
            self._run("init", f"--encryption={self._encryption}", unfinished)
            os.rename(unfinished, self.repository)
        elif self._encryption != "none" and not self._is_encrypted():
            raise BackupError(
                f"a passphrase is given, but {self.repository} was made without one; move it away, or leave the passphrase out"
            )
        self.release()
        return made

    def release(self) -> None:
        """Remove a lock of Borg's that a run of this host has left.

        No run can hold it: each Borg that these modules start holds the lock of the directory. Raises ``BackupError`` if the
        lock is another host's.
        """
        place = os.path.join(self.repository, "lock.exclusive")
        holders = os.listdir(place) if os.path.isdir(place) else []
        others = sorted({holder.partition("@")[0] for holder in holders} - {socket.getfqdn(), socket.gethostname()})
        if others:
            raise BackupError(f"{self.repository} is locked by {', '.join(others)}; give each host a directory of its own")
        places = [self.repository, *glob.glob(os.path.join(glob.escape(self.directory), "borg", ".cache", "borg", "*"))]
        if any(os.path.lexists(os.path.join(place, lock)) for place in places for lock in ("lock.exclusive", "lock.roster")):
            self._run("break-lock", self.repository)

    def archives(self, host: str) -> list[Archive]:
        """Return the backups of a host, the oldest first."""
        return _of_host(host, self._list())

    def hosts(self) -> list[str]:
        """Return the hosts that have backups here."""
        pattern = re.compile("(.+)-" + _TIME_PATTERN)
        return sorted({match.group(1) for item in self._list() if (match := pattern.fullmatch(item["name"]))})

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """Take a tar stream for a new backup; keep it if the block ends without an error."""
        unfinished = f"{name}{UNFINISHED}.{os.getpid()}"
        command = ["import-tar", "--chunker-params", CHUNKER, f"{self.repository}::{unfinished}", "-"]
        with self._start(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            if process.stdin is None:
                raise RuntimeError("a process started with a pipe has no pipe")
            try:
                yield process.stdin
                process.stdin.close()
                process.stdin = None
            except BrokenPipeError as error:
                process.stdin = None
                _check(process, "import-tar")
                raise BackupError("borg import-tar ended before the data did") from error
            except BaseException:
                process.kill()
                raise
            _check(process, "import-tar")
        self._run("rename", f"{self.repository}::{unfinished}", name)

    def remove(self, host: str, keep: dict[str, int]) -> list[str]:
        """Remove the backups that never ended, and those of a host that no rule of ``keep`` wants; return the names of the latter.

        Without a rule, all that ended are kept.
        """
        items = self._list()
        unfinished = [item["name"] for item in items if _UNFINISHED_NAME.search(item["name"])]
        if unfinished:
            self._run("delete", self.repository, *unfinished)
        removed = []
        if keep:
            rules = [f"--keep-{name}={number}" for name, number in keep.items()]
            self._run("prune", *rules, "--glob-archives", f"{archive_host(host)}-????-??-??T??:??:??", self.repository)
            left = self.archives(host)
            removed = [archive.name for archive in _of_host(host, items) if archive not in left]
        if unfinished or removed:
            self._run("compact", self.repository)
        return removed

    def read(self, archive: Archive, path: str) -> bytes:
        """Return the content of a file in a backup."""
        return self._run("extract", "--stdout", f"{self.repository}::{archive.name}", path)

    def extract(self, archive: Archive, paths: list[str], target: int) -> None:
        """Extract paths of a backup into the directory with the descriptor ``target``, with their owners by name."""
        command = ["extract", f"{self.repository}::{archive.name}", *paths]
        # By descriptor: whoever owns the directory above could put another in its place.
        with self._start(command, stderr=subprocess.PIPE, preexec_fn=lambda: os.fchdir(target)) as process:
            # Also for a warning: a file of which the disk took a part only is one.
            _check(process, "extract", warnings=False)

    def size(self) -> int:
        """Return the bytes that the repository takes."""
        return sum(os.lstat(os.path.join(top, name)).st_size for top, _directories, names in os.walk(self.repository) for name in names)

    def _is_encrypted(self) -> bool:
        with open(os.path.join(self.repository, "config"), encoding="utf-8") as config:
            return any(line.startswith("key =") for line in config)

    def _list(self) -> list[dict]:
        return json.loads(self._run("list", "--json", "--consider-checkpoints", self.repository))["archives"]

    def _run(self, *command: str) -> bytes:
        with self._start(list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            return _check(process, command[0])

    def _start(self, command: list[str], **arguments) -> subprocess.Popen:
        source, target = os.pipe()
        os.write(target, self._passphrase.encode())
        os.close(target)
        # Borg removes line feeds at the end of what it reads, and asks a terminal if it has read nothing.
        is_read = bool(self._passphrase) and not self._passphrase.endswith("\n")
        secret = {"BORG_PASSPHRASE_FD": str(source)} if is_read else {"BORG_PASSPHRASE": self._passphrase}
        try:
            return subprocess.Popen(
                ["borg", *command],
                env={**self._environment, **secret},
                # A Borg that outlives its module keeps the lock as long as it runs.
                pass_fds=[self._lock, source],
                **{"stdin": subprocess.DEVNULL, "cwd": "/", **arguments},
            )
        except FileNotFoundError as error:
            raise BackupError("borg is not there; install borgbackup") from error
        finally:
            os.close(source)


@contextlib.contextmanager
def opened(directory: str, passphrase: str | None) -> Iterator[Backups]:
    """Hold the lock of a directory that is there. Raises ``BackupError``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(f"another run is at work in {directory}; wait until it has ended") from error
        yield Backups(directory, passphrase, descriptor)
    finally:
        os.close(descriptor)


def archive_name(host: str, begin: float) -> str:
    """Return the name of the backup of a host that begins at this time."""
    return f"{archive_host(host)}-{datetime.datetime.fromtimestamp(begin, datetime.timezone.utc).strftime(_TIME)}"


def archive_host(host: str) -> str:
    """Return a host's name as it stands in the names of archives."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", host)


def _of_host(host: str, items: list[dict]) -> list[Archive]:
    pattern = re.compile(re.escape(archive_host(host)) + "-" + _TIME_PATTERN)
    return sorted(Archive(item["name"], item["id"]) for item in items if pattern.fullmatch(item["name"]))


def _check(process: subprocess.Popen, command: str, warnings: bool = True) -> bytes:
    output, errors = process.communicate()
    if process.returncode not in ((0, 1) if warnings else (0,)):
        message = errors.decode("utf-8", "replace").strip()
        # Where it did not expect an error, Borg shows a traceback and much about itself around the one line that says what it is.
        exceptions = re.findall(r"(?m)^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*", message.partition("Traceback")[2])
        raise BackupError(f"borg {command} ended with {process.returncode}: {exceptions[-1] if exceptions else message[-2000:]}")
    return output or b""
