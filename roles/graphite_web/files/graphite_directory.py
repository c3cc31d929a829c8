# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Lets the users of an LDAP directory log in, beside those that graphite-web has itself; by django-auth-ldap.

local_settings.py has the setting ``DIRECTORY``, with the keys of ``graphite_web_auth.ldap``. Settings of django-auth-ldap
(``AUTH_LDAP_...``) override what is made of it.

For django-auth-ldap 4.1 to 5.3 on Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which overwrites manual
changes.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import unicodedata
from typing import ClassVar

import ldap
from django.conf import settings
from django.contrib.auth import get_user_model
from django_auth_ldap import config
from django_auth_ldap.backend import LDAPBackend, ldap_error

# Seconds for which a directory that does not answer is left alone, so that it does not hold the threads of graphite-web.
PAUSE = 10
# Seconds after which a user who has logged in is looked up again: who has left the directory, or a group, is out by then.
LOOKUP_INTERVAL = 60
# The same for who was out, and may have come back.
RETURN_INTERVAL = 5
# Wrong passwords for a name, in so many seconds, after which the directory is not asked about it any more; for each process.
ATTEMPTS = 10
ATTEMPTS_INTERVAL = 60
KNOWN_NAMES = 1000
AWAY = (ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.TIMEOUT, ldap.BUSY, ldap.UNAVAILABLE)
GROUP_TYPES = {
    "groupOfNames": config.GroupOfNamesType,
    "groupOfUniqueNames": config.GroupOfUniqueNamesType,
    "posixGroup": config.PosixGroupType,
    "activeDirectory": config.ActiveDirectoryGroupType,
}
OBJECT_CLASSES = {"activeDirectory": "group"}
_current = threading.local()
_lock = threading.Lock()


class Search(config.LDAPSearch):
    """Tells of errors; django-auth-ldap before 5.0 takes a directory that does not answer for one without the user."""

    def execute(self, connection, filterargs=(), escape=True):
        wanted = self.filterstr % (self._escape_filterargs(filterargs) if escape else filterargs)
        return self._process_results(connection.search_s(self.base_dn, self.scope, wanted, self.attrlist))


def connection_options(given: dict) -> dict:
    """Return the options of a connection; the last one makes those of TLS count."""
    return {
        ldap.OPT_NETWORK_TIMEOUT: given["timeout"],
        ldap.OPT_TIMEOUT: given["timeout"],
        ldap.OPT_REFERRALS: 0,
        ldap.OPT_X_TLS_CACERTFILE: given["ca_certificate"],
        ldap.OPT_X_TLS_REQUIRE_CERT: ldap.OPT_X_TLS_DEMAND,
        ldap.OPT_X_TLS_PROTOCOL_MIN: 0x303,  # TLS 1.2
        ldap.OPT_X_TLS_NEWCTX: 0,
    }


def ldap_settings(given: dict) -> dict:
    """Return settings of django-auth-ldap without their prefix."""
    attributes = {"email": "mail_attribute", "first_name": "first_name_attribute", "last_name": "last_name_attribute"}
    made = {
        "SERVER_URI": given["uri"],
        "START_TLS": given["start_tls"],
        "CONNECTION_OPTIONS": connection_options(given),
        "BIND_DN": given["bind_dn"],
        "BIND_PASSWORD": given["bind_password"],
        "USER_SEARCH": Search(given["user_base"], ldap.SCOPE_SUBTREE, given["user_filter"]),
        "USER_ATTR_MAP": {field: given[key] for field, key in attributes.items() if given[key]},
    }
    if given["group_base"]:
        superusers = [given["superuser_group"]] if given["superuser_group"] else []
        staff = [given["staff_group"]] if given["staff_group"] else []
        flags = {"is_superuser": superusers, "is_staff": staff + superusers}
        object_class = OBJECT_CLASSES.get(given["group_type"], given["group_type"])
        made["GROUP_TYPE"] = GROUP_TYPES[given["group_type"]]()
        made["GROUP_SEARCH"] = Search(given["group_base"], ldap.SCOPE_SUBTREE, f"(objectClass={object_class})")
        made["REQUIRE_GROUP"] = given["required_group"] or None
        made["USER_FLAGS_BY_GROUP"] = {flag: groups for flag, groups in flags.items() if groups}
    return made


