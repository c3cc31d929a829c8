#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_settings
short_description: Manage graphite-web's settings and its secret key
version_added: 2.0.0
description:
  - Writes C(local_settings.py), Django's secret key and the Python files that graphite-web loads beside them, all or none.
  - Before a file is replaced, graphite-web itself is loaded with the new content, as O(run_as) and in its own Python, with its WSGI
    script and its URL patterns, and its database is asked for its state. Settings that do not load, a database that does not
    answer, and one that is newer than the installed release are refused; graphite-web alone would go on with its default
    settings and another database. The new content travels on standard input and is in no file until it has passed.
  - Where all files have their content, the module still makes sure that graphite-web loads with them, unless O(test_unchanged) is
    false.
  - The secret key is O(secret_key), or else the one in O(secret_key_file), or else the one of a manually edited
    C(local_settings.py) unless that is weak, or else a new one. It never leaves the host.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
  - metricstack.graphite.content.settings
options:
  backup:
    description:
      - Whether to keep the old content of O(path) beside it, with the time in its name.
    type: bool
    default: true
  test_unchanged:
    description:
      - Whether to load graphite-web as well where all files have their content already.
    type: bool
    default: true
  test_database:
    description:
      - Whether graphite-web connects to the database with the new settings, and the module fails if it cannot, or if the database is newer.
    type: bool
    default: true
attributes:
  check_mode:
    description: Loads graphite-web with the new content where it is installed, and refuses what would be refused; changes nothing.
    support: full
  diff_mode:
    description: Shows the content of O(files); of the settings and the secret key only that they differ.
    support: full
seealso:
  - module: metricstack.graphite.graphite_settings_info
  - module: metricstack.graphite.graphite_database
"""

EXAMPLES = r"""
- name: Configure graphite-web
  metricstack.graphite.graphite_settings:
    content: "{{ lookup('ansible.builtin.template', 'local_settings.py.j2') }}"
    wsgi_script: /usr/share/graphite-web/graphite.wsgi

- name: Configure graphite-web with a secret key and a module of its own
  metricstack.graphite.graphite_settings:
    content: "{{ lookup('ansible.builtin.template', 'local_settings.py.j2') }}"
    secret_key: "{{ vault_graphite_secret_key }}"
    files:
      - path: /etc/graphite/own_finder.py
        content: "{{ lookup('ansible.builtin.file', 'own_finder.py', rstrip=false) }}"
"""

RETURN = r"""
changed_paths:
  description: Paths whose content, owner or mode was changed (in check mode, would be).
  returned: success
  type: list
  elements: str
  sample: [/etc/graphite/local_settings.py]
backup_file:
  description: Copy of the settings as they were before; null if none was made.
  returned: success
  type: str
  sample: /etc/graphite/local_settings.py.4711.2026-01-02@03:04:05~
secret_key:
  description:
    - Where the secret key comes from, C(given), C(kept), C(adopted) from manually edited settings, or C(generated).
  returned: success
  type: str
  sample: kept
tested:
  description:
    - Whether graphite-web was loaded; false in check mode on a host that does not have it yet, and where O(test_unchanged) is false and
      nothing changes.
  returned: success
  type: bool
  sample: true
"""

import grp
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.settings_files import (
    SETTINGS_ARGUMENT_SPEC,
    SettingsFiles,
    read,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.files import replace_file


def load(module: AnsibleModule, files: SettingsFiles) -> bool:
    """Load the application with what is wanted; fail if it refuses, and tell whether it is there."""
    try:
        with Application(module, imports=module.params["imports"], **files.candidate) as application:
            application.ask("check_site", wsgi_script=module.params["wsgi_script"], ask_database=module.params["test_database"])
    except ApplicationError as error:
        if error.kind is Kind.NOT_INSTALLED and module.check_mode:
            module.warn(f"Cannot test the settings before graphite-web is installed: {error}")
            return False
        state = "is as it should be, but" if files.is_complete else "was left as it is:"
        module.fail_json(
            msg=f"{files.path} {state} graphite-web does not work with it. {error} In the role graphite_web, see"
            " graphite_web_database and graphite_web_settings.",
            **error.details,
        )
    return True


def attributes(module: AnsibleModule, files: SettingsFiles) -> dict[str, dict]:
    """Return owner, group and mode of each file."""
    user = pwd.getpwnam(module.params["run_as"])
    private = {"owner": user.pw_name, "group": grp.getgrgid(user.pw_gid).gr_name, "mode": "0400"}
    public = {"owner": str(os.geteuid()), "group": str(os.getegid()), "mode": "0644"}
    return {**dict.fromkeys(files.sources, public), files.path: private, files.key_path: private}


def write(module: AnsibleModule, files: SettingsFiles) -> str | None:
    """Write what differs, the settings last; return the copy of the old settings."""
    user = pwd.getpwnam(module.params["run_as"])
    differing = files.differing
    backup_file = None
    if module.params["backup"] and files.path in differing and files.current:
        backup_file = module.backup_local(files.path)
    if files.key is not None:
        replace_file(files.key_path, files.key + "\n", user.pw_uid, user.pw_gid, 0o400)
    for path, content in differing.items():
        if content is None:
            os.unlink(path)
        elif path == files.path:
            replace_file(path, content, user.pw_uid, user.pw_gid, 0o400)
        else:
            replace_file(path, content, os.geteuid(), os.getegid(), 0o644)
    return backup_file


def diff(files: SettingsFiles) -> list[dict]:
    """Return what is shown of the contents that differ."""
    secret = [files.key_path] if files.key is not None else []
    secret += [path for path in files.differing if path == files.path]
    shown = [{"prepared": f"{path}: the content differs, and may hold secrets that are not shown\n"} for path in secret]
    return shown + [
        {"before_header": path, "after_header": path, "before": read(path) or "", "after": content or ""}
        for path, content in files.differing.items()
        if path != files.path
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            **SETTINGS_ARGUMENT_SPEC,
            "backup": {"type": "bool", "default": True},
            "test_database": {"type": "bool", "default": True},
            "test_unchanged": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    files = SettingsFiles(module)
    tested = load(module, files) if module.params["test_unchanged"] or not files.is_complete else False
    changed = list(files.differing) + [files.key_path] * (files.key is not None)
    result: dict = {"tested": tested, "secret_key": files.key_origin, "diff": diff(files), "backup_file": None}
    if not module.check_mode:
        result["backup_file"] = write(module, files)
    if tested or files.is_complete:
        for path, wanted in attributes(module, files).items():
            if read(path) is not None:
                arguments = module.load_file_common_arguments({"path": path, **wanted})
                if module.set_fs_attributes_if_different(arguments, False) and path not in changed:
                    changed.append(path)
    module.exit_json(changed=bool(changed), changed_paths=changed, **result)


if __name__ == "__main__":
    main()
