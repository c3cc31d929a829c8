#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_restore
short_description: Restore whisper files, graphite-web's database and its secret key
version_added: 1.0.0
description:
  - Restores a backup that M(metricstack.graphite.graphite_backup) has created. Existing data on the host is renamed, not deleted.
  - The whisper files are first extracted to a directory next to the tree, which then replaces the tree by a rename. If the disk
    becomes full or the run is killed, the old tree remains. The next run continues from any state.
  - A host that holds newer data is refused.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.django
options:
  directory:
    description:
      - Directory from whose C(repository) the backup is read, as M(metricstack.graphite.graphite_backup) has it.
    type: path
    default: /var/backups/graphite
  passphrase:
    description:
      - Passphrase by which Borg decrypts the repository. Not needed for one that is not encrypted.
    type: str
  host:
    description:
      - Name of the host whose backup it is. Without it, the host's own name.
    type: str
  archive:
    description:
      - Name of the backup. Without it, the newest of O(host).
    type: str
  whisper_directory:
    description:
      - Top of the tree of whisper files, whose parent is there; not a mount point. Without it, no whisper files are restored.
    type: path
  database:
    description:
      - Whether the database is restored. It must be of the same kind as that of the backup, and not of an older release of
        graphite-web.
    type: bool
    default: false
  secret_key_file:
    description:
      - File that gets the secret key of the backup. Without it, the key that is there stays.
    type: path
  state:
    description:
      - V(extracted) only extracts the whisper files to the directory next to the tree, which may take long and needs nothing to be
        stopped. V(restored) does that too, unless it is done, and then puts everything in place; carbon and graphite-web must
        not run meanwhile.
    type: str
    choices: [extracted, restored]
    default: restored
  force:
    description:
      - Whether a host that holds newer data gets the backup, too.
    type: bool
    default: false
  own_series:
    description:
      - Regular expressions for the names of series that do not count as newer data, because a fresh host has them.
    type: list
    elements: str
    default:
      - ^carbon\.
  expected_users:
    description:
      - Users of graphite-web that do not count as newer data, because they are provided anyway.
    type: list
    elements: str
    default: []
  expected_dashboards:
    description:
      - Dashboards that do not count as newer data, because they are provided anyway.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Looks at the backup and at the host, refuses what would be refused, and changes nothing.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
requirements:
  - borgbackup 1.2 or newer, as C(borg)
  - postgresql-client, if the database is one of PostgreSQL
notes:
  - The configuration of the backup is put into C(restored/configuration) in O(directory), for reference.
  - In check mode, on a host that has no Borg or no backups yet, the module reports that it would change something.
seealso:
  - module: metricstack.graphite.graphite_backup
"""

EXAMPLES = r"""
- name: Extract the whisper files while carbon runs
  metricstack.graphite.graphite_restore:
    host: metrics.example.org
    whisper_directory: /var/lib/graphite/whisper
    state: extracted

- name: Restore the extracted files, the users and the dashboards
  metricstack.graphite.graphite_restore:
    host: metrics.example.org
    whisper_directory: /var/lib/graphite/whisper
    database: true
    secret_key_file: /etc/graphite/secret_key
"""

RETURN = r"""
archive:
  description: Name of the backup; null in check mode if there is none yet.
  returned: success
  type: str
manifest:
  description: What is in it, as M(metricstack.graphite.graphite_backup) returned it; null in check mode if there is none yet.
  returned: success
  type: dict
newer:
  description: What the host holds that the backup does not, one sentence for each kind.
  returned: success
  type: list
  elements: str
aside:
  description:
    - Paths to which the previous data of the host was renamed, by C(whisper), C(database) and C(secret_key); what did not exist is left
      out.
  returned: success
  type: dict
configuration:
  description: Directory with the configuration of the backup; null unless O(state=restored).
  returned: success
  type: str
