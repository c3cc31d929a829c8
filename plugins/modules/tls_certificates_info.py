#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificates_info
short_description: Examine the certificates of sites
version_added: 2.1.0
description:
  - Compares certificates with their keys, their chains, the names of their sites, the clock and the authorities that the host trusts, and
    returns everything that is wrong with them. Changes nothing.
  - Refused are a file that cannot be read, a key that does not fit, has a passphrase or can be read by others than root and the group
    C(ssl-cert), a certificate that has ended, is not valid yet or is for other names, a chain that is out of order or of another issuer, a
    certificate that the host does not trust, and cipher suites without forward secrecy or authenticated encryption.
  - Needs nothing but Python, so that a bare host can be examined. A text never leaves memory.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.tls_certificates
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: N/A
seealso:
  - module: metricstack.graphite.tls_certificates
"""

EXAMPLES = r"""
- name: Examine the certificate of certbot
  metricstack.graphite.tls_certificates_info:
    certificates:
      - name: wiki
        variable: wiki_tls
        server_name: wiki.example.org
        certificate: /etc/letsencrypt/live/wiki.example.org/fullchain.pem
        key: /etc/letsencrypt/live/wiki.example.org/privkey.pem
  register: wiki_certificates

- name: Examine a certificate from the controller's vault
  metricstack.graphite.tls_certificates_info:
    certificates:
      - name: wiki
        variable: wiki_tls
        server_name: wiki.example.org
        certificate_text: "{{ vault_wiki_certificate }}"
        key_text: "{{ vault_wiki_key }}"
        authority: /etc/ssl/certs/example-ca.pem
"""

RETURN = r"""
problems:
  description: One message for each problem, with the variable, its value and what to do.
  returned: success
  type: list
  elements: str
  sample: ["wiki_tls: key is /etc/ssl/wiki.key, which everybody can read. Allow root alone: ..."]
unmade:
  description: Names of the sites whose self-signed certificate is missing, about to end, or for another name.
  returned: success
  type: list
  elements: str
  sample: [wiki]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host.certificates import CERTIFICATES_ARGUMENT_SPEC, Certificates


def main() -> None:
    module = AnsibleModule(argument_spec=CERTIFICATES_ARGUMENT_SPEC, supports_check_mode=True)
    certificates = Certificates(module.params["certificates"], module.params["directory"])
    module.exit_json(changed=False, problems=certificates.problems(), unmade=[wanted["name"] for wanted in certificates.unmade()])


if __name__ == "__main__":
    main()
