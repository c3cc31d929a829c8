#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_database_move
short_description: Copy the content of graphite-web's database to another database
version_added: 1.0.0
description:
  - Copies users, permissions, dashboards with their owners, events, saved graphs, tags, short URLs and sessions, with their
    keys, from the database that graphite-web's settings name to O(database), which gets the schema of the installed release.
    Passwords, links and logins stay valid.
  - Everything is copied, or nothing. In PostgreSQL, it is one transaction; an SQLite file takes its place when it is whole.
  - The database in use stays as it is, and in use. Let the settings name the other one, and have graphite-web reloaded;
    what graphite-web writes between the copy and that is in the old database only.
  - If there is nothing to copy because the database in use has no content, or because it is the same one, the module only
    checks that O(database) can be used.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
  - metricstack.graphite.django.database
options:
  database:
    description:
      - The other database, as an entry of Django's setting C(DATABASES). SQLite and PostgreSQL are known.
      - A database with content of its own is refused. Only an SQLite file whose content this module has moved elsewhere before
        (there is a file with C(.moved) at the end of its name beside it) is renamed, and what a run that ended early has left
        is replaced.
    type: dict
    required: true
attributes:
  check_mode:
    description: Counts what would be copied, refuses what would be refused, and changes nothing.
    support: full
  diff_mode:
    description: Shows both databases and the number of rows in them.
    support: full
requirements:
  - psycopg2 (Python library), for PostgreSQL
notes:
  - An SQLite file takes its own size of room twice.
seealso:
  - module: metricstack.graphite.graphite_database
  - module: metricstack.graphite.graphite_migrate
"""

EXAMPLES = r"""
- name: Copy users and dashboards to a database server
  metricstack.graphite.graphite_database_move:
    database:
      ENGINE: django.db.backends.postgresql
      NAME: graphite
      USER: graphite
      PASSWORD: "{{ vault_graphite_database_password }}"
      HOST: db.example.org

- name: Copy users and dashboards back to SQLite
  metricstack.graphite.graphite_database_move:
    database:
      ENGINE: django.db.backends.sqlite3
      NAME: /var/lib/graphite/graphite.db
"""

RETURN = r"""
source:
  description: The database in use.
  returned: success
  type: dict
  contains: &database
    engine:
      description: Database backend.
      type: str
    name:
      description: Name of the database, or path of the file.
      type: str
    host:
      description: Host of the server.
      type: str
    port:
      description: Port of the server.
      type: str
    rows:
      description: Number of rows, by model.
      type: dict
      sample:
        auth.user: 3
        dashboard.dashboard: 4
target:
  description: The other one, as it is now (in check mode, as it would be).
  returned: success
  type: dict
  contains: *database
aside:
  description: Path to which an SQLite file that was there before was renamed; null if there was none.
  returned: success
  type: str
  sample: /var/lib/graphite/graphite.db.before-move-20260102T030405.678901Z
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DATABASE_ARGUMENT_SPEC,
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind

REMEDIES = {
    Kind.CONTENT: "Name a database without content; or, in the role graphite_web, set graphite_web_database_move to false to use this one"
    " as it is and leave the other one behind.",
    Kind.NOT_INSTALLED: "Install what the backend needs, for PostgreSQL python3-psycopg2.",
    Kind.PENDING: "Use graphite_migrate, or run the role graphite_web once with graphite_web_database as it was.",
    Kind.UNREACHABLE: "See to the server, or correct database (in the role graphite_web, graphite_web_database). Nothing was changed.",
    Kind.ENGINE: "Use SQLite or PostgreSQL, or, in the role graphite_web, set graphite_web_database_move to false to start without"
    " content.",
    Kind.NEWER_DATABASE: "Nothing was changed.",
    Kind.MOVE: "Run again when the cause is gone.",
}


def database(address: dict, rows: dict) -> dict:
    return {**address, "rows": {model: number for model, number in rows.items() if number}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "database": {
                "type": "dict",
                "required": True,
                "options": DATABASE_ARGUMENT_SPEC,
            },
        },
        supports_check_mode=True,
    )
    try:
        with Application(module, target=module.params["database"]) as application:
            found = application.ask("survey")
            moved = {**found, "target_rows": found["source_rows"] if found["needed"] else found["target_rows"], "aside": None}
            if found["needed"] and not module.check_mode:
                moved = application.ask("move")
    except ApplicationError as error:
        if error.kind is Kind.NOT_INSTALLED and module.check_mode:
            module.warn(f"Cannot look into the databases before graphite-web and what its database needs are installed: {error}")
            module.exit_json(changed=True, source=None, target=None, aside=None)
        remedy = f" {REMEDIES[error.kind]}" if error.kind in REMEDIES else ""
        module.fail_json(msg=f"graphite-web: {str(error).rstrip('.')}.{remedy}", **error.details)
    source = database(found["source"], found["source_rows"])
    target = database(found["target"], moved["target_rows"])
    module.exit_json(
        changed=found["needed"],
        source=source,
        target=target,
        aside=moved["aside"],
        diff={
            "before": {"source": source, "target": database(found["target"], found["target_rows"])},
            "after": {"source": source, "target": target},
        },
    )


if __name__ == "__main__":
    main()
