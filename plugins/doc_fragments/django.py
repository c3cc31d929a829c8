# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that run inside graphite-web."""

    DOCUMENTATION = r"""
options:
  python:
    description:
      - The Python that has graphite-web; C(/opt/graphite/venv/bin/python) where the role C(graphite_venv) has installed it.
    type: path
    default: /usr/bin/python3
  python_path:
    description:
      - Directories to search for O(local_settings).
    type: list
    elements: path
    default:
      - /etc/graphite
  settings:
    description:
      - Python module that Django imports for its settings, as C(DJANGO_SETTINGS_MODULE) names it.
    type: str
    default: graphite.settings
  local_settings:
    description:
      - Name of the module with the settings of this host. The module fails if it does not import; graphite-web itself would
        go on with its default settings and another database.
    type: str
    default: local_settings
  run_as:
    description:
      - System user that graphite-web runs as. Whatever the module does to the database, it does as this user, so that no file is
        left to root.
    type: str
    default: _graphite
notes:
  - The module has to run as root or as O(run_as).
  - In check mode, on a host that does not have graphite-web yet, the module reports that it would change something.
"""

    DATABASE = r"""
options:
  database:
    type: dict
    suboptions:
      ENGINE:
        description: Database backend.
        type: str
        required: true
      NAME:
        description: Name of the database, or path of an SQLite file, whose directory is there and writable by O(run_as).
        type: str
        required: true
      USER:
        description: User of the database server.
        type: str
        default: ""
      PASSWORD:
        description: Password of that user.
        type: str
        default: ""
      HOST:
        description: Host of the database server, or the directory of its socket.
        type: str
        default: ""
      PORT:
        description: Port of the database server.
        type: str
        default: ""
      OPTIONS:
        description: Options of the backend; not the place for secrets.
        type: dict
        default: {}
"""
