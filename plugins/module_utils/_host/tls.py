# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The certificates that Apache's sites use, and what is wrong with them. This file is private to the collection.

Needs nothing but Python's ``ssl``, because a bare host may lack the program ``openssl``. Source of the format of certificates: RFC 5280,
section 4.1.
"""

from __future__ import annotations

import calendar
import fnmatch
import grp
import ipaddress
import os
import pwd
import re
import ssl
import stat
import time
from typing import Any, Iterator, Mapping

DIRECTORY = "/etc/apache-wsgi"
DEFAULT_PORT = 443
# The cipher suites for TLS 1.2 of "Server Side TLS", version 5.7, intermediate, without those that need parameters of their own.
DEFAULT_CIPHERS = ":".join(
    f"ECDHE-{authentication}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for authentication in ("ECDSA", "RSA")
)
# A self-signed certificate is made anew by a run in the last days of its life.
SELF_SIGNED_DAYS = 365
RENEWAL_DAYS = 30
_DAY = 86400
_BEGIN = "-----BEGIN"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# Flags of X509_VERIFY_PARAM_set_flags(3), of which Python names the second from 3.10 on.
_NO_CHECK_TIME, _PARTIAL_CHAIN = 0x200000, 0x80000
_UNIVERSAL_STRING, _BMP_STRING = 28, 30


def is_text(value: object) -> bool:
    """Return whether a value is the text of a certificate or key, rather than a path."""
    return _BEGIN in str(value or "")


def certificate_files(tls: dict, name: str, directory: str = DIRECTORY) -> dict[str, str]:
    """Return the files that Apache reads for the site ``name``: ``certificate``, ``key`` and ``chain``, which may be an empty text.

    What is given as a text is in files of our own; a chain is in the file of the certificate if both are.
    """
    is_ours = {part: bool(tls.get("self_signed")) or is_text(tls.get(part)) for part in ("certificate", "key")}
    chain = "" if tls.get("self_signed") else str(tls.get("chain") or "")
    if is_text(chain):
        chain = "" if is_ours["certificate"] else f"{directory}/{name}-chain.pem"
    return {
        "certificate": f"{directory}/{name}.pem" if is_ours["certificate"] else str(tls.get("certificate") or ""),
        "key": f"{directory}/{name}.key" if is_ours["key"] else str(tls.get("key") or ""),
        "chain": chain,
    }


def authority_of(tls: dict, name: str, directory: str = DIRECTORY) -> str:
    """Return the file of the authorities by which the certificate of a site is trusted; an empty text for those of the system."""
    return str(tls.get("authority") or "") or (certificate_files(tls, name, directory)["certificate"] if tls.get("self_signed") else "")


class Certificate:
    """What clients look at in a certificate, of which the encoding is DER; raises ``ValueError`` if it is none."""

    def __init__(self, der: bytes) -> None:
        try:
            _tag, certificate, _end = _element(der, 0)
            fields = list(_elements(_elements_of(certificate)[0]))
        except IndexError as error:
            raise ValueError("it is cut off") from error
        # The version may be left out.
        first = 1 if fields[0][0] == 0xA0 else 0
        self.issuer, validity, self.subject = (fields[first + number][1] for number in (2, 3, 4))
        self.begins, self.ends = (_seconds(tag, value) for tag, value in _elements(validity))
        self.names: list[str] = []
        for tag, value in fields[first + 6 :]:
            if tag == 0xA3:
                self._take_extensions(value)

    @property
    def is_self_signed(self) -> bool:
        return self.issuer == self.subject

    @property
    def shown(self) -> str:
        """What a message calls the certificate."""
        return f"'{_common_name(self.subject)}'"

    @property
    def shown_issuer(self) -> str:
        return f"'{_common_name(self.issuer)}'"

    def is_for(self, name: str) -> bool:
        """Return whether the certificate is for a name or an address; clients do not look at the subject any more."""
        wanted = ascii_name(name).lower()
        return any(
            wanted == known.lower() or (known.startswith("*.") and wanted.partition(".")[2] == known[2:].lower()) for known in self.names
        )

    def _take_extensions(self, extensions: bytes) -> None:
        for _tag, extension in _elements(_elements_of(extensions)[0]):
            parts = _elements_of(extension)
            if parts[0] != b"\x55\x1d\x11":  # subjectAltName
                continue
            for tag, value in _elements(_elements_of(parts[-1])[0]):
                if tag == 0x82:
                    self.names.append(value.decode("ascii", "replace"))
                elif tag == 0x87:
                    self.names.append(str(ipaddress.ip_address(value)))


def _element(der: bytes, start: int) -> tuple[int, bytes, int]:
    """Return the tag and the content of the element at ``start``, and where the next one is."""
    tag, length, position = der[start], der[start + 1], start + 2
    if length & 0x80:
        position += length & 0x7F
        length = int.from_bytes(der[start + 2 : position], "big")
    if position + length > len(der):
        raise IndexError
    return tag, der[position : position + length], position + length


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(content):
        tag, value, position = _element(content, position)
        yield tag, value


def _elements_of(content: bytes) -> list[bytes]:
    return [value for _tag, value in _elements(content)]


def _seconds(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == 0x17:  # UTCTime, of which RFC 5280 says the century
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _common_name(name: bytes) -> str:
    """Return the last part of a distinguished name that is a common name, or else its last part."""
    found, last = "", ""
    for part in _elements_of(name):
        for attribute in _elements_of(part):
            (_tag, kind), (tag, value) = list(_elements(attribute))[:2]
            encoding = {_BMP_STRING: "utf-16-be", _UNIVERSAL_STRING: "utf-32-be"}.get(tag, "utf-8")
            last = value.decode(encoding, "replace")
            found = last if kind == b"\x55\x04\x03" else found
    return found or last


def ascii_name(name: str) -> str:
    """Return a host name as certificates have it."""
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def certificates_in(text: str) -> list[str]:
    """Return the certificates of a text, each as PEM."""
    return _CERTIFICATE.findall(text)


def shown_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class _Memory:
    """A text as a file that is nowhere on disk, for functions that take paths."""

    def __init__(self, text: str) -> None:
        self._descriptor = os.memfd_create("pem")
        with os.fdopen(os.dup(self._descriptor), "wb") as stream:
            stream.write(text.encode())
        self.path = f"/proc/self/fd/{self._descriptor}"

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)


class _PassphraseError(Exception):
    """The key asks for a passphrase."""


def _refuse_passphrase() -> str:
    raise _PassphraseError


class Examination:
    """A certificate that a site is to use, compared with its key, its chain, its name and the clock.

    ``wanted`` has ``variable``, which messages name, ``server_name``, the paths ``certificate``, ``key`` and ``chain``, or each of them
    with ``_text``, and ``authority``, ``ciphers`` and ``minimum_version``. ``problems`` has one message for each mistake.
    """

    def __init__(self, wanted: dict, now: float, system_authorities: str = _SYSTEM_AUTHORITIES) -> None:
        self._wanted = wanted
        self._now = now
        self._system_authorities = system_authorities
        self.problems: list[str] = []
        self.ends: float | None = None
        texts = {part: self._read(part) for part in ("certificate", "key", "chain")}
        chain = self._parse(texts)
        if chain:
            self.ends = chain[0].ends
            self._examine_validity(chain)
            self._examine_names(chain[0])
            self._examine_order(chain)
        self._examine_readers()
        self._examine_ciphers()
        # What a client says of a certificate or a key that is refused already would be the same in other words.
        context = self._server_context(texts) if chain and texts["key"] else None
        if context and not self.problems:
            self._examine_as_client(context, texts, chain)

    def _shown(self, part: str) -> str:
        return str(self._wanted.get(part) or "the text")

    def _add(self, message: str) -> None:
        self.problems.append(f"{self._wanted['variable']}: {message}")

    def _read(self, part: str) -> str:
        text, path = self._wanted.get(f"{part}_text"), self._wanted.get(part)
        if text or not path:
            return text or ""
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError as error:
            self._add(f"{part} is {path}, which cannot be read: {error.strerror}. Obtain the certificate first, or correct the path.")
        return ""

    def _parse(self, texts: dict[str, str]) -> list[Certificate]:
        """Return the certificates in the order in which a client gets them."""
        chain: list[Certificate] = []
        for part in ("certificate", "chain"):
            blocks = certificates_in(texts[part])
            if texts[part] and not blocks:
                self._add(f"{part} is {self._shown(part)}, which has no -----BEGIN CERTIFICATE-----; give a certificate as PEM.")
                return []
            try:
                chain += [Certificate(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]
            except ValueError as error:
                self._add(f"{part} is {self._shown(part)}, which is no certificate: {error}. Give a certificate as PEM.")
                return []
        return chain if texts["certificate"] else []

    def _examine_validity(self, chain: list[Certificate]) -> None:
        for certificate in chain:
            issuer = "which" if certificate is chain[0] else f"whose issuer {certificate.shown}"
            where = f"certificate is {self._shown('certificate')}, {issuer}"
            if certificate.ends <= self._now:
                self._add(f"{where} has ended at {shown_time(certificate.ends)}. Renew it.")
                return
            if certificate.begins > self._now:
                self._add(
                    f"{where} is not valid before {shown_time(certificate.begins)}. Correct the clock of the host, which says"
                    f" {shown_time(self._now)}, or wait."
                )
                return

    def _examine_names(self, certificate: Certificate) -> None:
        name = self._wanted["server_name"]
        if not certificate.is_for(name):
            known = ", ".join(certificate.names) or "no name"
            self._add(
                f"certificate is {self._shown('certificate')}, which is for {known} and not for {name}, the name of the site. Give the"
                " certificate of that name, or the site a name of the certificate."
            )

    def _examine_order(self, chain: list[Certificate]) -> None:
        issuers = chain[1:]
        for position, certificate in enumerate(chain[:-1]):
            following = chain[position + 1]
            if certificate.issuer == following.subject:
                continue
            part = "chain" if self._wanted.get("chain") or self._wanted.get("chain_text") else "certificate"
            if any(certificate.issuer == other.subject for other in issuers):
                self._add(
                    f"{part} is {self._shown(part)}, which has {following.shown} after {certificate.shown}, whose issuer is"
                    f" {certificate.shown_issuer}. Sort it: each certificate is followed by that of its issuer."
                )
            else:
                self._add(
                    f"{part} is {self._shown(part)}, which has {following.shown} after {certificate.shown}, whose issuer is"
                    f" {certificate.shown_issuer}. Give the certificates of the issuers, as certbot's fullchain.pem has them."
                )
            return

    def _examine_readers(self) -> None:
        path = self._wanted.get("key")
        if path and not self._wanted.get("key_text") and os.path.exists(path):
            readers = other_readers(path)
            if readers:
                self._add(
                    f"key is {path}, which {readers} can read. Allow root alone: chown root:root {os.path.realpath(path)} &&"
                    f" chmod 0600 {os.path.realpath(path)}"
                )

    def _examine_ciphers(self) -> None:
        wanted = self._wanted.get("ciphers")
        if not wanted:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.set_ciphers(wanted)
        except ssl.SSLError:
            self._add(f"ciphers is '{wanted}', of which this host's OpenSSL knows none. Leave ciphers out, or give names that openssl has.")
            return
        weak = [cipher["name"] for cipher in context.get_ciphers() if is_weak(cipher)]
        if weak:
            self._add(
                f"ciphers is '{wanted}', which allows {', '.join(weak[:3])}{' and others' * (len(weak) > 3)}, without forward secrecy or"
                " authenticated encryption. Leave ciphers out, or allow suites such as ECDHE+AESGCM only."
            )

    def _server_context(self, texts: dict[str, str]) -> ssl.SSLContext | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates = "\n".join([*certificates_in(texts["certificate"]), *certificates_in(texts["chain"]), ""])
        where = f"key is {self._shown('key')}"
        if f"{_BEGIN} " not in texts["key"] or "PRIVATE KEY-----" not in texts["key"]:
            self._add(f"{where}, which has no -----BEGIN PRIVATE KEY-----; give a key as PEM.")
            return None
        try:
            with _Memory(certificates) as public, _Memory(texts["key"]) as private:
                context.load_cert_chain(public, private, password=_refuse_passphrase)
        except _PassphraseError:
            self._add(f"{where}, which has a passphrase, and Apache asks nobody for it. Take it off: openssl pkey -in OLD -out NEW")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                self._add(f"{where}, which does not fit the certificate {self._shown('certificate')}. Give the key that was made for it.")
            else:
                self._add(f"{where}; OpenSSL refuses it with {self._shown('certificate')}: {_reason(error)}. Replace both.")
        else:
            return context
        return None

    def _examine_as_client(self, server: ssl.SSLContext, texts: dict[str, str], chain: list[Certificate]) -> None:
        """Add a problem if the signatures do not fit, or if the collection's own requests would not trust the certificate."""
        blocks = certificates_in(texts["certificate"]) + certificates_in(texts["chain"])
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.verify_flags |= _NO_CHECK_TIME | _PARTIAL_CHAIN
        client.load_verify_locations(cadata=blocks[-1])
        refusal = _refusal(server, client, self._wanted["server_name"])
        if refusal:
            self._add(
                f"certificate is {self._shown('certificate')}, which its chain does not verify: {refusal}. Give the chain that belongs to"
                " it, as certbot's fullchain.pem has it."
            )
            return
        authority = self._wanted.get("authority") or ""
        if not authority and not os.path.exists(self._system_authorities):
            return  # the package ca-certificates is going to be installed
        try:
            # As requests have it: newer Pythons are stricter by themselves.
            client = ssl.create_default_context(cafile=authority or self._system_authorities)
        except OSError as error:
            self._add(f"authority is {authority}, which cannot be read: {error.strerror or error}. Give a file of certificates as PEM.")
            return
        client.verify_flags |= _NO_CHECK_TIME
        refusal = _refusal(server, client, self._wanted["server_name"])
        if not refusal:
            return
        if authority:
            self._add(f"authority is {authority}, which does not verify the certificate {self._shown('certificate')}: {refusal}.")
        else:
            own = self._wanted.get("certificate") if chain[0].is_self_signed and len(chain) == 1 else None
            self._add(
                f"certificate is {self._shown('certificate')}, which no authority of this host's system verifies: {refusal}. Set authority"
                f" to {own or 'the file of the certificate authority'}, by which the collection's own requests trust it."
            )


