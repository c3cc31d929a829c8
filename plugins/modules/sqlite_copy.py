#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_copy
short_description: Begin an SQLite database with the content of another one
version_added: 2.1.0
description:
  - Copies an SQLite database, which others may read and write meanwhile, to a file that does not exist yet. The copy is examined for damage
    before it gets its name. The database that is copied stays as it is.
  - The file O(marker) says then what has been copied, by which later runs know that there is nothing left to copy, whatever the copy has
    become and wherever it has gone.
author:
  - metricstack maintainers (@metricstack)
options:
  source:
    description: Absolute path of the database to copy.
    type: path
    required: true
  path:
    description:
      - Absolute path of the copy, in a directory that exists. A file that is there and was not made by this module ends the task.
    type: path
    required: true
  owner:
    description: User and group that own the copy.
    type: str
    required: true
  marker:
    description: Absolute path of the file that says what has been copied, in a directory in which root alone creates files.
    type: path
    required: true
attributes:
  check_mode:
    description: Says whether the database would be copied; copies nothing.
    support: full
  diff_mode:
    description: Shows where the content comes from.
    support: full
seealso:
  - module: metricstack.graphite.graphite_database_move
"""

EXAMPLES = r"""
- name: Begin with the users and dashboards of an earlier installation
  metricstack.graphite.sqlite_copy:
    source: /opt/graphite/storage/graphite.db
    path: /var/lib/graphite/graphite.db
    owner: _graphite
    marker: /etc/graphite/adopted

- name: Copy the database of an application to a new place
  metricstack.graphite.sqlite_copy:
    source: /srv/old/application.db
    path: /srv/new/application.db
    owner: application
    marker: /etc/application/adopted
"""

RETURN = r"""
path:
  description: Path of the copy.
  returned: success
  type: str
  sample: /var/lib/graphite/graphite.db
"""

import os
import sqlite3

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import RefusalError
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.sqlite import copy_database, refuse_damage, remove
from ansible_collections.metricstack.graphite.plugins.module_utils._host import earlier


def copy(module: AnsibleModule, source: str, path: str, owner: str) -> None:
    os.umask(0o077)  # it has passwords
    incoming = f"{path}.incoming"
    try:
        remove(incoming)
        copy_database(source, incoming)
        refuse_damage(incoming)
        module.set_owner_if_different(incoming, owner, False)
        module.set_group_if_different(incoming, owner, False)
        module.set_mode_if_different(incoming, "0640", False)
        os.rename(incoming, path)
        with open(module.params["marker"], "w", encoding="utf-8") as stream:
            stream.write(f"{source}\n")
    finally:
        remove(incoming)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "marker": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    source, path = module.params["source"], module.params["path"]
    is_copied = earlier.is_adopted(module.params["marker"], source) or earlier.same_file(source, path)
    if not is_copied and os.path.exists(path):
        module.fail_json(msg=f"{path} exists already, so that {source} cannot be copied there. Move {path} away.")
    if not is_copied and not os.path.isfile(source):
        module.fail_json(msg=f"{source} is no file. Name an SQLite database.")
    if not is_copied and not module.check_mode:
        try:
            copy(module, source, path, module.params["owner"])
        except (OSError, sqlite3.Error, RefusalError) as error:
            module.fail_json(msg=f"{source} could not be copied to {path}: {error}. Nothing was changed.")
    after = {"path": path, "content": f"that of {source}"}
    module.exit_json(changed=not is_copied, path=path, diff={"before": after if is_copied else {}, "after": after})


if __name__ == "__main__":
    main()
