#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_database
short_description: Manage the content of graphite-web's database
version_added: 2.0.0
description:
  - Upgrades the database to the schema of the installed release, and manages users and dashboards, in this order and in one
    start of the application. It does what M(metricstack.graphite.graphite_migrate), M(metricstack.graphite.graphite_user) and
    M(metricstack.graphite.graphite_dashboard) do, which take 0.5 to 2 seconds each to start it.
  - Then stores a value in each memcached of the settings and reads it back, without failing where this does not work, because
    graphite-web works without.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
  - metricstack.graphite.content.users
  - metricstack.graphite.content.dashboards
options:
  backup_directory:
    description:
      - Directory for the copy of an SQLite database that is made before it is upgraded, writable by O(run_as). Without it, the
        directory of the database. Copies are never removed by this module.
    type: path
  wsgi_script:
    description:
      - Script that a web server would load, to be loaded before anything else together with all URL patterns, so that an application
        that does not work with its packages any more is found out. Without it, neither is loaded.
    type: path
attributes:
  check_mode:
    description: Lists what is pending and what would change, and refuses what would be refused; changes nothing.
    support: full
  diff_mode:
    description: Shows the pending migrations, the users without their passwords, and what the dashboards mean.
    support: full
seealso:
  - module: metricstack.graphite.graphite_migrate
  - module: metricstack.graphite.graphite_user
  - module: metricstack.graphite.graphite_dashboard
"""

EXAMPLES = r"""
- name: Upgrade the database and manage its users
  metricstack.graphite.graphite_database:
    users:
      - name: admin
        password: "{{ vault_graphite_admin_password }}"
        superuser: true

- name: Upgrade the database and manage its dashboards
  metricstack.graphite.graphite_database:
    backup_directory: /var/backups/graphite
    dashboards:
      - name: Web shop
        graphs: [{targets: [stats.counters.shop.*.requests.rate]}]
      - name: Old shop
        state: absent
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
  description: Copy of the SQLite database as it was before the upgrade; null if none was made.
  returned: success
  type: str
  sample: /var/lib/graphite/graphite.db.20260102T030405.678901Z
users:
  description: The users as they are now (in check mode, as they would be), as M(metricstack.graphite.graphite_user) returns them.
  returned: success
  type: list
  elements: dict
  sample: [{name: admin, state: present, email: "", superuser: true, staff: true, active: true}]
dashboards:
  description:
    - What each dashboard means now (in check mode, what it would mean), as M(metricstack.graphite.graphite_dashboard) returns it.
  returned: success
  type: list
  elements: dict
  sample: [{name: Web shop, graphs: [{targets: [stats.counters.shop.*.requests.rate], options: {}}]}]
unreachable_caches:
  description: One sentence for each memcached of the settings that does not take a value or return it; none in check mode.
  returned: success
  type: list
  elements: str
  version_added: 2.1.0
  sample: ["10.0.0.5:11211 does not answer: ConnectionRefusedError: [Errno 111] Connection refused."]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.accounts import (
    USERS_SPEC,
    AccountError,
    apply_accounts,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboard_changes import (
    DASHBOARDS_SPEC,
    TargetError,
    apply_dashboards,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import DashboardError
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.upgrade import Upgrade, upgrade


def check_site(module: AnsibleModule, application: Application) -> None:
    """Load what a web server would load; without an application in check mode, there is nothing to load."""
    try:
        application.ask("check_site", wsgi_script=module.params["wsgi_script"], ask_database=False)
    except ApplicationError as error:
        if not (error.kind is Kind.NOT_INSTALLED and module.check_mode):
            raise


def upgraded(module: AnsibleModule, application: Application) -> Upgrade:
    """Upgrade the schema; without an application in check mode, everything is pending."""
    try:
        done = upgrade(application, "default", module.params["backup_directory"], module.check_mode)
    except ApplicationError as error:
        if not (error.kind is Kind.NOT_INSTALLED and module.check_mode):
            raise
        module.warn(f"Cannot list what is pending before graphite-web is installed: {error}")
        return Upgrade(["all"], [])
    if done.remaining:
        module.fail_json(msg=f"graphite-web: still pending after the migration: {', '.join(done.remaining)}", **done.result)
    return done


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "backup_directory": {"type": "path"},
            "wsgi_script": {"type": "path"},
            "users": USERS_SPEC,
            "dashboards": DASHBOARDS_SPEC,
        },
        supports_check_mode=True,
    )
    result: dict = {}
    try:
        with Application(module) as application:
            if module.params["wsgi_script"]:
                check_site(module, application)
            schema = upgraded(module, application)
            result.update(changed=bool(schema.pending) and not module.check_mode, **schema.result)
            accounts = apply_accounts(application, module.params["users"] or [], module.check_mode)
            comparisons, warnings = apply_dashboards(application, module.params["dashboards"] or [], module.check_mode)
            caches = {"unreachable": []} if module.check_mode else application.ask("check_caches")
    except (AccountError, DashboardError) as error:
        module.fail_json(msg=str(error), **result)
    except TargetError as error:
        module.fail_json(msg=str(error), kind="target", **result)
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", **error.details, **result)
    for warning in warnings:
        module.warn(warning)
    diffs = [account.diff for account in accounts if account.differs]
    diffs += [comparison.diff for comparison in comparisons if comparison.differs]
    result.update(
        changed=bool(schema.pending or diffs),
        users=[account.result for account in accounts],
        dashboards=[comparison.wanted for comparison in comparisons],
        unreachable_caches=caches["unreachable"],
    )
    module.exit_json(diff=[schema.diff] * bool(schema.pending) + diffs, **result)


if __name__ == "__main__":
    main()
