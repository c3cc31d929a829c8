# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

import textwrap

_USER = r"""
name:
  description:
    - Login name.
  type: str
  required: true
password:
  description:
    - Password. Required to create a user; without it, that of an existing user stays.
  type: str
password_hash:
  description:
    - Hash of the password instead of the password, as Django computes it, C(pbkdf2_sha256$ITERATIONS$SALT$HASH) with 150000 iterations or
      more. The hash is compared as it is stored.
    - By itself, Django replaces it at the next login if its own number of iterations is another one; the role
      P(metricstack.graphite.graphite_web#role) has Django keep it.
  type: str
  version_added: 2.1.0
update_password:
  description:
    - V(always) sets the password whenever it does not match; V(on_create) only for a new user.
  type: str
  choices: [always, on_create]
  default: always
email:
  description:
    - E-mail address. Without it, that of an existing user stays; a new user has none.
  type: str
superuser:
  description:
    - Whether the user may do everything.
  type: bool
  default: false
staff:
  description:
    - Whether the user may enter the admin pages. Without it, as C(superuser).
  type: bool
active:
  description:
    - Whether the user may log in.
  type: bool
  default: true
state:
  description:
    - Whether the user exists. V(absent) deletes what belongs to the user, too.
  type: str
  choices: [present, absent]
  default: present
"""

_DASHBOARD = r"""
name:
  description:
    - Name of the dashboard, which is a part of its address. Up to 128 characters of any script, but none of
      / ? \ & < > ~ ! @ # $ % ^ * ( ) and the backtick.
  type: str
  required: true
graphs:
  description:
    - The graphs, in their order. Either these or C(definition) are required for a dashboard that is to exist.
  type: list
  elements: dict
  suboptions:
    targets:
      description:
        - Metric names, patterns or functions, as the render API takes them.
      type: list
      elements: str
      required: true
    title:
      description:
        - Title of the graph. Without it, graphite-web shows the target of a graph that has only one.
      type: str
    options:
      description:
        - Other parameters of the render API, such as C(vtitle), C(yMin), C(areaMode) and C(lineMode).
      type: dict
definition:
  description:
    - The dashboard as graphite-web exports it, as a dict or as JSON; the answer of C(/dashboard/load/NAME) will do. It has
      graphs, time range, size and refresh of its own. The name in it does not matter.
  type: json
from:
  description:
    - Begin of the time range of C(graphs), relative to now.
  type: str
  default: -2hours
until:
  description:
    - End of the time range of C(graphs), V(now) or relative to it.
  type: str
  default: now
width:
  description:
    - Width of each of C(graphs), in pixels.
  type: int
  default: 600
height:
  description:
    - Height of each of C(graphs), in pixels.
  type: int
  default: 300
refresh:
  description:
    - How often the page draws C(graphs) anew, in seconds; V(0) for never.
  type: int
  default: 60
state:
  description:
    - Whether the dashboard exists.
  type: str
  choices: [present, absent]
  default: present
"""


def indent(text: str, width: int) -> str:
    return textwrap.indent(text, " " * width)


class ModuleDocFragment:
    """Options of the modules that write settings, users and dashboards."""

    # With a type, since ansible-test takes every other assignment here for YAML as it stands.
    USER: str = f"options:{indent(_USER, 2)}"

    USERS: str = f"""
options:
  users:
    description:
      - Several users, each with these options. They are written in one transaction, all or none.
    type: list
    elements: dict
    suboptions:{indent(_USER, 6)}"""

    DASHBOARD: str = f"options:{indent(_DASHBOARD, 2)}"

    DASHBOARDS: str = f"""
options:
  dashboards:
    description:
      - Several dashboards, each with these options. It costs what one of them costs, and if one is refused, none is written.
    type: list
    elements: dict
    suboptions:{indent(_DASHBOARD, 6)}"""

    SETTINGS = r"""
options:
  path:
    description:
      - Path of the settings, whose name without its ending is O(local_settings). The file belongs to O(run_as), who alone can
        read it.
    type: path
    default: /etc/graphite/local_settings.py
  content:
    description:
      - Content of the settings. A file whose first line differs, and which is not the package's own, was edited manually.
    type: str
    required: true
  secret_key:
    description:
      - Django's secret key, which the settings read from O(secret_key_file).
    type: str
  secret_key_file:
    description:
      - File of the secret key. The file belongs to O(run_as), who alone can read it.
    type: path
    default: /etc/graphite/secret_key
  files:
    description:
      - Files that are written in the same transaction as the settings, such as Python modules in O(python_path), the WSGI script and
        units of systemd. Everybody can read them.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Absolute path on the host.
        type: path
        required: true
      content:
        description:
          - Content of the file, required with O(files[].state=present). Shown by C(--diff), so that secrets do not belong here.
        type: str
      state:
        description:
          - Whether the file is to be there.
        type: str
        choices: [present, absent]
        default: present
  wsgi_script:
    description:
      - Script that a web server loads graphite-web with. Without it, only the settings and the URL patterns are loaded.
    type: path
  imports:
    description:
      - Modules that graphite-web needs. As long as one of them does not import, graphite-web counts as not installed, and the new settings
        are not tested.
    type: list
    elements: str
    default: []
"""
