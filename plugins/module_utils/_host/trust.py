# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The file of the certificates that a host trusts, each below the name of its host. This file is private to the collection."""

from __future__ import annotations

import grp
import os
import re
import tempfile

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NAMED = re.compile(r"^# (\S+)\n(-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----)$", re.DOTALL | re.MULTILINE)


class TrustError(Exception):
    """A file cannot be read, or has no certificate; the message says which."""


def trusted_certificates(text: str, given: dict[str, str], known: list[str]) -> dict[str, str]:
    """Return the certificates by host: of ``text``, which an earlier run has written, those of ``known`` hosts, and those ``given``."""
    found = {name: certificate for name, certificate in _NAMED.findall(text) if name in known}
    for name, certificate in given.items():
        match = _CERTIFICATE.search(certificate)
        if match is None:
            raise TrustError(f"the certificate of {name} has no '-----BEGIN CERTIFICATE-----'")
        found[name] = match[0]
    return {name: found[name] for name in sorted(found)}


def shown(certificates: dict[str, str]) -> str:
    """Return the content of the file, whose readers skip what is outside of the certificates."""
    return "".join(f"# {name}\n{certificate}\n" for name, certificate in certificates.items())


def read_certificates(path: str) -> str:
    """Return all certificates of a file."""
    found = _CERTIFICATE.findall(read(path))
    if not found:
        raise TrustError(f"{path} has no certificate")
    return "".join(f"{certificate}\n" for certificate in found)


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror}") from error


def group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise TrustError(f"the host has no group {name}; install the package of the service first, which makes the group") from error


def has_group(name: str) -> bool:
    try:
        group_id(name)
    except TrustError:
        return False
    return True


def is_written(path: str, text: str, mode: int, group: int) -> bool:
    try:
        status = os.stat(path)
        return read(path) == text and status.st_mode & 0o777 == mode and (status.st_uid, status.st_gid) == (os.geteuid(), group)
    except (OSError, TrustError):
        return False


def write(path: str, text: str, mode: int, group: int) -> None:
    """Replace a file at once; nobody else can read a temporary one."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chown(temporary, -1, group)
    os.chmod(temporary, mode)
    os.replace(temporary, path)
