# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of the roles that a play sets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: play_variables
author:
  - metricstack maintainers (@metricstack)
short_description: List the options of the roles that a play sets
version_added: 2.0.0
description:
  - Lists the options of the collection's roles whose values come from C(vars) of a play, of a block or of C(import_playbook).
  - The roles would use these values, but C(hostvars) does not have them, so that the topology and other hosts would not know them.
options:
  _terms:
    description:
      - Name of the host, C(inventory_hostname).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Reject variables of the play
  ansible.builtin.assert:
    that: names | length == 0
    fail_msg: "Set {{ names | join(', ') }} in group_vars or host_vars."
  vars:
    names: "{{ query('metricstack.graphite.play_variables', inventory_hostname) }}"
"""

RETURN = r"""
_raw:
  description: Names of the variables, sorted.
  type: list
  elements: str
"""

from ansible.plugins.lookup import LookupBase
from ansible_collections.metricstack.graphite.plugins.filter.stack import role_options


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        (host,) = terms
        inventory = variables["hostvars"].raw_get(host)
        return sorted(name for name in role_options() if name in variables and not _is_known(name, variables[name], inventory))


def _is_known(name, value, inventory):
    # Templates are compared as they stand: to evaluate them could fail.
    try:
        return name in inventory and value == inventory[name]
    except Exception:  # what Ansible Vault has encrypted is decrypted for that; the validation of the variable names it
        return True
