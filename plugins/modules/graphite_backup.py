#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_backup
short_description: Back up whisper files, graphite-web's database and its configuration
version_added: 1.0.0
description:
  - Creates an archive C(HOST-YYYY-MM-DDTHH:MM:SS) (UTC) in a Borg repository, while carbon and graphite-web run.
  - Each whisper file is read whole while the kernel keeps writers from it (a read lease; a writer waits for a fraction of a
    millisecond), and gets the points that carbon has received and not yet written. So it holds what graphite-web would show.
  - An SQLite database is copied with SQLite's online backup, one of PostgreSQL by C(pg_dump); both copies are checked.
  - Data that has not changed since the previous backup takes no space. On the host, only the database is copied.
  - An interrupted run, for example on a full disk, leaves no backup and damages none. The next run reuses the data that it stored.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
options:
  directory:
    description:
      - Directory for the backups; may be a mount. The Borg repository is C(repository) in it.
    type: path
    default: /var/backups/graphite
  passphrase:
    description:
      - Passphrase of the repository. Without it, a new repository is not encrypted.
    type: str
  host:
    description:
      - Name of the host in the names of its backups. Without it, the host's own name.
    type: str
  whisper_directory:
    description:
      - Top of the tree of whisper files. Without it, the backup has none.
    type: path
  carbon_stopped:
    description:
      - Whether carbon does not run and is not started before the module ends. Needed only on a file system without leases,
        such as NFS.
    type: bool
    default: false
  carbonlink:
    description:
      - Query ports of the carbon instances that write to the tree, as C(ADDRESS:PORT) or C(ADDRESS:PORT:INSTANCE). Without
        any, the backup holds what has been written.
    type: list
    elements: str
    default: []
  database:
    description:
      - Whether users, dashboards, events and saved graphs are in the backup, as a dump of graphite-web's database.
    type: bool
    default: false
  configuration:
    description:
      - Files and directories to keep with it. What is not there is left out.
    type: list
    elements: path
    default: []
  keep:
    description:
      - Which backups of this host stay, as C(borg prune) takes it. Without it, all of them.
    type: dict
    suboptions:
      last:
        description: The newest, so many of them, whenever they were made.
        type: int
      hourly:
        description: The newest of each of so many hours.
        type: int
      daily:
        description: The newest of each of so many days.
        type: int
      weekly:
        description: The newest of each of so many weeks.
        type: int
      monthly:
        description: The newest of each of so many months.
        type: int
      yearly:
        description: The newest of each of so many years.
        type: int
attributes:
  check_mode:
    description: Reports a change; makes nothing.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
requirements:
  - borgbackup 1.2 or newer, as C(borg)
  - whisper (Python library), if carbon is asked for points
  - postgresql-client, if the database is one of PostgreSQL
notes:
  - The memory that the module takes is independent of the number of series. Borg takes some 100 bytes for each 64 KiB of
    different data in its repository.
  - A series whose file carbon has not created yet is not in the backup; graphite-web does not show it either.
seealso:
  - module: metricstack.graphite.graphite_restore
"""

EXAMPLES = r"""
- name: Keep a week of days
  metricstack.graphite.graphite_backup:
    whisper_directory: /var/lib/graphite/whisper
    carbonlink:
      - 127.0.0.1:7002
    database: true
    configuration:
      - /etc/carbon
      - /etc/graphite
    keep:
      daily: 7
"""

RETURN = r"""
archive:
  description: Name of the new backup; null in check mode.
  returned: success
  type: str
  sample: metrics.example.org-2026-01-02T03:04:05
manifest:
  description: What is in it, as its C(manifest.json) says; null in check mode.
  returned: success
  type: dict
  contains:
    begin:
      description: Unix time of its begin. Whatever carbon had received by then is in the backup.
      type: float
    end:
      description: Unix time of its end.
      type: float
    host:
      description: Name of the host.
      type: str
    versions:
      description: Versions of what has to do with it, by name.
      type: dict
    whisper:
      description: >-
        The tree: its C(directory), number of C(files) and their C(bytes), time of the C(newest) point; C(asked), the instances that
        were asked for points, and C(silent), those that did not answer, with the reason; the number of files that were
        C(completed) with C(points) from a cache; the first of the files that were C(damaged), which are kept as they are, and of the names
        that are no whisper files and were C(skipped). Null without one.
      type: dict
    database:
      description: The kind of the database, as C(vendor), and the names of its C(users) and C(dashboards). Null without one.
      type: dict
    configuration:
      description: Files and directories that were there.
      type: list
      elements: str
repository_bytes:
  description: Size of the repository.
  returned: success
  type: int
removed:
  description: Backups that O(keep) did not want.
  returned: success
  type: list
  elements: str
