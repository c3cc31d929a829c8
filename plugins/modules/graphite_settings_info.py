#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_settings_info
short_description: Gather information about graphite-web's settings on a host
version_added: 2.0.0
description:
  - Compares C(local_settings.py) with the content that M(metricstack.graphite.graphite_settings) is to write, and returns what a
    manually edited file would lose. The file is read and not run.
  - Finds out whether graphite-web could use the database and, where it is installed and the content differs, whether it loads with
    the new settings. What stands in the way is in RV(problems); the module does not fail because of it.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
  - metricstack.graphite.django.database
  - metricstack.graphite.content.settings
options:
  database:
    description:
      - The database that was chosen, as an entry of Django's setting C(DATABASES). Without it, manually edited settings with another
        database than that in O(content) are a problem, because users and dashboards are in the other one.
      - For PostgreSQL, a connection is made as the user of the database. Where the driver is not installed yet, the distribution's
        is downloaded and unpacked into a directory that is removed afterwards.
    type: dict
  directory:
    description:
      - The LDAP directory of graphite-web's users. It is asked as graphite-web would; one that cannot be reached is a warning.
    type: dict
    version_added: 2.1.0
    suboptions:
      uri:
        description: Address, or several with a space between.
        type: str
        required: true
      start_tls:
        description: Whether a connection that begins without encryption is encrypted by STARTTLS before a password is sent.
        type: bool
        required: true
      ca_certificate:
        description: Path of the certificates of authorities by which the directory is trusted.
        type: path
        required: true
      bind_dn:
        description: Who looks users up; nobody if empty.
        type: str
        required: true
      bind_password:
        description: Password by which C(bind_dn) logs in to the directory.
        type: str
        required: true
      user_base:
        description: Entry of the directory below which a user is looked up.
        type: str
        required: true
      user_filter:
        description: LDAP filter that finds the entry of a user, with C(%(user\)s) in place of the login name.
        type: str
        required: true
      group_base:
        description: Entry above the groups; none if empty.
        type: str
        required: true
      required_group:
        description: Group whose members may log in; everybody if empty.
        type: str
        required: true
      staff_group:
        description: Group whose members are staff; none if empty.
        type: str
        required: true
      superuser_group:
        description: Group whose members are superusers; none if empty.
        type: str
        required: true
      timeout:
        description: Seconds to wait for each answer.
        type: int
        required: true
attributes:
  check_mode:
    description: Changes nothing, in either mode.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: N/A
seealso:
  - module: metricstack.graphite.graphite_settings
  - module: metricstack.graphite.graphite_database_move
"""

EXAMPLES = r"""
- name: Examine the settings of graphite-web
  metricstack.graphite.graphite_settings_info:
    content: "{{ lookup('ansible.builtin.template', 'local_settings.py.j2') }}"
  register: examined

- name: Find out whether a database can be used
  metricstack.graphite.graphite_settings_info:
    content: "{{ lookup('ansible.builtin.template', 'local_settings.py.j2') }}"
    database:
      ENGINE: django.db.backends.postgresql
      NAME: graphite
      USER: graphite
      PASSWORD: "{{ vault_graphite_database_password }}"
      HOST: db.example.org
"""

RETURN = r"""
problems:
  description: What stands in the way, with what to do about it.
  returned: success
  type: list
  elements: str
  sample:
    - "graphite_web_database: user 'graphite' may not create tables in schema 'public' of the database 'graphite', ..."
manual:
  description: Whether the settings have been edited manually.
  returned: success
  type: bool
  sample: true
readable:
  description: Whether manually edited settings are valid Python.
  returned: success
  type: bool
  sample: true
lost:
  description: Names of the manually edited settings that have another value afterwards.
  returned: success
  type: list
  elements: str
  sample: [DEBUG, TIME_ZONE]
weak_secret_key:
  description: Whether manually edited settings have a secret key that is short or looks like a known default.
  returned: success
  type: bool
  sample: false
manual_database:
  description: The database of manually edited settings where it is another one; null if it is not.
  returned: success
  type: str
  sample: django.db.backends.sqlite3, /opt/graphite/storage/graphite.db
