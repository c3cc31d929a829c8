#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: whisper_prune
short_description: Remove or archive whisper files that receive no more points
version_added: 1.0.0
description:
  - Finds the whisper files that have received no point for a given time, and removes them or moves them to an archive, while
    carbon goes on writing to the others.
  - A series is unused if both the time of its file and its newest point, in any archive of the file, are older than
    O(unused_for) and than the time that the file's finest archive covers. A point in the future is a young one.
  - Directories that become empty go, and those that have been empty for O(unused_for); the top stays.
  - Links are not followed. Names that begin with a dot, and files that are not C(*.wsp), are left alone, and so are their
    directories. What cannot be read as a whisper file is reported and kept.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.whisper_tree
options:
  unused_for:
    description:
      - Time without a point after which a series goes, such as V(90d), in the units of retention strings.
    type: str
    required: true
  archive_directory:
    description:
      - Directory to which the files are moved, each to the same path below it. It must be there, and may be on another file
        system. A file that is there keeps its name; the one that is moved gets a number after its own. Without it, the files
        are removed.
    type: path
  max_share:
    description:
      - Largest share of all series that may go, more than V(0) and at most V(1). If more are unused, nothing is done and the
        module fails, in check mode, too; after an outage of the senders, or with a wrong clock, all of them look unused.
    type: float
    default: 0.5
attributes:
  check_mode:
    description: Reports what would go; changes nothing.
    support: full
  diff_mode:
    description: Shows the series that go, the first 100 by name.
    support: full
notes:
  - Run it as root or as the owner of the files.
  - A series that receives a point, or is being read, at the moment of its removal is kept.
"""

EXAMPLES = r"""
- name: List the series that have received no point for three months
  metricstack.graphite.whisper_prune:
    unused_for: 90d
  check_mode: true
  register: unused

- name: Archive these series
  metricstack.graphite.whisper_prune:
    unused_for: 90d
    archive_directory: /srv/graphite-archive
"""

RETURN = r"""
series:
  description: Number of series in the tree, before.
  returned: success
  type: int
pruned:
  description: Number of series that were removed or moved (in check mode, would be).
  returned: success
  type: int
bytes:
  description: What they took on the disk.
  returned: success
  type: int
directories:
  description: Number of directories that were removed.
  returned: success
  type: int
metrics:
  description: The first 100 names of these series; the path of the file where its name is a hash.
  returned: success
  type: list
  elements: str
  sample: [stats.counters.shop.old.count]
busy:
  description: Number of unused series that are kept because another process had opened them.
  returned: success
  type: int
restored:
  description: Number of series that got their name back, which a run that was killed had taken.
  returned: success
  type: int
corrupt:
  description: Number of files and directories that cannot be read and are kept.
  returned: success
  type: int
corrupt_files:
  description: The first 100 of them.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Path below O(directory).
      type: str
    reason:
      description: What is wrong with it.
      type: str
links:
  description: Number of symbolic links in the tree, which are not followed.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.prune import PruneError, prune
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import TREE_ARGUMENT_SPEC


def is_change(result: dict) -> bool:
    """Return whether anything is, or in check mode would be, other than before."""
    return any(result.get(name) for name in ("pruned", "directories", "restored"))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **TREE_ARGUMENT_SPEC,
            "unused_for": {"type": "str", "required": True},
            "archive_directory": {"type": "path"},
            "max_share": {"type": "float", "default": 0.5},
        },
        supports_check_mode=True,
    )
    try:
        result = prune(**module.params, check=module.check_mode)
    except PruneError as error:
        module.fail_json(msg=f"{error}.", changed=is_change(error.result), **error.result)
    gone = result["metrics"] + [f"and {more} more" for more in [result["pruned"] - len(result["metrics"])] if more]
    module.exit_json(
        changed=is_change(result),
        diff={"before": "".join(f"{name}\n" for name in gone), "after": ""},
        **result,
    )


if __name__ == "__main__":
    main()
