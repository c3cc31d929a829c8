# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Files on their way from one store to another: rsync's daemon on the one, its client on the other.

Source of the options and of the exit statuses: rsync(1) and rsyncd.conf(5) of rsync 3.2. This file is private to the collection.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import time
from typing import Any, NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.state import RUN_DIRECTORY, RebalanceError

RSYNC = "rsync"
UNIT = "graphite-rebalance.service"
USER = "rebalance"
# Of a batch, some files have gone, or could not be read.
_PARTIAL = (23, 24)
# The other side was not ready, or has gone.
_TRANSIENT = (5, 10, 12, 30, 35)
_ATTEMPTS = 5
# By which rsync prints a byte that is no character.
_CODE = re.compile(rb"\\#([0-7]{3})")


class Peer(NamedTuple):
    """Another store, at the address where it serves its files."""

    name: str
    address: str


class Link(NamedTuple):
    """How files travel."""

    own_address: str
    port: int
    password: str
    bandwidth: int  # KiB/s, 0 for no limit


class Offer(NamedTuple):
    """A file of another store."""

    path: str
    mtime_ns: int
    size: int
    used: int
    sparse: bool
    stray: bool


class Transfer:
    """Copies files of other stores. Raises ``RebalanceError`` if a store does not answer."""

    def __init__(self, link: Link, program: str = RSYNC, pause: float = 5.0) -> None:
        self._link = link
        self._program = program
        self._pause = pause

    def lists(self, peer: Peer, directory: str, target: str) -> None:
        """Copy a directory of lists of another store."""
        done = self._run(peer, ["--recursive", "--times", "--compress", "--delete"], f"lists/{directory}/", f"{target}/")
        if done.returncode:
            raise RebalanceError(f"{peer.name} has no lists of this pass, {directory}: another playbook may have begun one. Run again")

    def files(self, peer: Peer, offers: list[Offer], sparse: bool, live: str, staging: str, run_as: tuple[int, int] | None) -> None:
        """Copy whisper files to the staging directory. Of a file that is here already, only what differs travels."""
        options = ["--times", "--perms", "--ignore-times", "--relative", "--no-implied-dirs", f"--copy-dest={live}"]
        options += ["--sparse"] if sparse else []
        options += [f"--bwlimit={self._link.bandwidth}"] if self._link.bandwidth else []
        self._run(peer, [*options, "--from0", "--files-from=-"], "whisper/", f"{staging}/", _list(offers), run_as)

    def changed(self, peer: Peer, offers: list[Offer], staging: str, run_as: tuple[int, int] | None) -> set[str]:
        """Return which of the files in the staging directory are not the present ones any more."""
        options = ["--times", "--dry-run", "--modify-window=-1", "--relative", "--no-implied-dirs", "--8-bit-output", "--out-format=%n"]
        done = self._run(peer, [*options, "--from0", "--files-from=-"], "whisper/", f"{staging}/", _list(offers), run_as)
        return {os.fsdecode(_CODE.sub(lambda code: bytes([int(code[1], 8)]), line)) for line in done.stdout.split(b"\n")}

    def _run(
        self, peer: Peer, options: list[str], source: str, target: str, given: bytes = b"", run_as: tuple[int, int] | None = None
    ) -> subprocess.CompletedProcess:
        address = f"[{peer.address}]" if ":" in peer.address else peer.address
        url = f"rsync://rebalance@{address}:{self._link.port}/{source}"
        bound = [f"--address={self._link.own_address}"] if self._link.own_address else []
        command = [self._program, *options, *bound, "--timeout=300", "--contimeout=20", url, target]
        environment = {**os.environ, "RSYNC_PASSWORD": self._link.password, "LC_ALL": "C.UTF-8"}
        identity: dict[str, Any] = {} if run_as is None else {"user": run_as[0], "group": run_as[1], "extra_groups": []}
        for attempt in itertools.count(1):
            try:
                done = subprocess.run(command, input=given, env=environment, cwd="/", capture_output=True, check=False, **identity)
            except OSError as error:
                raise RebalanceError(f"{self._program} cannot be started: {error.strerror}") from error
            if done.returncode in (0, *_PARTIAL):
                return done
            if attempt == _ATTEMPTS or done.returncode not in _TRANSIENT:
                reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
                raise RebalanceError(f"{peer.name} ({address}:{self._link.port}): {' '.join(reason[-3:])}")
            time.sleep(self._pause)
        raise AssertionError


