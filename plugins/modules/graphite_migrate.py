#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_migrate
short_description: Upgrade graphite-web's database to the schema of the installed release
version_added: 1.0.0
description:
  - Asks Django which migrations the database lacks, and applies them.
  - An SQLite database is copied before it is changed. If a migration fails, the database is restored as it was, the
    module fails, and the next run tries again. With other engines, what was applied before the failure stays.
  - Tables that are there without a record of the migrations that make them, as old releases left them, are adopted. What
    such a release did not know yet, tables or columns, is made by Django's schema editor with its indexes and defaults; no
    row is dropped or changed. Tables that cannot be completed without a loss, or with rows that a new column has no default
    for, are refused.
  - A database that is newer than the installed release is not touched; the module fails.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
options:
  database:
    description:
      - The database, by its name in Django's setting C(DATABASES).
    type: str
    default: default
  backup_directory:
    description:
      - Directory for the copy of an SQLite database, writable by O(run_as). Without it, the directory of the database. Copies
        are named after the database and the time, and are never removed by this module.
    type: path
attributes:
  check_mode:
    description: Lists what is pending; creates no file, not even an empty database.
    support: full
  diff_mode:
    description: Shows the pending migrations before and after.
    support: full
seealso:
  - module: metricstack.graphite.graphite_database
  - module: metricstack.graphite.graphite_database_move
"""

EXAMPLES = r"""
- name: Upgrade the database
  metricstack.graphite.graphite_migrate:

- name: List what is pending
  metricstack.graphite.graphite_migrate:
  check_mode: true
  register: migration

- name: Keep backup copies in a directory of their own
  metricstack.graphite.graphite_migrate:
    backup_directory: /var/backups/graphite
"""

RETURN = r"""
pending:
  description: Migrations that the database lacked, in the order in which they apply, as C(app.name).
  returned: success
  type: list
  elements: str
  sample: [dashboard.0001_initial]
applied:
  description: Migrations that were run.
  returned: success
  type: list
  elements: str
  sample: [dashboard.0001_initial]
faked:
  description: Migrations that were only recorded, because their tables were there.
  returned: success
  type: list
  elements: str
  sample: [auth.0001_initial]
completed:
  description: What was made for migrations whose tables were there in part, by migration; they are among RV(faked) as well.
  returned: success
  type: dict
  sample: {dashboard.0001_initial: [table dashboard_template]}
backup_file:
  description: Copy of the SQLite database as it was before; null if none was made.
  returned: success
  type: str
  sample: /var/lib/graphite/graphite.db.20260102T030405.678901Z
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.upgrade import Upgrade, upgrade


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "database": {"type": "str", "default": "default"},
            "backup_directory": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        with Application(module) as application:
            done = upgrade(application, module.params["database"], module.params["backup_directory"], module.check_mode)
    except ApplicationError as error:
        if error.kind is Kind.NOT_INSTALLED and module.check_mode:
            module.warn(f"Cannot list what is pending before graphite-web is installed: {error}")
            module.exit_json(changed=True, **Upgrade([], []).result)
        module.fail_json(msg=f"graphite-web: {error}", **error.details)
    if done.remaining:
        module.fail_json(msg=f"graphite-web: still pending after the migration: {', '.join(done.remaining)}", **done.result)
    module.exit_json(changed=bool(done.pending), diff=done.diff, **done.result)


if __name__ == "__main__":
    main()