database_changes:
  description: Whether there are settings, and they name another database than O(content), or this is known only by running them.
  returned: success
  type: bool
  sample: false
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite import (
    client_check,
    directory_client,
    manual_settings,
    postgresql_check,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DATABASE_ARGUMENT_SPEC,
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.settings_files import SETTINGS_ARGUMENT_SPEC, SettingsFiles

_TYPES = {"start_tls": "bool", "timeout": "int", "ca_certificate": "path"}
DIRECTORY_ARGUMENT_SPEC = {
    "bind_password": {"type": "str", "required": True, "no_log": True},
    **{
        key: {"type": _TYPES.get(key, "str"), "required": True}
        for key in ("uri", "start_tls", "ca_certificate", "bind_dn", "user_base", "user_filter", "group_base", "timeout")
    },
    **{key: {"type": "str", "required": True} for key in ("required_group", "staff_group", "superuser_group")},
}


def manual_problem(module: AnsibleModule, files: SettingsFiles) -> str | None:
    """Return what is wrong with manually edited settings that name a database of their own."""
    if files.manual.database is None or module.params["database"] is not None:
        return None
    new = ", ".join(manual_settings.database_address(manual_settings.assignments(module.params["content"])))
    return (
        f"{files.path}, edited manually, has users and dashboards in {files.manual.database}, but graphite_web_database is empty,"
        f" which is {new}. Describe the database to use in graphite_web_database."
    )


def database_problem(module: AnsibleModule) -> str | None:
    """Return why graphite-web could not use the database."""
    database = module.params["database"] or {}
    engine = str(database.get("ENGINE", ""))
    if "postgresql" in engine:
        try:
            problem = postgresql_check.problem(database, module.params["python"], module.params["run_as"])
        except client_check.CheckError as error:
            module.warn(f"The database '{database.get('NAME')}' cannot be examined before the first change: {error}")
            return None
        return problem and f"graphite_web_database: {problem}"
    if "sqlite3" in engine:
        return sqlite_problem(str(database.get("NAME", "")))
    return None


def sqlite_problem(path: str) -> str | None:
    """Return why a file cannot be an SQLite database."""
    if os.path.isdir(path):
        return f"graphite_web_database: {path} is a directory; name the file of the database in it."
    if os.path.exists(path) and os.path.getsize(path):
        with open(path, "rb") as stream:
            if stream.read(16) != b"SQLite format 3\0":
                return f"graphite_web_database: {path} is not a database of SQLite; name another file, or move that one away."
    directory = os.path.dirname(path)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        return f"graphite_web_database: {directory} is not a directory, so that {path} cannot be in it; name another file."
    return None


def directory_problem(module: AnsibleModule) -> str | None:
    """Return why users of the LDAP directory could not log in."""
    directory = module.params["directory"]
    if not directory:
        return None
    python, user = module.params["python"], module.params["run_as"]
    try:
        answer, _account = client_check.answer(directory_client, "python3-ldap", directory, python, user)
    except client_check.CheckError as error:
        module.warn(f"The directory {directory['uri']} cannot be examined before the first change: {error}")
        return None
    if answer["away"]:
        module.warn(f"graphite_web_auth: ldap: {answer['away']}. Nobody of the directory can log in until it can be.")
    return answer["problem"] and f"graphite_web_auth: ldap: {answer['problem']}"


def settings_problem(module: AnsibleModule, files: SettingsFiles) -> str | None:
    """Return why graphite-web does not work with the new settings, as far as it is installed."""
    if files.is_complete or not os.path.exists(module.params["python"]):
        return None
    try:
        with Application(module, imports=module.params["imports"], **files.candidate) as application:
            application.ask("check_site", wsgi_script=module.params["wsgi_script"], ask_database=True)
    except ApplicationError as error:
        # What else is in the way may be remedied by the installation, or by giving files to the user.
        if error.kind in (Kind.SETTINGS, Kind.NEWER_DATABASE):
            return f"graphite_web_settings: {error}"
    return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            **SETTINGS_ARGUMENT_SPEC,
            "database": {"type": "dict", "options": DATABASE_ARGUMENT_SPEC},
            "directory": {"type": "dict", "options": DIRECTORY_ARGUMENT_SPEC},
        },
        supports_check_mode=True,
    )
    files = SettingsFiles(module)
    problems = [manual_problem(module, files), database_problem(module), directory_problem(module)]
    if not any(problems):
        problems.append(settings_problem(module, files))
    module.exit_json(
        changed=False,
        problems=[problem for problem in problems if problem],
        manual=files.manual.manual,
        readable=files.manual.readable,
        lost=files.manual.lost,
        weak_secret_key=files.manual.weak_secret_key,
        manual_database=files.manual.database,
        database_changes=files.current is not None and not manual_settings.same_database(files.current, module.params["content"]),
    )


if __name__ == "__main__":
    main()
