# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Asks a PostgreSQL server whether graphite-web could use a database. This file is private to the collection.

``client_check.py`` runs the source of this file as a program: an entry of Django's setting DATABASES comes as JSON on standard
input, and an object with ``problem``, a sentence or null, goes as JSON to standard output. It needs psycopg2 or psycopg, and
nothing of the application.
"""

from __future__ import annotations

import importlib
import json
import sys

# Options that Django takes itself; the rest goes to the driver.
_DJANGO = ("assume_role", "isolation_level", "pool", "server_side_binding")
_FACTS = """
SELECT current_user, current_database(), current_schema(), quote_ident(current_user), quote_ident(current_schema()),
       has_schema_privilege(current_schema(), 'CREATE'), to_regclass('django_migrations') IS NOT NULL
"""


def problem(driver, database: dict) -> str | None:
    """Return what is in the way of graphite-web, or ``None``."""
    options = database.get("OPTIONS") or {}
    keywords = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    arguments = {keyword: database[key] for keyword, key in keywords.items() if database.get(key)}
    try:
        connection = driver.connect(
            **{"connect_timeout": 10, **arguments, **{key: value for key, value in options.items() if key not in _DJANGO}}
        )
    except (driver.Error, TypeError) as error:
        return f"the database cannot be used: {' '.join(str(error).split())}"
    try:
        cursor = connection.cursor()
        if options.get("assume_role"):
            cursor.execute("SELECT set_config('role', %s, false)", [options["assume_role"]])
        cursor.execute(_FACTS)
        user, name, schema, quoted_user, quoted_schema, may_create, has_tables = cursor.fetchone()
    except driver.Error as error:
        return f"the database cannot be used: {' '.join(str(error).split())}"
    finally:
        connection.close()
    if schema is None:
        return (
            f"user '{user}' may use no schema of the search path in the database '{name}'. As an administrator of the server, run in"
            f" this database: GRANT USAGE, CREATE ON SCHEMA public TO {quoted_user};"
        )
    if not may_create and not has_tables:
        return (
            f"user '{user}' may not create tables in schema '{schema}' of the database '{name}', which PostgreSQL 15 and later grant to"
            " nobody but the database's owner. As an administrator of the server, run in this database:"
            f" GRANT USAGE, CREATE ON SCHEMA {quoted_schema} TO {quoted_user};"
        )
    return None


def load_driver():
    """Return the first driver that is there, or ``None``."""
    for name in ("psycopg2", "psycopg"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def main() -> None:
    driver = load_driver()
    if driver is None:
        raise SystemExit(3)
    json.dump({"problem": problem(driver, json.load(sys.stdin))}, sys.stdout)


if __name__ == "__main__":
    main()
