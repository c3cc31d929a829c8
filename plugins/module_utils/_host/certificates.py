# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Files of certificates and keys that are given as text or made on the host. This file is private to the collection.

Source of the options: openssl-req(1) of OpenSSL 1.1.1 and 3.5.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
import time

from ansible_collections.metricstack.graphite.plugins.module_utils._host.files import is_written, replace_file
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._host.tls import (
    DIRECTORY,
    RENEWAL_DAYS,
    SELF_SIGNED_DAYS,
    Examination,
    ascii_name,
    certificate_files,
)

# Described in the documentation fragment tls_certificates.
CERTIFICATES_ARGUMENT_SPEC: dict = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "variable": {"type": "str", "required": True},
            "server_name": {"type": "str", "required": True},
            "certificate": {"type": "path"},
            "certificate_text": {"type": "str"},
            # A path is no secret, and messages name it.
            "key": {"type": "path", "no_log": False},
            "key_text": {"type": "str", "no_log": True},
            "chain": {"type": "path"},
            "chain_text": {"type": "str"},
            "self_signed": {"type": "bool", "default": False},
            "days": {"type": "int", "default": SELF_SIGNED_DAYS},
            "authority": {"type": "path"},
            "ciphers": {"type": "str"},
        },
    },
    "directory": {"type": "path", "default": DIRECTORY},
}
_MODES = {"certificate": 0o644, "key": 0o600, "chain": 0o644}
# Not one that can sign others, should its key get lost.
_REQUEST = """\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = {common_name}
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {kind}:{name}
"""


class CertificateError(Exception):
    """A certificate cannot be made; the message says why."""


class Certificates:
    """The certificates of one call, and the files in ``directory`` that belong to them."""

    def __init__(self, wanted: list[dict], directory: str) -> None:
        self._wanted = wanted
        self._directory = directory

    def problems(self) -> list[str]:
        """Return what is wrong with certificates; what a self-signed one lacks is made anew."""
        now = time.time()
        problems = []
        for wanted in self._wanted:
            if wanted["self_signed"]:
                # The certificate is judged where it may be made anew.
                problems += Examination({key: wanted[key] for key in ("variable", "server_name", "ciphers")}, now).problems
            else:
                problems += Examination(wanted, now).problems
        return problems

    def unmade(self) -> list[dict]:
        """Return the self-signed ones that have to be made."""
        return [wanted for wanted in self._wanted if wanted["self_signed"] and not self._is_made(wanted)]

    def write(self, check_mode: bool) -> list[str]:
        """Write the files that differ, and return their paths."""
        changed: list[str] = []
        unmade = self.unmade()
        for wanted in self._wanted:
            files = certificate_files(_as_given(wanted), wanted["name"], self._directory)
            if wanted["self_signed"]:
                if wanted in unmade:
                    contents = {} if check_mode else _made(wanted["server_name"], wanted["days"])
                    changed += [self._put(files[part], contents.get(part), _MODES[part], check_mode) for part in ("key", "certificate")]
                continue
            for part, text in self._texts(wanted, files).items():
                if not is_written(files[part], text, os.geteuid(), None, _MODES[part]):
                    changed.append(self._put(files[part], text, _MODES[part], check_mode))
        return changed

    def texts(self) -> dict[str, str]:
        """Return each certificate that is there, by the name of its site."""
        found = {}
        for wanted in self._wanted:
            path = certificate_files(_as_given(wanted), wanted["name"], self._directory)["certificate"]
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as stream:
                    found[wanted["name"]] = stream.read()
        return found

    def _is_made(self, wanted: dict) -> bool:
        files = certificate_files(wanted, wanted["name"], self._directory)
        if not os.path.exists(files["certificate"]) or not os.path.exists(files["key"]):
            return False
        made = {**wanted, **files, "authority": files["certificate"], "ciphers": None}
        return not Examination(made, time.time() + RENEWAL_DAYS * 86400).problems

    def _texts(self, wanted: dict, files: dict[str, str]) -> dict[str, str]:
        """Return the contents of the files of our own."""
        texts = {part: _clean(wanted[f"{part}_text"]) for part in ("key", "certificate", "chain") if wanted.get(f"{part}_text")}
        if "chain" in texts and not files["chain"]:
            texts["certificate"] += texts.pop("chain")
        return texts

    def _put(self, path: str, text: str | None, mode: int, check_mode: bool) -> str:
        if not check_mode:
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            replace_file(path, text or "", os.geteuid(), os.getegid(), mode)
        return path


def _as_given(wanted: dict) -> dict:
    """Return the options as the variable of a role has them: each part a path or a text."""
    return {**wanted, **{part: wanted.get(f"{part}_text") or wanted.get(part) for part in ("certificate", "key", "chain")}}


def _clean(text: str) -> str:
    return text.strip() + "\n"


def _made(server_name: str, days: int) -> dict[str, str]:
    """Return a new key and its self-signed certificate."""
    name = ascii_name(server_name)
    try:
        ipaddress.ip_address(name)
        kind = "IP"
    except ValueError:
        kind = "DNS"
    with tempfile.TemporaryDirectory() as directory:
        files = {part: os.path.join(directory, part) for part in ("request", "key", "certificate")}
        with open(files["request"], "w", encoding="utf-8") as stream:
            # X.520 has 64 characters for it at most.
            stream.write(_REQUEST.format(common_name=name[:64], kind=kind, name=name))
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", files["key"]]
        certificate = ["-sha256", "-days", str(days), "-out", files["certificate"]]
        process = run(["openssl", "req", "-x509", "-config", files["request"], *key, *certificate])
        if process.returncode != 0:
            raise CertificateError(f"openssl does not make a certificate for {server_name}: {process.stderr.strip()}")
        contents = {}
        for part in ("key", "certificate"):
            with open(files[part], encoding="utf-8") as stream:
                contents[part] = stream.read()
        return contents