class Directory(LDAPBackend):
    """Authentication backend of Django.

    A user who has a password in graphite-web is none of the directory's, which could make itself an administrator otherwise.
    """

    default_settings = ldap_settings(settings.DIRECTORY)
    # Of the process. Django makes a backend for each request.
    _paused_until = 0.0
    _attempts: ClassVar[dict] = {}
    _lookups: ClassVar[dict] = {}

    def authenticate(self, request, username=None, password=None, **_options):
        if not (username and password and _is_name(username)) or _belongs_to_graphite_web(username) or self._is_paused():
            return None
        name = username.lower()
        if not self._may_try(name):
            return None
        user = self._asking(lambda: super(Directory, self).authenticate(request, username=username, password=password))
        if user is not None or self._is_paused():
            self._attempts.pop(name, None)
        if user is not None:
            _remember(self._lookups, user.pk, (time.monotonic() + LOOKUP_INTERVAL, True))
        # What an administrator has turned off here stays off.
        return user if user is not None and user.is_active else None

    def _may_try(self, name: str) -> bool:
        now = time.monotonic()
        with _lock:
            attempts, until = self._attempts.get(name, (0, 0))
            if until <= now:
                attempts, until = 0, now + ATTEMPTS_INTERVAL
            if attempts < ATTEMPTS:
                _remember(self._attempts, name, (attempts + 1, until))
        return attempts < ATTEMPTS

    def get_user(self, user_id):
        """Return the user of a session, unless the directory does not know the user any more."""
        user = super().get_user(user_id)
        if user is None or not user.is_active:
            return None
        until, is_known = self._lookups.get(user_id, (0, True))
        if until <= time.monotonic():
            # Other threads need not ask meanwhile.
            _remember(self._lookups, user_id, (time.monotonic() + LOOKUP_INTERVAL, is_known))
            is_known = self._is_known(user, is_known)
            interval = LOOKUP_INTERVAL if is_known else RETURN_INTERVAL
            _remember(self._lookups, user_id, (time.monotonic() + interval, is_known))
            user = super().get_user(user_id)
        return user if is_known else None

    def _is_known(self, user, before: bool) -> bool:
        """Return whether the directory still has a user who may log in; ``before`` if it does not answer."""
        name = user.get_username()
        if self._is_paused():
            return before
        if _belongs_to_graphite_web(name):
            return False
        found = self._asking(lambda: self._looked_up(name))
        return before if _current.error is not None else found is not None

    def _looked_up(self, name: str):
        user = self.populate_user(name)
        required = self.settings.REQUIRE_GROUP
        if user is None or (required and not config.LDAPGroupQuery(required).resolve(user.ldap_user)):
            return None
        return user

    def _asking(self, function):
        _current.error = None
        try:
            return function()
        except ldap.LDAPError as error:
            _note(error)
            return None

    def _is_paused(self) -> bool:
        return Directory._paused_until > time.monotonic()


def _note(exception, **_options) -> None:
    """Take note of an error of the directory, which django-auth-ldap does not raise."""
    _current.error = exception
    if isinstance(exception, AWAY):
        Directory._paused_until = time.monotonic() + PAUSE
    logging.getLogger("exception").error("The LDAP directory %s: %s", settings.DIRECTORY["uri"], exception)


ldap_error.connect(_note)


def _remember(known: dict, key, value) -> None:
    known[key] = value
    while len(known) > KNOWN_NAMES:
        known.pop(next(iter(known)), None)


def _is_name(text: str) -> bool:
    # A directory ignores spaces and the width of characters, so that one of its users could have several names here.
    return bool(re.fullmatch(r"[\w.@+-]{1,150}", text)) and unicodedata.normalize("NFKC", text) == text


def _belongs_to_graphite_web(name: str) -> bool:
    model = get_user_model()
    found = list(model.objects.filter(**{f"{model.USERNAME_FIELD}__iexact": name})[:2])
    # Of a user whom Django has made of a name from a front, the password is empty. From a provider, the name may be anybody's.
    return len(found) > 1 or any(user.has_usable_password() if user.password else settings.OPENID_CONNECT for user in found)
