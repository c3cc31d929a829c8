# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Answer requests inside the application: in its Python, with its settings, as its user.

``application.py`` starts a process that loads this package from its standard input. The first line has the sources and what
to load the application with; each further line is a request. Each of them is answered by one line on standard output; whatever
the application prints meanwhile goes to standard error. Works with Django 3.2 to 5.2.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable

from . import accounts, caches, copies, dashboards, loading, move, schema, targets
from .protocol import Kind, RefusalError

ACTIONS: dict[str, Callable[..., Any]] = {
    "check_caches": caches.check_caches,
    "check_dashboards": targets.check_dashboards,
    "check_site": loading.check_site,
    "dump": copies.dump,
    "load": copies.load,
    "migrate": schema.migrate,
    "move": move.move,
    "pending": schema.report_pending,
    "read_dashboards": dashboards.read_dashboards,
    "read_names": copies.read_names,
    "read_users": accounts.read_users,
    "survey": move.survey,
    "write_dashboards": dashboards.write_dashboards,
    "write_users": accounts.write_users,
}
WRITERS = ("load", "migrate", "write_dashboards", "write_users")


def answer(action: str, database: str, arguments: dict) -> dict:
    """Return the reply to a request about one of the databases in Django's settings."""
    from django.db import connections
    from django.db.utils import DatabaseError

    try:
        connection = connections[database]
        if action in WRITERS and connection.vendor == "postgresql":
            # Until the connection is closed. Other hosts whose graphite-web has the same database may be about to do the same.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", ["metricstack.graphite"])
        return ACTIONS[action](connection, **arguments)
    except DatabaseError as error:
        missing = "no such table" in str(error) or "does not exist" in str(error)
        raise RefusalError(Kind.NO_SCHEMA if missing else Kind.DATABASE, f"{type(error).__name__}: {error}") from error
    except PermissionError as error:
        raise RefusalError(Kind.PERMISSION, f"{error}. Give the file to the application's user.") from error
    finally:
        connections.close_all()


def serve(first: dict) -> None:
    """Load the application and answer requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply_to(function, *arguments) -> bool:
        try:
            reply = {"reply": function(*arguments)}
        except RefusalError as refusal:
            reply = {"refusal": refusal.kind.value, "message": str(refusal)}
        replies.write(f"{json.dumps(reply)}\n")
        replies.flush()
        return "reply" in reply

    if reply_to(lambda: loading.load_application(**first)):
        for line in sys.stdin:
            request = json.loads(line)
            reply_to(answer, request["action"], request["database"], request["arguments"])
