# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The file of the certificates that a host trusts, each below the name of its host. This file is private to the collection."""

from __future__ import annotations

import grp
import re

from ansible_collections.metricstack.graphite.plugins.module_utils._host.tls import certificates_in

_NAMED = re.compile(r"^# (\S+)\n(-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----)$", re.DOTALL | re.MULTILINE)


class TrustError(Exception):
    """A file cannot be read, or has no certificate; the message says which."""


def trusted_certificates(text: str, given: dict[str, str], known: list[str]) -> dict[str, str]:
    """Return the certificates by host: of ``text``, which an earlier run has written, those of ``known`` hosts, and those ``given``."""
    found = {name: certificate for name, certificate in _NAMED.findall(text) if name in known}
    for name, certificate in given.items():
        blocks = certificates_in(certificate)
        if not blocks:
            raise TrustError(f"the certificate of {name} has no '-----BEGIN CERTIFICATE-----'")
        found[name] = blocks[0]
    return {name: found[name] for name in sorted(found)}


def shown(certificates: dict[str, str]) -> str:
    """Return the content of the file, whose readers skip what is outside of the certificates."""
    return "".join(f"# {name}\n{certificate}\n" for name, certificate in certificates.items())


def read_certificates(path: str) -> str:
    """Return all certificates of a file."""
    found = certificates_in(read(path))
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