def _list(offers: list[Offer]) -> bytes:
    return b"\0".join([*(os.fsencode(offer.path) for offer in offers), b""])


class Server:
    """An rsync daemon that serves the tree and the lists of this host to other stores, read-only, in a transient unit.

    It ends by itself after ``seconds``.
    """

    def __init__(self, tree: str, lists: str, link: Link, peers: list[Peer], seconds: int) -> None:
        self._tree = os.path.realpath(tree)
        self._lists = lists
        self._link = link
        self._peers = peers
        self._seconds = seconds

    def configuration(self) -> str:
        shared = [
            "read only = yes",
            "list = no",
            f"auth users = {USER}",
            f"secrets file = {RUN_DIRECTORY}/secrets",
            f"hosts allow = {' '.join(peer.address for peer in self._peers)}",
        ]
        head = ["use chroot = no", "log file = /dev/stderr", "transfer logging = no", "timeout = 300", "reverse lookup = no"]
        head += [f"port = {self._link.port}", *([f"address = {self._link.own_address}"] if self._link.own_address else [])]
        modules = [
            line for name, path in (("whisper", self._tree), ("lists", self._lists)) for line in (f"[{name}]", f"path = {path}", *shared)
        ]
        return "\n".join([*head, *modules, ""])

    def start(self) -> None:
        """Start the daemon in the place of one that runs already. Raises ``RebalanceError``."""
        stop_server()
        owner = os.stat(self._tree)
        os.makedirs(RUN_DIRECTORY, mode=0o755, exist_ok=True)
        self._write("rsyncd.conf", self.configuration(), owner)
        self._write("secrets", f"{USER}:{self._link.password}\n", owner)
        properties = {
            "Description": "Serve whisper files to other stores while series move",
            "User": owner.st_uid,
            "Group": owner.st_gid,
            "RuntimeMaxSec": self._seconds,
            "Nice": 10,
            "NoNewPrivileges": "yes",
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "PrivateDevices": "yes",
            "ProtectKernelTunables": "yes",
            "ProtectKernelModules": "yes",
            "ProtectControlGroups": "yes",
            "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
            "CapabilityBoundingSet": "",
            "RestrictNamespaces": "yes",
            "MemoryDenyWriteExecute": "yes",
            "LockPersonality": "yes",
        }
        options = [f"--property={name}={value}" for name, value in properties.items()]
        program = [shutil.which(RSYNC) or RSYNC, "--daemon", "--no-detach", f"--config={RUN_DIRECTORY}/rsyncd.conf"]
        done = run(["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", *options, *program])
        if done.returncode:
            raise RebalanceError(f"systemd-run cannot start {UNIT}: {done.stderr.strip()}")
        address = (self._link.own_address or "127.0.0.1", self._link.port)
        for _attempt in range(50):
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
                return
            time.sleep(0.1)
        raise RebalanceError(
            f"{UNIT} does not listen on {address[0]}:{address[1]}; see journalctl -u {UNIT}. Another service may have the port: set"
            " rebalance_port"
        )

    @staticmethod
    def _write(name: str, content: str, owner: os.stat_result) -> None:
        path = os.path.join(RUN_DIRECTORY, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            stream.write(content)


def stop_server() -> bool:
    """Stop the daemon, and remove its password; return whether it was there."""
    was_there = run(["systemctl", "--quiet", "is-active", UNIT]).returncode == 0
    if was_there:
        run(["systemctl", "stop", UNIT])
    run(["systemctl", "reset-failed", UNIT])
    for name in ("rsyncd.conf", "secrets"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(RUN_DIRECTORY, name))
            was_there = True
    return was_there
