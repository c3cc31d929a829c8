#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_user
short_description: Manage graphite-web users
version_added: 1.0.0
description:
  - Creates, changes and deletes users in graphite-web's database.
  - The password is compared with the stored hash; one that matches is no change. It never stands in a command line, an
    environment, the output, a diff or a log.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
  - metricstack.graphite.content.user
  - metricstack.graphite.content.users
options:
  name:
    description:
      - Login name. Required without O(users).
    required: false
attributes:
  check_mode:
    description: Reports what would change; changes nothing.
    support: full
  diff_mode:
    description: Shows the flags, and whether the password matches; never the password.
    support: full
seealso:
  - module: metricstack.graphite.graphite_database
  - module: metricstack.graphite.graphite_dashboard
"""

EXAMPLES = r"""
- name: Provide an administrator
  metricstack.graphite.graphite_user:
    name: admin
    password: "{{ vault_graphite_admin_password }}"
    email: admin@example.org
    superuser: true

- name: Manage several users in one call
  metricstack.graphite.graphite_user:
    users:
      - name: admin
        password: "{{ vault_graphite_admin_password }}"
        superuser: true
      - name: alice
        state: absent

- name: Remove a user
  metricstack.graphite.graphite_user:
    name: alice
    state: absent
"""

RETURN = r"""
users:
  description: The users as they are now (in check mode, as they would be), in the order of the options.
  returned: success
  type: list
  elements: dict
  sample:
    - name: admin
      state: present
      email: admin@example.org
      superuser: true
      staff: true
      active: true
  contains:
    name:
      description: Login name.
      type: str
    state:
      description: Whether the user exists; an absent user has no further keys.
      type: str
    email:
      description: E-mail address.
      type: str
    superuser:
      description: Whether the user may do everything.
      type: bool
    staff:
      description: Whether the user may enter the admin pages.
      type: bool
    active:
      description: Whether the user may log in.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.accounts import (
    USER_SPEC,
    USERS_SPEC,
    AccountError,
    apply_accounts,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**DJANGO_ARGUMENT_SPEC, **USER_SPEC, "users": USERS_SPEC},
        mutually_exclusive=[("name", "users"), ("password", "password_hash")],
        required_one_of=[("name", "users")],
        supports_check_mode=True,
    )
    users = [module.params] if module.params["users"] is None else module.params["users"]
    try:
        with Application(module) as application:
            accounts = apply_accounts(application, users, module.check_mode)
    except AccountError as error:
        module.fail_json(msg=str(error))
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", **error.details)
    differing = [account for account in accounts if account.differs]
    module.exit_json(
        changed=bool(differing),
        users=[account.result for account in accounts],
        diff=[account.diff for account in differing],
    )


if __name__ == "__main__":
    main()
