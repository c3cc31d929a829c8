# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variable graphite_web_auth: logins beyond graphite-web's own users. This file is private to the collection."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import count_problem

_GROUPS = ("required_group", "staff_group", "superuser_group")
_NAMES = ("bind_dn", "user_base", "group_base", *_GROUPS)
_DN = re.compile(r"\s*[A-Za-z][\w.-]*\s*=.")
_UNQUOTABLE = re.compile(r'["\\\n\r]|\$\{')
# What means something else to Apache, Django or graphite_access.py.
_OTHER_HEADERS = ("authorization", "cookie", "forwarded", "host", "origin", "referer", "user-agent", "via", "x-forwarded-for")


def auth_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    """Yield one message for each mistake, in the variables of the role without their prefix."""
    auth, proxies = variables.get("auth") or {}, variables.get("trusted_proxies") or []
    if "remote_user" in auth:
        yield from _remote_user_problems(auth["remote_user"] or {}, proxies)
        if "USE_REMOTE_USER_AUTHENTICATION" in variables["settings"]:
            yield "graphite_web_settings has USE_REMOTE_USER_AUTHENTICATION, which graphite_web_auth: remote_user replaces; leave it out."
    if auth.get("openid_connect"):
        if "remote_user" in auth:
            yield "graphite_web_auth has remote_user and openid_connect, which both name the user of a request; give one of the two."
        yield from _openid_problems(auth["openid_connect"])
        if proxies and not variables.get("tls"):
            yield (
                "graphite_web_auth: openid_connect behind graphite_web_trusted_proxies needs graphite_web_tls, because Apache tells the"
                " provider the address by which it is asked itself; give the site a certificate, and have the proxies ask it over HTTPS."
            )
    if auth.get("ldap"):
        if variables["install_method"] == "venv":
            yield (
                "graphite_web_auth: ldap needs python-ldap, which a host would have to compile, since PyPI has its source only;"
                " set graphite_web_install_method to package, or have a proxy log users in (remote_user)."
            )
        yield from _ldap_problems(auth["ldap"])


def _remote_user_problems(remote_user: Mapping[str, Any], proxies: list) -> Iterator[str]:
    header = str(remote_user.get("header") or "")
    if not header:
        return
    if not re.match(r"[A-Za-z][A-Za-z0-9-]*\Z", header) or header.lower() in _OTHER_HEADERS:
        yield f"graphite_web_auth: remote_user: header is '{header}'; give one of its own, of letters, digits and -, such as X-Remote-User."
    if not proxies:
        yield (
            f"graphite_web_auth: remote_user takes the header {header}, but graphite_web_trusted_proxies is empty, so that nobody"
            " may set it; give the addresses of the proxies."
        )


def _openid_problems(given: Mapping[str, Any]) -> Iterator[str]:
    where = "graphite_web_auth: openid_connect"
    url = str(given.get("metadata_url") or "")
    if not re.match(r"https://[^/\s]+/\S+\Z", url):
        yield f"{where}: metadata_url is '{url}'; give one such as https://login.example.org/.well-known/openid-configuration."
    secret = str(given.get("client_secret") or "")
    if not re.match(r"[!-~]+\Z", secret) or _UNQUOTABLE.search(secret):
        yield f"{where}: client_secret is empty, or has white space or one of \" \\ ${{, which Apache's configuration cannot hold."
    for key in ("metadata_url", "client_id", "scope", "ca_certificate"):
        if _UNQUOTABLE.search(str(given.get(key) or "")):
            yield f"{where}: {key} has a character that Apache's configuration cannot hold; leave out \" \\ ${{ and line breaks."
    if not given.get("client_id"):
        yield f"{where}: client_id is empty; give the name of the site at the provider."
    if not re.match(r"[\w.:-]+\Z", str(given.get("user_claim") or "sub")):
        yield f"{where}: user_claim is '{given['user_claim']}'; give the name of a claim, such as preferred_username."


def _ldap_problems(given: Mapping[str, Any]) -> Iterator[str]:
    where = "graphite_web_auth: ldap"
    uris = str(given.get("uri") or "").split()
    if not uris:
        yield f"{where}: uri is empty; give one such as ldaps://ldap.example.org."
    for uri in uris:
        yield from _uri_problems(f"{where}: uri", uri, given)
    if not given.get("user_base"):
        yield f"{where}: user_base is empty; give the entry above the users, such as ou=people,dc=example,dc=org."
    for key in _NAMES:
        if given.get(key) and not _DN.match(str(given[key])):
            yield f"{where}: {key} is '{given[key]}', which is no distinguished name; give one such as ou=people,dc=example,dc=org."
    if bool(given.get("bind_dn")) != bool(given.get("bind_password")):
        yield f"{where} has one of bind_dn and bind_password; give both, or neither to look users up anonymously."
    wanted = str(given.get("user_filter") or "(uid=%(user)s)")
    rest = wanted.replace("%(user)s", "")
    if rest == wanted or "%" in rest or not re.match(r"\(.*\)\Z", wanted) or rest.count("(") != rest.count(")"):
        yield f"{where}: user_filter is '{wanted}'; give a filter in parentheses, with %(user)s for the name, such as (uid=%(user)s)."
    groups = [key for key in _GROUPS if given.get(key)]
    if groups and not given.get("group_base"):
        yield f"{where} has {' and '.join(groups)}, but no group_base; give the entry above the groups."
    if given.get("ca_certificate") and not str(given["ca_certificate"]).startswith("/"):
        yield f"{where}: ca_certificate is '{given['ca_certificate']}'; give an absolute path on the host."
    if given.get("timeout") is not None:
        yield from filter(None, [count_problem(f"{where}: timeout", given["timeout"])])


def _uri_problems(where: str, uri: str, given: Mapping[str, Any]) -> Iterator[str]:
    try:
        parts = urlsplit(uri)
        scheme, host, _port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme, host = "", ""
    if scheme not in ("ldap", "ldaps") or not host or parts.path.strip("/") or parts.query or parts.username:
        yield f"{where} is '{uri}'; give scheme, host and port, such as ldaps://ldap.example.org or ldap://ldap.example.org:389."
        return
    start_tls = boolean(given.get("start_tls") or False, strict=False)
    if scheme == "ldaps" and start_tls:
        yield f"{where} is {uri}, which is encrypted by itself; leave start_tls out, or give ldap://."
    if scheme == "ldap" and not start_tls and not _is_loopback(host) and not boolean(given.get("allow_cleartext") or False, strict=False):
        yield (
            f"{where} is {uri}, over which passwords travel in the clear; give ldaps://, or start_tls: true, or, on a network that nobody"
            " listens to, allow_cleartext: true."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
