# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Logins of others than graphite-web's own users: what is refused on the controller, and what is written."""

from __future__ import annotations

import ast

import pytest

LDAP = {"uri": "ldaps://ldap.example.org", "user_base": "ou=people,dc=example,dc=org"}
HASH = "pbkdf2_sha256$600000$0123456789abcdefABCDEF$" + "A" * 43 + "="
GROUP = "cn=graphite,ou=groups,dc=example,dc=org"
FRONT = {"remote_user": {"header": "X-Remote-User"}}


def ldap(**changed):
    return {"graphite_web_auth": {"ldap": {key: value for key, value in {**LDAP, **changed}.items() if value is not None}}}


def user(**options):
    return {"graphite_web_users": [{"name": "alice", **options}]}


OPENID = {
    "metadata_url": "https://login.example.org/.well-known/openid-configuration",
    "client_id": "graphite",
    "client_secret": "of-the-client",
}


def openid(**changed):
    return {"graphite_web_auth": {"openid_connect": {**OPENID, **changed}}}


REFUSED = {
    "provider in the clear": (openid(metadata_url="http://login.example.org/.well-known/openid-configuration"), "metadata_url is"),
    "provider that is told another address": (
        {**openid(), "graphite_web_trusted_proxies": ["192.0.2.7"]},
        "openid_connect behind graphite_web_trusted_proxies needs graphite_web_tls",
    ),
    "site without a name": (openid(client_id=""), "client_id is empty"),
    "site without a secret": (openid(client_secret=""), "client_secret is empty"),
    "secret that ends a text": (openid(client_secret='a"b'), "client_secret is empty, or has"),
    "scope of two lines": (openid(scope="openid\nRequire all granted"), "scope has a character"),
    "claim that is no name": (openid(user_claim="a b"), "user_claim is 'a b'"),
    "two who name the user": (
        {"graphite_web_auth": {"openid_connect": OPENID, "remote_user": {}}},
        "remote_user and openid_connect",
    ),
    "no address": (ldap(uri=None), "uri"),
    "no base": (ldap(user_base=None), "user_base"),
    "unknown key": ({"graphite_web_auth": {"ldap": {**LDAP, "server": "x"}}}, "server"),
    "unknown way": ({"graphite_web_auth": {"saml": {}}}, "saml"),
    "scheme of a page": (ldap(uri="https://ldap.example.org"), "ldaps://ldap.example.org or ldap://"),
    "address without a host": (ldap(uri="ldaps:///"), "uri is 'ldaps:///'"),
    "port that is none": (ldap(uri="ldaps://ldap.example.org:99999"), "uri is 'ldaps://ldap.example.org:99999'"),
    "password in the clear": (ldap(uri="ldap://192.0.2.7"), "start_tls: true"),
    "one of two in the clear": (ldap(uri="ldaps://a.example.org ldap://b.example.org"), "uri is ldap://b.example.org, over which"),
    "encrypted twice": (ldap(start_tls=True), "leave start_tls out"),
    "name without a password": (ldap(bind_dn="cn=reader,dc=example,dc=org"), "bind_dn and bind_password"),
    "name that is no DN": (ldap(bind_dn="reader", bind_password="x"), "bind_dn is 'reader'"),
    "filter without a name": (ldap(user_filter="(uid=alice)"), "user_filter is '(uid=alice)'"),
    "filter with another name": (ldap(user_filter="(uid=%s)"), "user_filter is '(uid=%s)'"),
    "filter that does not end": (ldap(user_filter="(&(uid=%(user)s)"), "user_filter is '(&(uid=%(user)s)'"),
    "group without a place": (ldap(required_group=GROUP), "required_group, but no group_base"),
    "type of groups": (ldap(group_base=GROUP, group_type="groups"), "groupOfNames"),
    "path on nobody's host": (ldap(ca_certificate="ca.pem"), "ca_certificate is"),
    "no time": (ldap(timeout=0), "timeout"),
    "from PyPI": ({**ldap(), "graphite_web_install_method": "venv"}, "graphite_web_install_method"),
    "nobody's header": ({"graphite_web_auth": FRONT}, "X-Remote-User, but graphite_web_trusted_proxies is empty"),
    "header of others": (
        {"graphite_web_auth": {"remote_user": {"header": "Authorization"}}, "graphite_web_trusted_proxies": ["192.0.2.7"]},
        "header is 'Authorization'",
    ),
    "header with a variant": (
        {"graphite_web_auth": {"remote_user": {"header": "X_Remote_User"}}, "graphite_web_trusted_proxies": ["192.0.2.7"]},
        "header is 'X_Remote_User'",
    ),
    "proxy without an address": (
        {"graphite_web_auth": FRONT, "graphite_web_trusted_proxies": ["proxy"]},
        "graphite_web_trusted_proxies has 'proxy'",
    ),
    "twice": (
        {"graphite_web_auth": {"remote_user": {}}, "graphite_web_settings": {"USE_REMOTE_USER_AUTHENTICATION": True}},
        "USE_REMOTE_USER_AUTHENTICATION",
    ),
    "user without either": (user(), "password_hash"),
    "user with both": (user(password="first-word", password_hash=HASH), "give one of the two"),
    "hash of another kind": (user(password_hash="$6$salt$hash"), "pbkdf2_sha256$ITERATIONS$SALT$HASH"),
    "hash that is cut off": (user(password_hash=HASH[:-1]), "pbkdf2_sha256$ITERATIONS$SALT$HASH"),
    "hash of few iterations": (user(password_hash=HASH.replace("600000", "1000")), "has 1000 iterations"),
}


