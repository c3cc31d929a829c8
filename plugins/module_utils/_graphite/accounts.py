# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Creates, changes and deletes users of graphite-web. This file is private to the collection."""

from __future__ import annotations

import re

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import Application, ApplicationError
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind

USER_SPEC: dict = {
    "name": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "password_hash": {"type": "str", "no_log": True},
    "update_password": {"type": "str", "choices": ["always", "on_create"], "default": "always", "no_log": False},
    "email": {"type": "str"},
    "superuser": {"type": "bool", "default": False},
    "staff": {"type": "bool"},
    "active": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
USERS_SPEC: dict = {
    "type": "list",
    "elements": "dict",
    "options": {**USER_SPEC, "name": {"type": "str", "required": True}},
    "mutually_exclusive": [("password", "password_hash")],
}

# What every release of Django computes by itself, with as many iterations as Django 2.2 takes at least.
_HASH = re.compile(r"pbkdf2_sha256\$(\d{1,9})\$[^$\s]{8,}\$[A-Za-z0-9+/]{43}=\Z")
_FEWEST_ITERATIONS = 150000


def hash_problem(given: str) -> str | None:
    """Return what is wrong with a hash of a password, which is not in the text, or ``None``."""
    found = _HASH.match(given)
    if found is None:
        return "is not one that Django computes on every release; give pbkdf2_sha256$ITERATIONS$SALT$HASH"
    if int(found.group(1)) < _FEWEST_ITERATIONS:
        return f"has {found.group(1)} iterations, which can be guessed too fast; compute it with {_FEWEST_ITERATIONS} or more"
    return None


class AccountError(ValueError):
    """Users cannot be as they are described."""


class Account:
    """A user as it is wanted beside what is stored."""

    def __init__(self, options: dict) -> None:
        self.name: str = options["name"]
        self._options = options
        self.current: dict | None = None

    @property
    def wanted(self) -> dict | None:
        """The user as the options describe it, or ``None`` for one that must not exist."""
        options = self._options
        if options["state"] == "absent":
            return None
        email = options["email"]
        if email is None:
            email = self.current["email"] if self.current else ""
        staff = options["superuser"] if options["staff"] is None else options["staff"]
        return {"email": email, "superuser": options["superuser"], "staff": staff, "active": options["active"]}

    @property
    def lacks_password(self) -> bool:
        """Whether the user would have to be created without a password."""
        return self.current is None and self.wanted is not None and not (self._options["password"] or self._options["password_hash"])

    @property
    def _has_new_password(self) -> bool:
        if self.wanted is None:
            return False
        if self.current is None:
            return True
        return self._options["update_password"] == "always" and self.current["password_matches"] is False

    @property
    def _kept(self) -> dict | None:
        return {key: value for key, value in self.current.items() if key != "password_matches"} if self.current else None

    @property
    def differs(self) -> bool:
        return self._kept != self.wanted or self._has_new_password

    @property
    def order(self) -> dict:
        """What the application is asked to write."""
        keys = ("password", "password_hash")
        return {"name": self.name, "wanted": self.wanted, **{key: self._options[key] if self._has_new_password else None for key in keys}}

    @property
    def result(self) -> dict:
        return {"name": self.name, "state": "absent" if self.wanted is None else "present", **(self.wanted or {})}

    @property
    def diff(self) -> dict:
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": _shown(self._kept, "other" if self._has_new_password else "as given"),
            "after": _shown(self.wanted, "as given"),
        }


def _shown(user: dict | None, password: str) -> dict:
    return {"state": "absent"} if user is None else {"state": "present", **user, "password": password}


def apply_accounts(application: Application, users: list[dict], check_mode: bool) -> list[Account]:
    """Write the users that differ, all or none, or in check mode compare them.

    Raises ``ApplicationError``, and ``AccountError`` for a new user without a password or with an invalid hash.
    """
    accounts = [Account(options) for options in users]
    if not accounts:
        return []
    hashes = {options["name"]: options["password_hash"] for options in users if options["password_hash"]}
    for name, given in hashes.items():
        problem = hash_problem(given)
        if problem:
            raise AccountError(f"The password_hash of user '{name}' {problem}.")
    try:
        stored = application.ask("read_users", passwords={options["name"]: options["password"] for options in users}, hashes=hashes)
    except ApplicationError as error:
        if not (check_mode and error.kind in (Kind.NOT_INSTALLED, Kind.NO_SCHEMA)):
            raise
        stored = {}
    for account in accounts:
        account.current = stored.get(account.name)
    incomplete = [account.name for account in accounts if account.lacks_password]
    if incomplete:
        names = ", ".join(f"'{name}'" for name in incomplete)
        raise AccountError(f"User {names} does not exist yet and cannot be created without a password; give one.")
    orders = [account.order for account in accounts if account.differs]
    if orders and not check_mode:
        application.ask("write_users", users=orders)
    return accounts