"""

import os
import platform
import re
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._backup import borg, content
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.link import CarbonLink
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.interpreter import require_library
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import tree
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import WHISPER_ERROR, version, whisper

KEEP = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def links(addresses: list[str]) -> list[CarbonLink]:
    """Return a connection for each ``ADDRESS:PORT[:INSTANCE]``. Raises ``BackupError``."""
    found = []
    for text in addresses:
        match = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d+)(:[^:]*)?", text)
        if match is None:
            raise borg.BackupError(f"carbonlink has '{text}', which is not of the form ADDRESS:PORT, such as 127.0.0.1:7002")
        found.append(CarbonLink(match.group(1), int(match.group(2))))
    return found


def versions() -> dict[str, str]:
    """Return the versions of what is installed for this Python, or in the virtual environment."""
    found = {name: version(name) for name in ("carbon", "Django", "graphite-web", "whisper")}
    return {name: text for name, text in found.items() if text}


def write_whisper(module: AnsibleModule, stream: content.Stream) -> dict | None:
    directory = module.params["whisper_directory"]
    if directory is None:
        return None
    top = tree.open_tree(directory)
    try:
        with tree.locked(top):
            copy = content.WhisperCopy(top, links(module.params["carbonlink"]), whisper, leases=not module.params["carbon_stopped"])
            copy.write(stream)
    finally:
        os.close(top)
    return {
        "directory": directory,
        **copy.figures,
        "asked": [name for name in copy.asked if name not in copy.silent],
        "silent": copy.silent,
        "damaged": copy.damaged,
        "skipped": copy.skipped,
    }


def write_database(module: AnsibleModule, stream: content.Stream) -> dict | None:
    if not module.params["database"]:
        return None
    # A file without a name, which needs no removal.
    with tempfile.TemporaryFile(dir=module.params["directory"]) as copy:
        with Application(module, descriptor=copy.fileno()) as application:
            reply = application.ask("dump", descriptor=copy.fileno())
        stream.add_open_file(content.DATABASE, copy)
    return reply


def write_configuration(module: AnsibleModule, stream: content.Stream) -> list[str]:
    there = [path for path in module.params["configuration"] if os.path.lexists(path)]
    for path in there:
        stream.add_configuration(path)
    return there


def back_up(module: AnsibleModule) -> dict:
    directory, host = module.params["directory"], module.params["host"] or platform.node()
    keep = {name: number for name, number in (module.params["keep"] or {}).items() if number is not None}
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with borg.opened(directory, module.params["passphrase"]) as backups:
        backups.prepare()
        begin = time.time()
        name = borg.archive_name(host, begin)
        with backups.write(name) as target:
            stream = content.Stream(target)
            manifest = {
                "host": host,
                "begin": begin,
                "versions": versions(),
                "configuration": write_configuration(module, stream),
                "database": write_database(module, stream),
                "whisper": write_whisper(module, stream),
                "end": time.time(),
            }
            stream.add(content.MANIFEST, content.manifest_bytes(manifest))
            stream.close()
        try:
            removed = backups.remove(host, keep)
        except (borg.BackupError, OSError) as error:
            module.fail_json(
                msg=f"{name} was made, but what is not to be kept could not be removed: {error}",
                changed=True,
                archive=name,
                manifest=manifest,
            )
        return {
            "archive": name,
            "manifest": manifest,
            "repository_bytes": backups.size(),
            "removed": removed,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "directory": {"type": "path", "default": "/var/backups/graphite"},
            "passphrase": {"type": "str", "no_log": True},
            "host": {"type": "str"},
            "whisper_directory": {"type": "path"},
            "carbon_stopped": {"type": "bool", "default": False},
            "carbonlink": {"type": "list", "elements": "str", "default": []},
            "database": {"type": "bool", "default": False},
            "configuration": {"type": "list", "elements": "path", "default": []},
            "keep": {"type": "dict", "options": {name: {"type": "int"} for name in KEEP}},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, archive=None, manifest=None, repository_bytes=0, removed=[])
    if module.params["carbonlink"]:
        require_library(module, "whisper", WHISPER_ERROR)
    try:
        result = back_up(module)
    except tree.LeaseTimeoutError as error:
        module.fail_json(
            msg=f"There is no new backup, and those before are as they were: {error}. Find out who writes to it, and run again."
        )
    except tree.LeaseError as error:
        module.fail_json(
            msg=f"whisper_directory is {module.params['whisper_directory']}: {error}. A file could be copied while carbon writes to it."
            " Stop carbon and set carbon_stopped to true.",
        )
    except tree.TreeBusyError:
        module.fail_json(msg=f"Another run is at work on {module.params['whisper_directory']}; wait until it has ended.")
    except ApplicationError as error:
        module.fail_json(msg=f"graphite-web: {error}", **error.details)
    except (borg.BackupError, OSError) as error:
        module.fail_json(msg=f"There is no new backup, and those before are as they were: {error}")
    silent = (result["manifest"]["whisper"] or {}).get("silent", {})
    for reason in silent.values():
        module.warn(f"carbon was not asked for what it had not written yet ({reason}). If it ran, its last points are not in the backup.")
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
