# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Whether a service can keep its files in a directory. This file is private to the collection.

A directory and its parents need not exist: the roles make them. What no role can remedy is a problem here.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator

# What ProtectHome=, PrivateTmp=, PrivateDevices= and the kernel hide from a sandboxed unit (systemd.exec(5)). A directory that is
# itself below a home is mounted into the unit; a link that leads there is not.
HOMES = ("/home", "/root", "/run/user")
HIDDEN = {
    **dict.fromkeys(HOMES, "ProtectHome"),
    "/tmp": "PrivateTmp",
    "/var/tmp": "PrivateTmp",
    "/dev": "PrivateDevices",
    "/proc": "ProtectProc",
    "/sys": "ProtectKernelTunables",
}


def directory_problems(variable: str, path: str, user: str) -> list[str]:
    """Return a message for each reason why a sandboxed unit of ``user`` could not keep files in the directory ``path``."""
    begin = f"{variable} is {path}, but"
    if os.path.islink(path):
        return [f"{begin} that is a symbolic link. Set {variable} to the directory itself, {os.path.realpath(path)}."]
    for parent in reversed(list(parents(path))):
        if os.path.lexists(parent) and not os.path.isdir(parent):
            kind = "a symbolic link to nowhere" if os.path.islink(parent) else "not a directory"
            return [f"{begin} {parent} is {kind}. Move {parent} away, or choose another directory."]
    real = os.path.realpath(path)
    hidden = hidden_by(real)
    if hidden and not (hidden in HOMES and is_below(os.path.normpath(path), hidden)):
        leads = f"it leads to {real}, which" if real != path else "it"
        return [
            f"{begin} {leads} is below {hidden}, which the sandbox of the service hides ({HIDDEN[hidden]} in its unit). Choose another"
            " directory, for example below /srv; it is created if it is missing."
        ]
    return list(filter(None, (_file_system_problem(begin, real), _traversal_problem(begin, path, user))))


def link_problems(variable: str, path: str, writable: list[str]) -> list[str]:
    """Return a message for each symbolic link below ``path`` that leads out of the directories that a unit may write to."""
    allowed = [os.path.realpath(directory) for directory in (path, *writable)]
    problems = []
    for link in _links(path):
        target = os.path.realpath(link)
        if not any(is_below(target, directory) for directory in allowed):
            problems.append(
                f"{link}, in {variable}, is a symbolic link to {target}, where the sandbox of the service permits no writing: new"
                f" points of its series would be lost. Replace the link by a directory and mount {target} on it (mount --bind, and a"
                f" line in /etc/fstab), or move its content into {path}."
            )
    return problems


def hidden_by(path: str) -> str:
    """Return the directory below which a sandboxed unit does not see ``path``, or an empty text."""
    return next((directory for directory in HIDDEN if is_below(path, directory)), "")


def is_below(path: str, directory: str) -> bool:
    """Return whether ``path`` is ``directory`` or below it; both are absolute and without symbolic links."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def parents(path: str) -> Iterator[str]:
    """Yield ``path`` and all directories above it, the nearest first."""
    while True:
        yield path
        above = os.path.dirname(path)
        if above == path:
            return
        path = above


def _file_system_problem(begin: str, path: str) -> str | None:
    existing = next(parent for parent in parents(path) if os.path.exists(parent))
    system = os.statvfs(existing)
    if system.f_flag & os.ST_RDONLY:
        return f"{begin} the file system of {existing} is mounted read-only. Mount it writable, or choose another directory."
    if not system.f_bavail or (system.f_files and not system.f_favail):
        return f"{begin} the file system of {existing} is full. Make room on it, or choose another directory."
    return None


def _traversal_problem(begin: str, path: str, user: str) -> str | None:
    identity = _identity(user)
    # What a symbolic link leads to has parents of its own.
    for parent in dict.fromkeys(real for lexical in parents(os.path.dirname(path)) for real in parents(os.path.realpath(lexical))):
        if os.path.isdir(parent) and not _is_traversable(parent, *identity):
            mode = stat.S_IMODE(os.stat(parent).st_mode)
            remedy = f"Allow it (chmod o+x {parent}), or choose another directory."
            return f"{begin} the user {user} cannot enter {parent} (mode {mode:04o}). {remedy}"
    return None


def _identity(user: str) -> tuple[int, set[int]]:
    """Return the user's id and groups; those of an unprivileged user if the user does not exist yet."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return -1, set()
    return entry.pw_uid, {entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if user in group.gr_mem)}


def _is_traversable(directory: str, uid: int, groups: set[int]) -> bool:
    status = os.stat(directory)
    if "system.posix_acl_access" in _extended_attributes(directory):
        return True  # an access control list may allow it
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _extended_attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError:
        return []  # the file system has none


def _links(path: str) -> Iterator[str]:
    """Yield the symbolic links below a directory; one that vanishes meanwhile is skipped."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False):
                    yield from _links(entry.path)
    except (FileNotFoundError, NotADirectoryError):
        return
