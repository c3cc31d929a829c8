#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: removed_files
short_description: Remove directories, or some of their files
version_added: 2.0.0
description:
  - Removes directories with all that they contain, or only the files in them whose names match, in one call for any number of files.
  - Stays on the file system of each directory and follows no symbolic link below it, also while another user changes the directory.
author:
  - metricstack maintainers (@metricstack)
options:
  directories:
    description:
      - The directories. Those that do not exist are ignored.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Absolute path of the directory that is removed, or from which files are.
        type: path
        required: true
      patterns:
        description:
          - Names of the regular files to remove, as globs of the shell. If left out, everything in the directory is removed, and with
            it the directory.
        type: list
        elements: str
      recurse:
        description:
          - Whether O(directories[].patterns) applies to subdirectories as well. The subdirectories and the directory itself are then
            removed if they are empty.
        type: bool
        default: true
attributes:
  check_mode:
    description: Counts what would be removed; removes nothing. Directories that would be empty by then do not count.
    support: full
  diff_mode:
    description: Shows how many entries are removed from each directory.
    support: full
notes:
  - A directory that is a mount point stays, without its contents. So does a directory that contains another mount point.
  - A symbolic link as O(directories[].path) is followed with O(directories[].patterns), and removed without.
seealso:
  - module: ansible.builtin.file
"""

EXAMPLES = r"""
- name: Remove all series, and nothing else from their directory
  metricstack.graphite.removed_files:
    directories:
      - path: /var/lib/graphite/whisper
        patterns: ["*.wsp"]

- name: Remove logs, and a database with its backup copies
  metricstack.graphite.removed_files:
    directories:
      - path: /var/log/graphite
      - path: /var/lib/graphite
        patterns: [graphite.db, graphite.db.*]
        recurse: false
"""

RETURN = r"""
removed:
  description: Number of files, links and directories that were removed (in check mode, would be), by directory.
  returned: success
  type: dict
  sample: {/var/lib/graphite/whisper: 12034}
"""

import fnmatch
import os
import stat

from ansible.module_utils.basic import AnsibleModule


def is_wanted(name: str, directory: int, patterns: list[str] | None) -> bool:
    """Tell whether the entry ``name`` of an open ``directory``, which is no directory itself, is to be removed."""
    if patterns is None:
        return True
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        return False
    return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def is_link(name: str, directory: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def remove_entries(path: str, patterns: list[str] | None, recurse: bool, dry: bool) -> int:
    """Remove files and links in ``path``; return their number."""
    removed = 0
    device = os.stat(path).st_dev
    for _path, directories, names, opened in os.fwalk(path):
        # A file system that is mounted here belongs to others.
        if os.fstat(opened).st_dev != device:
            directories.clear()
            continue
        for name in names + [name for name in directories if is_link(name, opened)]:
            if is_wanted(name, opened, patterns):
                removed += 1
                if not dry:
                    os.unlink(name, dir_fd=opened)
        if not recurse:
            break
    return removed


def remove_empty_directories(path: str) -> int:
    """Remove the directories below ``path``, as far as they are empty; return their number."""
    removed = 0
    device = os.stat(path).st_dev
    for _path, directories, _names, opened in os.fwalk(path, topdown=False):
        if os.fstat(opened).st_dev == device:
            removed += sum(_is_removed(name, opened) for name in directories)
    return removed


def _is_removed(name: str, directory: int | None = None) -> bool:
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError:  # it is a link or a mount point, or contains something
        return False
    return True


def remove(path: str, patterns: list[str] | None, recurse: bool, dry: bool) -> int:
    """Remove what the module is asked to remove from one directory; return the number of entries."""
    if os.path.islink(path) and patterns is None:
        if not dry:
            os.unlink(path)
        return 1
    if not os.path.isdir(path):
        return 0
    recurse = recurse or patterns is None
    target = os.path.realpath(path)
    removed = remove_entries(target, patterns, recurse, dry)
    if dry:
        return removed + (patterns is None)
    if recurse:
        removed += remove_empty_directories(target) + _is_removed(path)
    return removed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "patterns": {"type": "list", "elements": "str"},
                    "recurse": {"type": "bool", "default": True},
                },
            }
        },
        supports_check_mode=True,
    )
    directories = module.params["directories"]
    for item in directories:
        if os.path.realpath(item["path"]) == "/" or not os.path.isabs(item["path"]):
            module.fail_json(msg=f"directories: path is {item['path']}; give the absolute path of a directory other than /.")
    removed: dict = {}
    for item in directories:
        path = item["path"]
        try:
            count = remove(path, item["patterns"], item["recurse"], module.check_mode)
        except OSError as error:
            module.fail_json(msg=f"Cannot remove what is in {path}: {error}", removed=removed)
        if count:
            removed[path] = removed.get(path, 0) + count
    shown = "".join(f"{path}: {count} entries\n" for path, count in removed.items())
    module.exit_json(changed=bool(removed), removed=removed, diff={"before": shown, "after": ""})


if __name__ == "__main__":
    main()
