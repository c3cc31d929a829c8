#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: owned_directories
short_description: Manage directories and the owner of everything in them
version_added: 2.0.0
description:
  - Makes directories that do not exist, with those above them, which belong to root, and gives them and everything in them to the
    user of a service. M(ansible.builtin.file) with O(ansible.builtin.file#module:recurse) would follow names, which the user can
    exchange for links to the files of others while root works on them.
  - Below a directory, no link is followed, and a file with more than one name is left alone. On the way to a directory, links that
    belong to root, or to the user who runs the module, are followed, and others are refused. A link is not given away itself.
author:
  - metricstack maintainers (@metricstack)
options:
  paths:
    description:
      - Absolute paths of directories that are made, and in which everything is given to the owner.
    type: list
    elements: path
    default: []
  create:
    description:
      - Further directories, which are made for the user where they do not exist, and left alone where they do.
    type: list
    elements: path
    default: []
  exclude:
    description:
      - Directories in O(paths) that are left alone with everything in them.
    type: list
    elements: path
    default: []
  owner:
    description:
      - User that everything is given to, with the user's own group.
    type: str
    required: true
  mode:
    description:
      - Permissions of a directory that is made, as an octal number.
    type: str
    default: "0750"
attributes:
  check_mode:
    description: Reports what would be made and given; changes nothing. The user does not have to exist yet.
    support: full
  diff_mode:
    description: Shows the paths that are made or given.
    support: full
seealso:
  - module: ansible.builtin.file
  - module: metricstack.graphite.config_files
"""

EXAMPLES = r"""
- name: Set the owner of graphite-web's data and logs
  metricstack.graphite.owned_directories:
    paths: [/var/lib/graphite, /var/log/graphite]
    exclude: [/var/lib/graphite/whisper]
    owner: _graphite

- name: Create a directory for an SQLite database
  metricstack.graphite.owned_directories:
    create: [/srv/graphite/database]
    owner: _graphite
    mode: "0750"
"""

RETURN = r"""
given:
  description: Paths that belonged to another user.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/graphite/graphite.db]
made:
  description: Directories that did not exist.
  returned: success
  type: list
  elements: str
  sample: [/srv/graphite/database]
"""

import errno
import os
import pwd
import stat

from ansible.module_utils.basic import AnsibleModule

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryError(Exception):
    """A path must not be followed."""


def open_directory(path: str) -> int:
    """Open a directory component by component, through links of root's only.

    Raises ``FileNotFoundError``, ``DirectoryError`` and ``OSError``.
    """
    pending = [part for part in path.split("/") if part]
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    links = 0
    try:
        while pending:
            name = pending.pop(0)
            there = os.open(name, _LOOK, dir_fd=here)
            state = os.fstat(there)
            if stat.S_ISLNK(state.st_mode):
                target = os.readlink("", dir_fd=there)
                os.close(there)
                links += 1
                if state.st_uid not in (0, os.geteuid()):
                    raise DirectoryError(f"{name} in {path} is a link that belongs to user {state.st_uid}; make it a link of root's")
                if links > 40:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                pending = [part for part in target.split("/") if part] + pending
                if not target.startswith("/"):
                    continue
                there = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            elif not stat.S_ISDIR(state.st_mode):
                os.close(there)
                raise DirectoryError(f"{name} in {path} is not a directory; move it away")
            os.close(here)
            here = there
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


class Giving:
    """What is given in one call."""

    def __init__(self, account: pwd.struct_passwd | None, check_mode: bool, exclude: list[str]) -> None:
        self._account = account
        self._check_mode = check_mode
        self._excluded = {(state.st_dev, state.st_ino) for state in map(_state, exclude) if state is not None}
        self.given: list[str] = []

    def give(self, path: str, top: int) -> None:
        """Give an open directory and everything in it."""
        self._give_one(".", path, top)
        for directory, directories, files, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            shown = os.path.normpath(os.path.join(path, directory))
            # fwalk enters those that are left in the list.
            directories[:] = [name for name in directories if self._give_one(name, os.path.join(shown, name), descriptor)]
            for name in files:
                self._give_one(name, os.path.join(shown, name), descriptor)

    def _give_one(self, name: str, shown: str, directory: int) -> bool:
        """Give one inode, which cannot be exchanged for another one meanwhile; return whether to enter it."""
        try:
            inode = os.open(name, _LOOK, dir_fd=directory)
        except FileNotFoundError:
            return False
        try:
            state = os.fstat(inode)
            if (state.st_dev, state.st_ino) in self._excluded:
                return False
            foreign = self._account is not None and state.st_uid != self._account.pw_uid
            if foreign and (stat.S_ISDIR(state.st_mode) or state.st_nlink == 1):
                self.given.append(shown)
                if not self._check_mode and self._account is not None:
                    os.chown(f"/proc/self/fd/{inode}", self._account.pw_uid, self._account.pw_gid)
            return stat.S_ISDIR(state.st_mode)
        finally:
            os.close(inode)


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def make(path: str, mode: int, account: pwd.struct_passwd | None) -> None:
    """Make a directory with those above it."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    os.mkdir(path, 0o700)
    descriptor = open_directory(path)
    try:
        if account is not None:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def find_account(module: AnsibleModule) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(module.params["owner"])
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"There is no user '{module.params['owner']}'; create the user before.")
        return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "create": {"type": "list", "elements": "path", "default": []},
            "exclude": {"type": "list", "elements": "path", "default": []},
            "owner": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0750"},
        },
        supports_check_mode=True,
    )
    account = find_account(module)
    giving = Giving(account, module.check_mode, module.params["exclude"])
    made: list[str] = []
    paths = [os.path.normpath(path) for path in module.params["paths"]]
    for path in dict.fromkeys([*paths, *map(os.path.normpath, module.params["create"])]):
        try:
            try:
                directory = open_directory(path)
            except FileNotFoundError:
                made.append(path)
                if not module.check_mode:
                    make(path, int(module.params["mode"], 8), account)
                continue
            try:
                if path in paths:
                    giving.give(path, directory)
            finally:
                os.close(directory)
        except (DirectoryError, OSError) as error:
            module.fail_json(msg=f"{path}: {error}", given=giving.given, made=made, changed=bool(made or giving.given))
    changes = [f"{path}: made\n" for path in made] + [f"{path}: given to {module.params['owner']}\n" for path in giving.given]
    module.exit_json(changed=bool(changes), given=giving.given, made=made, diff={"prepared": "".join(changes)} if changes else {})


if __name__ == "__main__":
    main()
