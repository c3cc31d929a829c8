#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apache_info
short_description: Gather information about Apache's configuration and ports
version_added: 2.0.0
description:
  - Reads Apache's enabled configuration in the layout of Debian and Ubuntu, and the sockets of the host, and returns the
    consequences for sites to add. If Apache is not installed yet, the module assumes the configuration of the package.
  - Apache's own C(configtest) does not detect a port that is in use or that two C(Listen) directives name, but Apache fails to start.
author:
  - metricstack maintainers (@metricstack)
options:
  sites:
    description:
      - The sites to add or to remove, as C(apache_wsgi_sites) of the role P(metricstack.graphite.apache_wsgi#role) describes them.
    type: list
    elements: dict
    default: []
  disable_default_site:
    description:
      - Whether the default site of the package is going to be disabled, unless its file or its page has been modified.
    type: bool
    default: false
  directory:
    description:
      - Directory of Apache's configuration.
    type: path
    default: /etc/apache2
attributes:
  check_mode:
    description: Changes nothing, in either mode.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: N/A
seealso:
  - module: metricstack.graphite.service_current
"""

EXAMPLES = r"""
- name: Examine Apache
  metricstack.graphite.apache_info:
    sites:
      - name: graphite
        port: 8080
        server_name: graphite.example.org
  register: apache

- name: Refuse ports that Apache could not listen on
  ansible.builtin.assert:
    that: apache.problems | length == 0
    fail_msg: "{{ apache.problems | join('\n') }}"

- name: List what Apache listens on
  metricstack.graphite.apache_info:
  register: apache
"""

RETURN = r"""
installed:
  description: Whether Apache's configuration is there.
  returned: success
  type: bool
  sample: true
problems:
  description: What stands in the way of the sites or of Apache as a whole, one message each.
  returned: success
  type: list
  elements: str
  sample: ["apache_wsgi_sites: site 'graphite' has port 80, but nginx, process 12, unit nginx.service holds 0.0.0.0:80 (tcp). Stop it ..."]
shadows:
  description: Virtual hosts that answer requests which are meant for one of the sites, one message each. They are warnings as well.
  returned: success
  type: list
  elements: str
  sample: ["/etc/apache2/sites-enabled/000-all.conf (line 1) answers with a redirect for a.example in place of site 'graphite'. ..."]
listens:
  description: Arguments of the C(Listen) directives for the file of each site, so that each address is configured once; by site.
  returned: success
  type: dict
  sample: {graphite: ["8080"]}
elsewhere:
  description: The C(Listen) directives in the rest of the configuration that are in force.
  returned: success
  type: list
  elements: dict
  contains:
    argument:
      description: Argument of the directive.
      type: str
      sample: "80"
    path:
      description: Path of the file.
      type: str
      sample: /etc/apache2/ports.conf
    line:
      description: Number of the line.
      type: int
      sample: 5
unused_listens:
  description: C(Listen) directives of the package that no site needs, on ports that another process uses.
  returned: success
  type: list
  elements: dict
  contains:
    argument:
      description: Argument of the directive.
      type: str
      sample: "80"
    holder:
      description: Who holds the port.
      type: str
      sample: nginx, process 12, unit nginx.service
ports_file:
  description: Path and content of C(ports.conf) without RV(unused_listens); null if there are none.
  returned: success
  type: dict
  sample: {path: /etc/apache2/ports.conf, content: "# Listen 80\n"}
replaced_sites:
  description: Enabled sites that serve one of the applications in C(replaces) of the sites.
  returned: success
  type: list
  elements: str
  sample: [graphite-by-hand]
enabled_sites:
  description: Names of the enabled sites.
  returned: success
  type: list
  elements: str
  sample: [000-default, graphite]
enabled_modules:
  description: Names of the enabled modules.
  returned: success
  type: list
  elements: str
  sample: [alias, headers, wsgi]
default_site_changed:
  description: Whether the default site or its page differs from the package.
  returned: success
  type: bool
  sample: false
run_user:
  description: User that Apache runs as, from C(envvars).
  returned: success
  type: str
  sample: www-data
run_group:
  description: Group that Apache runs as, from C(envvars).
  returned: success
  type: str
  sample: www-data
"""

import re
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apache
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import read_sockets


def packaged_checksum() -> str:
    """Return the MD5 sum of the default site in the installed package, as dpkg knows it."""
    known = run(["dpkg-query", "--show", "--showformat", r"${Conffiles}\n", "apache2"]).stdout
    match = re.search(rf"/sites-available/{apache.DEFAULT_SITE}\.conf ([0-9a-f]{{32}})", known)
    return match[1] if match else "unknown"


def host_names() -> list[str]:
    """Return the names that a virtual host without a name takes; asking for them may take a server's time."""
    return sorted({socket.gethostname(), socket.getfqdn()} - {"localhost"})


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sites": {"type": "list", "elements": "dict", "default": []},
            "disable_default_site": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": apache.ROOT},
        },
        supports_check_mode=True,
    )
    examination = apache.Examination(
        module.params["directory"],
        module.params["sites"],
        read_sockets(),
        packaged_checksum(),
        host_names,
        module.params["disable_default_site"],
    )
    for message in examination.shadows():
        module.warn(message)
    account = apache.run_account(module.params["directory"])
    module.exit_json(
        changed=False,
        installed=examination.configuration.installed,
        problems=examination.problems(),
        shadows=examination.shadows(),
        listens=examination.listens,
        elsewhere=[listen._asdict() for listen in examination.elsewhere],
        unused_listens=[{"argument": listen.argument, "holder": holder.owner} for listen, holder in examination.unused],
        ports_file=examination.ports_file(),
        replaced_sites=examination.replaced,
        enabled_sites=examination.enabled_sites(),
        enabled_modules=examination.enabled_modules(),
        default_site_changed=examination.default_site_changed,
        run_user=account["user"],
        run_group=account["group"],
    )


if __name__ == "__main__":
    main()
