# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Creates, changes and deletes users of graphite-web. This file is private to the collection."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import Application, ApplicationError
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind

USER_SPEC: dict = {
    "name": {"type": "str"},
    "password": {"type": "str", "no_log": True},
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
}


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
        return self.current is None and self.wanted is not None and not self._options["password"]

    @property
    def _new_password(self) -> str | None:
        if self.wanted is None:
            return None
        if self.current is None:
            return self._options["password"]
        if self._options["update_password"] == "on_create" or self.current["password_matches"] is not False:
            return None
        return self._options["password"]

    @property
    def _kept(self) -> dict | None:
        return {key: value for key, value in self.current.items() if key != "password_matches"} if self.current else None

    @property
    def differs(self) -> bool:
        return self._kept != self.wanted or self._new_password is not None

    @property
    def order(self) -> dict:
        """What the application is asked to write."""
        return {"name": self.name, "wanted": self.wanted, "password": self._new_password}

    @property
    def result(self) -> dict:
        return {"name": self.name, "state": "absent" if self.wanted is None else "present", **(self.wanted or {})}

    @property
    def diff(self) -> dict:
        other = self._new_password is not None
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": _shown(self._kept, "other" if other else "as given"),
            "after": _shown(self.wanted, "as given"),
        }


def _shown(user: dict | None, password: str) -> dict:
    return {"state": "absent"} if user is None else {"state": "present", **user, "password": password}


def apply_accounts(application: Application, users: list[dict], check_mode: bool) -> list[Account]:
    """Write the users that differ, all or none, or in check mode compare them.

    Raises ``ApplicationError``, and ``AccountError`` for a new user without a password.
    """
    accounts = [Account(options) for options in users]
    if not accounts:
        return []
    try:
        stored = application.ask("read_users", passwords={options["name"]: options["password"] for options in users})
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
