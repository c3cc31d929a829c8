# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that change a tree of whisper files."""

    DOCUMENTATION = r"""
options:
  directory:
    description:
      - Top of the tree of whisper files. It may be a link; a link below it is never followed. Hidden directories and
        C(lost+found) are left alone.
    type: path
    default: /var/lib/graphite/whisper
  carbon_stopped:
    description:
      - Says that nothing writes to the files. Needed on file systems without leases, such as NFS; elsewhere leases show what
        carbon is doing.
    type: bool
    default: false
requirements:
  - whisper (Python library, package python3-whisper), for the host's Python or in C(/opt/graphite/venv)
"""
