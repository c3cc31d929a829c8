#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: unused_environments
short_description: Remove virtual environments that no configuration names
version_added: 2.0.0
description:
  - Removes the virtual environments of Python in a directory that no text file below O(references) names, such as units of systemd, sites
    of a web server or crontabs. An environment is named by its path, or by the path of O(link) if that leads to it.
author:
  - metricstack maintainers (@metricstack)
options:
  directory:
    description:
      - Absolute path of the directory in which each environment is looked at, and removed if nothing names it.
    type: path
    required: true
  patterns:
    description:
      - Names of environments, as globs of the shell. Directories without C(pyvenv.cfg) are none.
    type: list
    elements: str
    required: true
  link:
    description:
      - Name of a symbolic link in O(directory) to one of the environments. It is removed if it leads nowhere.
    type: str
    default: venv
  remains:
    description:
      - Paths relative to O(directory) that are removed when O(link) has gone, in their order. O(directory) itself is then removed as
        well. Directories that are not empty stay.
    type: list
    elements: str
    default: []
  references:
    description:
      - Directories of the text files that name environments. Symbolic links in them are followed.
    type: list
    elements: path
    default: [/etc]
  exclude:
    description:
      - Names of files and directories in O(references) that do not count, as globs of the shell.
    type: list
    elements: str
    default: ["*~", sites-available]
attributes:
  check_mode:
    description: Returns the environments that would be removed; removes nothing.
    support: full
  diff_mode:
    description: Shows the environments that are removed.
    support: full
seealso:
  - module: metricstack.graphite.removed_files
"""

EXAMPLES = r"""
- name: Remove the environments of earlier releases
  metricstack.graphite.unused_environments:
    directory: /opt/application
    patterns: ["release-*"]
    link: current

- name: Remove unused environments, and with the last one what they were built from
  metricstack.graphite.unused_environments:
    directory: /opt/graphite
    patterns: ["[0-9a-f][0-9a-f][0-9a-f][0-9a-f]*"]
    remains: [source/requirements.txt, source]
"""

RETURN = r"""
removed:
  description: Paths of the environments that were removed (in check mode, would be).
  returned: success
  type: list
  elements: str
  sample: [/opt/graphite/3f2a9c81d0b4]
"""

import fnmatch
import glob
import os
import shutil
import stat
from collections.abc import Iterator

from ansible.module_utils.basic import AnsibleModule


def is_excluded(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(os.path.basename(path), pattern) for pattern in patterns)


def read_texts(directories: list[str], exclude: list[str]) -> Iterator[bytes]:
    """Yield the content of each text file in the directories."""
    visited = set()
    for top in directories:
        for path, below, names in os.walk(top, followlinks=True):
            status = os.stat(path)
            # A link to a directory above would lead round in circles.
            if (status.st_dev, status.st_ino) in visited:
                below.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            below[:] = [name for name in below if not is_excluded(name, exclude)]
            for name in names:
                if not is_excluded(name, exclude):
                    yield read_text(os.path.join(path, name))


def read_text(path: str) -> bytes:
    """Return the content of a text file; nothing of what is something else or has just gone."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as stream:
                # Links lead to programs as well, such as those of /etc/alternatives.
                beginning = stream.read(32768)
                return b"" if b"\0" in beginning else beginning + stream.read()
    except OSError:
        pass
    return b""


def unused_environments(environments: list[str], link: str, texts: Iterator[bytes]) -> list[str]:
    """Return those of the environments that no text names, neither by their own paths nor by a link to them."""
    names = {environment: [f"{environment}/".encode(), f"{environment} ".encode()] for environment in environments}
    linked = os.path.realpath(link)
    if linked in names:
        names[linked].append(f"{link}/".encode())
    for text in texts:
        names = {environment: own for environment, own in names.items() if not any(name in text for name in own)}
        if not names:
            break
    return sorted(names)


def remove_rest(directory: str, link: str, remains: list[str]) -> None:
    """Remove a link that leads nowhere, and then what has no use without environments."""
    if not os.path.islink(link) or os.path.exists(link):
        return
    os.unlink(link)
    for path in [*(os.path.join(directory, name) for name in remains), directory]:
        try:
            os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        except OSError:  # it contains something else, or there is no such path
            continue


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "patterns": {"type": "list", "elements": "str", "required": True},
            "link": {"type": "str", "default": "venv"},
            "remains": {"type": "list", "elements": "str", "default": []},
            "references": {"type": "list", "elements": "path", "default": ["/etc"]},
            "exclude": {"type": "list", "elements": "str", "default": ["*~", "sites-available"]},
        },
        supports_check_mode=True,
    )
    directory = module.params["directory"]
    link = os.path.join(directory, module.params["link"])
    found = {path for pattern in module.params["patterns"] for path in glob.glob(f"{glob.escape(directory)}/{pattern}/pyvenv.cfg")}
    environments = [os.path.dirname(path) for path in found]
    unused = unused_environments(environments, link, read_texts(module.params["references"], module.params["exclude"]))
    dangling = os.path.islink(link) and not os.path.exists(link)
    if not module.check_mode:
        for path in unused:
            shutil.rmtree(path)
        remove_rest(directory, link, module.params["remains"])
    module.exit_json(
        changed=bool(unused) or dangling, removed=unused, diff={"before": "".join(f"{path}\n" for path in unused), "after": ""}
    )


if __name__ == "__main__":
    main()
