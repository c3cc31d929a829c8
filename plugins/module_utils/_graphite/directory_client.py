# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Asks an LDAP directory whether graphite-web could look up users in it. This file is private to the collection.

``client_check.py`` runs the source of this file as a program: a setting DIRECTORY comes as JSON on standard input, and an object with
``problem`` and ``away``, each a sentence or null, goes as JSON to standard output. It needs python-ldap, and nothing of the application.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from urllib.parse import urlsplit

SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def unreachable(uri: str, timeout: int) -> str | None:
    """Return why nobody answers at the port of a directory, or ``None``."""
    parts = urlsplit(uri)
    try:
        with socket.create_connection((parts.hostname, parts.port or (636 if parts.scheme == "ldaps" else 389)), timeout):
            return None
    except OSError as error:
        return f"{uri} cannot be reached: {error}"


def problem(ldap, given: dict, uri: str) -> str | None:
    """Return what is in the way of a login at a directory that can be reached, or ``None``."""
    is_encrypted = given["start_tls"] or uri.startswith("ldaps:")
    if is_encrypted and not os.access(given["ca_certificate"], os.R_OK):
        return f"ca_certificate is {given['ca_certificate']}, which is not there or cannot be read by graphite-web."
    connection = ldap.initialize(uri)
    options = {
        ldap.OPT_NETWORK_TIMEOUT: given["timeout"],
        ldap.OPT_TIMEOUT: given["timeout"],
        ldap.OPT_REFERRALS: 0,
        ldap.OPT_X_TLS_CACERTFILE: given["ca_certificate"],
        ldap.OPT_X_TLS_REQUIRE_CERT: ldap.OPT_X_TLS_DEMAND,
        ldap.OPT_X_TLS_PROTOCOL_MIN: 0x303,
        ldap.OPT_X_TLS_NEWCTX: 0,
    }
    try:
        for option, value in options.items():
            connection.set_option(option, value)
        if given["start_tls"]:
            connection.start_tls_s()
        connection.simple_bind_s(given["bind_dn"], given["bind_password"])
    except ldap.INVALID_CREDENTIALS:
        return f"{uri} refuses bind_dn '{given['bind_dn']}' with this bind_password."
    except ldap.LDAPError as error:
        return (
            f"{uri} can be reached, but does not speak {'TLS' if is_encrypted else 'LDAP'} as graphite-web needs it: {described(error)}."
            " Compare uri, start_tls and ca_certificate with the directory and the name in its certificate."
        )
    for key in ("user_base", "group_base", "required_group", "staff_group", "superuser_group"):
        if given[key]:
            try:
                connection.search_s(given[key], ldap.SCOPE_BASE, attrlist=["objectClass"])
            except (ldap.NO_SUCH_OBJECT, ldap.INVALID_DN_SYNTAX) as error:
                return f"{key} is '{given[key]}', which {uri} does not show to '{given['bind_dn']}': {described(error)}."
            except ldap.LDAPError as error:
                return f"{uri} does not let '{given['bind_dn']}' read {key}, '{given[key]}': {described(error)}."
    try:
        connection.search_s(
            given["user_base"], ldap.SCOPE_SUBTREE, given["user_filter"] % {"user": "a name that nobody has"}, ["objectClass"]
        )
    except ldap.LDAPError as error:
        return f"user_filter is '{given['user_filter']}', by which {uri} does not search: {described(error)}."
    return None


def described(error: Exception) -> str:
    """Return the words of an error of python-ldap."""
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return ", ".join(str(details[key]) for key in ("desc", "info") if details.get(key)) or type(error).__name__


def examine(ldap, given: dict) -> dict:
    """Return what is wrong, and which of the addresses are away."""
    away = []
    for uri in given["uri"].split():
        why = unreachable(uri, given["timeout"])
        if why:
            away.append(why)
            continue
        if given["ca_certificate"] == SYSTEM_CERTIFICATES and not os.path.exists(SYSTEM_CERTIFICATES):
            away.append(f"{uri} cannot be asked before the package ca-certificates is installed")
            continue
        found = problem(ldap, given, uri)
        if found:
            return {"problem": found, "away": None}
    return {"problem": None, "away": "; ".join(away) or None}


def main() -> None:
    try:
        ldap = importlib.import_module("ldap")
    except ImportError:
        raise SystemExit(3) from None
    json.dump(examine(ldap, json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