@pytest.mark.parametrize(("variables", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_lets_nobody_or_anybody_in_is_refused(role_validation, variables, named):
    problems = "\n".join(role_validation.problems("graphite_web", variables))
    assert named in problems
    assert HASH not in problems


ACCEPTED = [
    ldap(),
    ldap(uri="ldap://127.0.0.1:3890"),
    ldap(uri="ldap://[::1]"),
    ldap(uri="ldap://192.0.2.7", start_tls=True),
    ldap(uri="ldap://192.0.2.7", allow_cleartext=True),
    ldap(
        uri="ldaps://a.example.org ldaps://b.example.org:6360",
        bind_dn=GROUP,
        bind_password="x",
        user_filter="(|(uid=%(user)s)(mail=%(user)s))",
    ),
    ldap(group_base="ou=groups,dc=example,dc=org", required_group=GROUP, group_type="posixGroup"),
    {"graphite_web_auth": {"remote_user": {}}},
    {"graphite_web_auth": {"openid_connect": OPENID, "ldap": LDAP}},
    {"graphite_web_auth": FRONT, "graphite_web_trusted_proxies": ["192.0.2.7", "2001:db8::/32"]},
    user(password_hash=HASH),
    {"graphite_web_users": [{"name": "alice", "state": "absent"}]},
]


@pytest.mark.parametrize("variables", ACCEPTED)
def test_what_works_is_not_refused(role_validation, variables):
    assert role_validation.problems("graphite_web", variables) == []


@pytest.mark.parametrize(
    ("auth", "variable"),
    [({}, ""), ({"remote_user": {}}, "REMOTE_USER"), (FRONT, "HTTP_X_REMOTE_USER"), ({"openid_connect": OPENID}, "REMOTE_USER")],
)
def test_a_name_comes_from_where_it_is_said_to(role_validation, auth, variable):
    assert role_validation.value("graphite_web", "__graphite_web_remote_user_variable", {"graphite_web_auth": auth}) == variable


def test_only_trusted_proxies_may_set_the_header(role_validation):
    variables = {"graphite_web_auth": FRONT, "graphite_web_trusted_proxies": ["192.0.2.7", "2001:db8::/32"]}
    (directive,) = role_validation.value("graphite_web", "__graphite_web_header_directives", variables)
    peer = "%{CONN_REMOTE_ADDR} -ipmatch"
    assert directive == f"RequestHeader unset X-Remote-User \"expr=!({peer} '192.0.2.7' || {peer} '2001:db8::/32')\""


def test_the_settings_have_the_types_that_python_needs(role_validation):
    variables = ldap(uri="ldap://192.0.2.7", start_tls="yes", timeout="5", required_group=None)
    found = role_validation.value("graphite_web", "__graphite_web_ldap", variables)
    found = ast.literal_eval(found) if isinstance(found, str) else found
    assert (found["start_tls"], found["timeout"], found["user_filter"]) == (True, 5, "(uid=%(user)s)")
