#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_user
short_description: A user of graphite-web exists with these flags and this password, or does not exist
version_added: 1.0.0
description:
  - Creates, changes and deletes users in graphite-web's database.
  - The password is compared with the stored hash; one that matches is no change. It never stands in a command line, an
    environment, the output, a diff or a log.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
options:
  name:
    description:
      - Login name.
    type: str
    required: true
  password:
    description:
      - Password. Required to create a user; without it, that of an existing user stays.
    type: str
  update_password:
    description:
      - V(always) sets the password whenever it does not match; V(on_create) only for a new user.
    type: str
    choices: [always, on_create]
    default: always
  email:
    description:
      - E-mail address. Without it, that of an existing user stays; a new user has none.
    type: str
  superuser:
    description:
      - Whether the user may do everything.
    type: bool
    default: false
  staff:
    description:
      - Whether the user may enter the admin pages. Without it, as O(superuser).
    type: bool
  active:
    description:
      - Whether the user may log in.
    type: bool
    default: true
  state:
    description:
      - Whether the user exists. V(absent) deletes what belongs to the user, too.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Reports what would change; changes nothing.
    support: full
  diff_mode:
    description: Shows the flags, and whether the password matches; never the password.
    support: full
"""

EXAMPLES = r"""
- name: Provide an administrator
  metricstack.graphite.graphite_user:
    name: admin
    password: "{{ vault_graphite_admin_password }}"
    email: admin@example.org
    superuser: true

- name: Let somebody go
  metricstack.graphite.graphite_user:
    name: alice
    state: absent
"""

RETURN = r"""
user:
  description: The user as it is now (in check mode, as it would be); null if there is none.
  returned: success
  type: dict
  contains:
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
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)


def wanted_user(parameters: dict, current: dict | None) -> dict | None:
    """Return the user as the parameters describe it, or ``None`` for one that must not be there."""
    if parameters["state"] == "absent":
        return None
    email = parameters["email"]
    if email is None:
        email = current["email"] if current else ""
    staff = parameters["superuser"] if parameters["staff"] is None else parameters["staff"]
    return {"email": email, "superuser": parameters["superuser"], "staff": staff, "active": parameters["active"]}


def password_to_set(parameters: dict, current: dict | None) -> str | None:
    """Return the password that has to be stored, or ``None`` if the stored one stays."""
    if current is None:
        return parameters["password"]
    if parameters["update_password"] == "on_create" or current["password_matches"] is not False:
        return None
    return parameters["password"]


def shown(user: dict | None, password_changes: bool, after: bool) -> dict:
    """Return what a diff shows of a user."""
    if user is None:
        return {"state": "absent"}
    flags = {name: value for name, value in user.items() if name != "password_matches"}
    return {"state": "present", **flags, "password": "as given" if after or not password_changes else "other"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "no_log": True},
            "update_password": {
                "type": "str",
                "choices": ["always", "on_create"],
                "default": "always",
                "no_log": False,
            },
            "email": {"type": "str"},
            "superuser": {"type": "bool", "default": False},
            "staff": {"type": "bool"},
            "active": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    application = Application(module)
    name, password = module.params["name"], module.params["password"]
    try:
        try:
            current = application.ask("read_user", name=name, password=password)["user"]
        except ApplicationError as error:
            if not (module.check_mode and error.kind in ("not_installed", "no_schema")):
                raise
            current = None
        wanted = wanted_user(module.params, current)
        if wanted is not None and current is None and not password:
            module.fail_json(msg=f"User '{name}' does not exist yet and cannot be created without a password; give one.")
        new_password = password_to_set(module.params, current) if wanted is not None else None
        kept = {key: value for key, value in current.items() if key != "password_matches"} if current else None
        changed = kept != wanted or new_password is not None
        if changed and not module.check_mode:
            application.ask("write_user", name=name, wanted=wanted, password=new_password)
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", kind=error.kind, stderr=error.output)
    module.exit_json(
        changed=changed,
        user=wanted,
        diff={
            "before": shown(current, new_password is not None, after=False),
            "after": shown(wanted, new_password is not None, after=True),
        },
    )


if __name__ == "__main__":
    main()