"""

import contextlib
import datetime
import itertools
import json
import os
import platform
import re
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._backup import borg, content
from ansible_collections.metricstack.graphite.plugins.module_utils._backup.borg import Archive, BackupError, Backups
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import (
    DJANGO_ARGUMENT_SPEC,
    Application,
    ApplicationError,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.accounts import GRAPHITE_WEB_USER
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import tree

STAGE = ".graphite-restore"


class Restore:
    """One backup on its way to this host."""

    def __init__(self, module: AnsibleModule, backups: Backups, archive: Archive) -> None:
        self._module = module
        self._backups = backups
        self.archive = archive
        try:
            self.manifest = json.loads(backups.read(archive, content.MANIFEST))
        except ValueError as error:
            raise BackupError(f"{archive.name} has no {content.MANIFEST}; it was not created by graphite_backup") from error
        self.aside: dict[str, str] = {}
        self._stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        self._whisper = os.path.realpath(module.params["whisper_directory"]) if module.params["whisper_directory"] else None
        self._database = module.params["database"]

    def refuse_impossible(self) -> None:
        if self._whisper:
            if self.manifest["whisper"] is None:
                raise BackupError(f"{self.archive.name} has no whisper files; leave whisper_directory out, or choose another backup")
            if os.path.ismount(self._whisper):
                raise BackupError(
                    f"whisper_directory is {self._whisper}, a mount point, which cannot be renamed; mount the directory above it instead"
                )
        if self._database and self.manifest["database"] is None:
            raise BackupError(f"{self.archive.name} has no database; set database to false, or choose another backup")

    def newer(self) -> list[str]:
        """Return what the host holds that the backup does not."""
        found = []
        if self._whisper and os.path.isdir(self._whisper):
            top = tree.open_tree(self._whisper)
            own = [re.compile(pattern) for pattern in self._module.params["own_series"]]
            series = content.newer_series(top, self.manifest["end"], own)
            examples = list(itertools.islice(series, 5))
            number = len(examples) + sum(1 for _path in series)
            os.close(top)
            if number:
                found.append(f"{number} series in {self._whisper} have newer points ({', '.join(examples)}{', …' * (number > 5)})")
        if self._database:
            reply = self._names()
            for kind in ("users", "dashboards"):
                known = {*self.manifest["database"][kind], *self._module.params[f"expected_{kind}"], GRAPHITE_WEB_USER}
                others = [name for name in reply[kind] if name not in known]
                if others:
                    found.append(
                        f"the database has {kind} that the backup does not know ({', '.join(others[:5])}{', …' * (len(others) > 5)})"
                    )
        return found

    def _names(self) -> dict:
        try:
            with Application(self._module) as application:
                reply = application.ask("read_names")
        except ApplicationError as error:
            # A damaged database is a reason to restore one; one that does not answer may hold anything.
            damaged = error.kind is Kind.DATABASE and re.search("malformed|not a database", str(error))
            if error.kind is Kind.NO_SCHEMA or damaged or (error.kind is Kind.NOT_INSTALLED and self._module.check_mode):
                return {"users": [], "dashboards": []}
            raise
        if reply["vendor"] != self.manifest["database"]["vendor"]:
            raise BackupError(
                f"the database of the backup is of the kind '{self.manifest['database']['vendor']}',"
                f" and that of the host '{reply['vendor']}'; let graphite_web_database name the same kind"
            )
        return reply

    def extract_whisper(self) -> None:
        """Have the whole tree beside the one that is there."""
        if self._whisper is None:
            return
        with self._stage() as stage:
            if tree.exists(self.archive.id, stage):
                return
            _clear(stage)
            free = os.fstatvfs(stage).f_bavail * os.fstatvfs(stage).f_frsize
            needed = self.manifest["whisper"]["bytes"]
            if free < needed:
                raise BackupError(
                    f"{os.path.dirname(self._whisper)} has {free >> 20} MiB free, and the whisper files take {needed >> 20} MiB; make room"
                )
            try:
                os.mkdir("partial", 0o700, dir_fd=stage)
                partial = os.open("partial", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage)
                try:
                    self._backups.extract(self.archive, [content.WHISPER], partial)
                    os.sync()  # the rename below must not come to the disk before them
                    os.rename(content.WHISPER, self.archive.id, src_dir_fd=partial, dst_dir_fd=stage)
                finally:
                    os.close(partial)
                os.rmdir("partial", dir_fd=stage)
            except BaseException:
                _clear(stage)
                raise

    def put_in_place(self) -> str:
        """Put everything in place, the database first, and return where the configuration is."""
        restored = os.path.join(self._module.params["directory"], "restored")
        shutil.rmtree(restored, ignore_errors=True)
        os.mkdir(restored, 0o700)
        paths = [content.MANIFEST]
        paths += [content.CONFIGURATION] if self.manifest["configuration"] else []
        paths += [content.DATABASE] if self._database else []
        target = os.open(restored, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._backups.extract(self.archive, paths, target)
        finally:
            os.close(target)
        if self._database:
            self._load_database(os.path.join(restored, content.DATABASE))
        configuration = os.path.join(restored, content.CONFIGURATION)
        if self._module.params["secret_key_file"]:
            self._put_secret_key(configuration + self._module.params["secret_key_file"], self._module.params["secret_key_file"])
        self._put_whisper()
        return configuration

    def _load_database(self, copy: str) -> None:
        dump = None
        if self.manifest["database"]["vendor"] != "sqlite":
            dump = os.path.join(self._module.params["directory"], f"database.before-restore-{self._stamp}")
            with open(dump, "w+b", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
                self._ask("dump", target.fileno())
        try:
            with open(copy, "rb") as source:
                aside = self._ask("load", source.fileno())["aside"] or dump
        except ApplicationError:
            if dump:
                os.unlink(dump)  # the database is as it was
            raise
        if aside:
            self.aside["database"] = aside
        shutil.rmtree(os.path.dirname(copy))

    def _ask(self, action: str, descriptor: int) -> dict:
        with Application(self._module, descriptor=descriptor) as application:
            return application.ask(action, descriptor=descriptor)

    def _put_secret_key(self, copy: str, path: str) -> None:
        if not os.path.exists(copy) or (os.path.exists(path) and _content(copy) == _content(path)):
            return
        if os.path.exists(path):
            self.aside["secret_key"] = self._module.backup_local(path)
        candidate = os.path.join(self._module.tmpdir, "secret_key")
        status = os.stat(copy)
        shutil.copy2(copy, candidate)
        os.chown(candidate, status.st_uid, status.st_gid)
        self._module.atomic_move(candidate, path)

    def _put_whisper(self) -> None:
        if self._whisper is None:
            return
        parent, name = os.path.split(self._whisper)
        with contextlib.ExitStack() as stack:
            above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, above)
            stage = stack.enter_context(self._stage())
            if tree.exists(name, above):
                top = tree.open_tree(self._whisper)
                stack.callback(os.close, top)
                stack.enter_context(tree.locked(top))
                aside = f"{name}.before-restore-{self._stamp}"
                os.rename(name, aside, src_dir_fd=above, dst_dir_fd=above)
                self.aside["whisper"] = os.path.join(parent, aside)
            os.rename(self.archive.id, name, src_dir_fd=stage, dst_dir_fd=above)

    @contextlib.contextmanager
    def _stage(self):
        """Open the directory beside the tree that is only root's, whoever owns the directory above."""
        if self._whisper is None:
            raise ValueError("a stage is only for a tree of whisper files")
        path = os.path.join(os.path.dirname(self._whisper), STAGE)
        for _attempt in range(2):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            stage = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            status = os.fstat(stage)
            if status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                break
            # Left by a run that was killed, and given to the application since.
            os.close(stage)
            shutil.rmtree(path)
        else:
            raise BackupError(f"{path} belongs to another user; remove it")
        try:
            yield stage
        finally:
            os.close(stage)
            with contextlib.suppress(OSError):  # it holds what the next run needs
                os.rmdir(path)


