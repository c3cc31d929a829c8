# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Read and write users."""

from __future__ import annotations

from .schema import refuse_without_tables

# Graphite-web makes this account for visitors who have not logged in, whenever it needs one.
GRAPHITE_WEB_USER = "default"


def read_users(connection, passwords: dict[str, str | None], hashes: dict[str, str] | None = None) -> dict:
    """Return the states of users by name, ``None`` for one that does not exist; ``passwords`` are by name and compared.

    Where ``hashes`` has one, it is compared instead. ``password_matches`` is ``None`` without anything to compare.
    """
    refuse_without_tables(connection)
    return {name: _read_user(name, password, (hashes or {}).get(name)) for name, password in passwords.items()}


def _read_user(name: str, password: str | None, given_hash: str | None) -> dict | None:
    from django.contrib.auth import get_user_model
    from django.contrib.auth.hashers import check_password

    user = get_user_model().objects.filter(username=name).first()
    if user is None:
        return None
    # Not user.check_password(), which may store the password anew.
    matches = None if password is None else check_password(password, user.password)
    return {
        "email": user.email,
        "superuser": user.is_superuser,
        "staff": user.is_staff,
        "active": user.is_active,
        "password_matches": matches if given_hash is None else user.password == given_hash,
    }


def write_users(connection, users: list[dict]) -> dict:
    """Give each user the state ``wanted`` and, unless it is ``None``, the password or its hash; without a state, delete the user.

    All are written, or none.
    """
    from django.contrib.auth import get_user_model
    from django.db import transaction

    refuse_without_tables(connection)
    objects = get_user_model().objects
    with transaction.atomic():
        for item in users:
            name, wanted = item["name"], item["wanted"]
            if wanted is None:
                objects.filter(username=name).delete()
                continue
            user = objects.filter(username=name).first() or objects.model(username=name)
            user.email = wanted["email"]
            user.is_superuser = wanted["superuser"]
            user.is_staff = wanted["staff"]
            user.is_active = wanted["active"]
            if item["password"] is not None:
                user.set_password(item["password"])
            if item.get("password_hash") is not None:
                user.password = item["password_hash"]
            user.save()
    return {}