def _refusal(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Return why a client refuses the certificate of a server, or an empty text; both are in this process."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name), server.wrap_bio(to_server, to_client, server_side=True)]
    for _round in range(10):
        waiting = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
            except ssl.SSLError as error:
                return _reason(error)
        if not waiting:
            break
    return ""


def _reason(error: ssl.SSLError) -> str:
    return getattr(error, "verify_message", "") or (error.reason or str(error)).replace("_", " ").lower()


def is_weak(cipher: Mapping[str, Any]) -> bool:
    """Return whether one of ``SSLContext.get_ciphers`` lacks forward secrecy or authenticated encryption."""
    if cipher["protocol"] == "TLSv1.3":
        return False
    return (
        not fnmatch.fnmatchcase(cipher["name"], "*DHE-*")
        or not cipher.get("aead", True)
        or cipher.get("auth") == "auth-null"
        or cipher["strength_bits"] < 128
    )


def other_readers(path: str) -> str:
    """Return who but root can read a key, or an empty text. A directory above may keep them away."""
    path = os.path.realpath(path)
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()):
        return f"its owner, {_name(pwd.getpwuid, status.st_uid)},"
    if status.st_mode & stat.S_IROTH and _is_reachable(path, None):
        return "everybody"
    if status.st_mode & stat.S_IRGRP and not _is_group_of_root(status.st_gid) and _is_reachable(path, status.st_gid):
        return f"the group {_name(grp.getgrgid, status.st_gid)}"
    return ""


def _is_group_of_root(gid: int) -> bool:
    return gid in (0, os.getegid()) or _name(grp.getgrgid, gid) == "ssl-cert"


def _name(lookup, number: int) -> str:
    try:
        return lookup(number)[0]
    except KeyError:
        return str(number)


def _is_reachable(path: str, gid: int | None, top: str = "/") -> bool:
    """Return whether the directories above, up to ``top``, let a group pass, or everybody."""
    directory = os.path.dirname(path)
    while directory != top:
        status = os.stat(directory)
        needed = stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH
        if not status.st_mode & needed:
            return False
        directory = os.path.dirname(directory)
    return True