def _clear(directory: int) -> None:
    for name in os.listdir(directory):
        shutil.rmtree(f"/proc/self/fd/{directory}/{name}")


def _content(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def choose(backups: Backups, host: str, name: str | None, check_mode: bool) -> Archive:
    """Return the backup of this name, or the newest of the host. Raises ``BackupError``."""
    if not backups.exists:
        raise BackupError(f"{backups.repository} does not exist; copy the backups to this directory")
    if not check_mode:
        backups.release()
    archives = backups.archives(host)
    if name is None and archives:
        return archives[-1]
    for archive in archives:
        if archive.name == name:
            return archive
    if archives:
        raise BackupError(f"archive is '{name}'; the backups of {host} are {', '.join(archive.name for archive in archives)}")
    raise BackupError(f"{backups.repository} has no backup of {host}, only of: {', '.join(backups.hosts()) or 'no host'}")


def restore(module: AnsibleModule, aside: dict[str, str]) -> dict:
    with borg.opened(module.params["directory"], module.params["passphrase"]) as backups:
        work = Restore(
            module, backups, choose(backups, module.params["host"] or platform.node(), module.params["archive"], module.check_mode)
        )
        work.aside = aside
        work.refuse_impossible()
        newer = work.newer()
        if newer and not module.params["force"]:
            raise BackupError(
                f"the host holds newer data than {work.archive.name}: {'; '.join(newer)}."
                " Set force (in restore.yml, graphite_restore_force) to true to rename that and restore nevertheless"
            )
        configuration = None
        if not module.check_mode:
            work.extract_whisper()
            if module.params["state"] == "restored":
                configuration = work.put_in_place()
        return {
            "archive": work.archive.name,
            "manifest": work.manifest,
            "newer": newer,
            "aside": work.aside,
            "configuration": configuration,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DJANGO_ARGUMENT_SPEC,
            "directory": {"type": "path", "default": "/var/backups/graphite"},
            "passphrase": {"type": "str", "no_log": True},
            "host": {"type": "str"},
            "archive": {"type": "str"},
            "whisper_directory": {"type": "path"},
            "database": {"type": "bool", "default": False},
            "secret_key_file": {"type": "path", "no_log": False},
            "state": {"type": "str", "choices": ["extracted", "restored"], "default": "restored"},
            "force": {"type": "bool", "default": False},
            "own_series": {"type": "list", "elements": "str", "default": [r"^carbon\."]},
            "expected_users": {"type": "list", "elements": "str", "default": []},
            "expected_dashboards": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not (shutil.which("borg") and os.path.isdir(os.path.join(module.params["directory"], "repository"))):
        module.warn(f"Cannot look for backups before borgbackup is installed and {module.params['directory']} has some")
        module.exit_json(changed=True, archive=None, manifest=None, newer=[], aside={}, configuration=None)
    aside: dict[str, str] = {}

    def fail(message: str, **details: object) -> None:
        done = "".join(f" {name} is restored already; what was there before is {path}." for name, path in aside.items())
        module.fail_json(msg=message + done, changed=bool(aside), aside=aside, **details)

    try:
        result = restore(module, aside)
    except tree.TreeBusyError:
        fail(f"Another run is at work on {module.params['whisper_directory']}; wait until it has ended.")
    except ApplicationError as error:
        fail(f"graphite-web: {error}", **error.details)
    except (BackupError, tree.LeaseError, OSError) as error:
        fail(f"Not restored: {error}")
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
