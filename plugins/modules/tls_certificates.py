#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificates
short_description: Write the certificates and keys of sites that are given as text
version_added: 2.1.0
description:
  - Writes certificates and keys that are given as texts to files of root, of which root alone can read the keys, and makes self-signed
    certificates. What is given as a path is left alone.
  - Fails before the first change with everything that M(metricstack.graphite.tls_certificates_info) finds wrong.
  - A self-signed certificate is valid for a year, unless O(certificates[].days) says otherwise.
  - It is made anew if it ends within 30 days or is for another name.
  - No content is shown by C(--diff), and no key is in the output.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.tls_certificates
attributes:
  check_mode:
    description: Reports what would change; changes nothing.
    support: full
  diff_mode:
    description: Shows which files change, and no content.
    support: full
requirements:
  - openssl (command), for self-signed certificates
seealso:
  - module: metricstack.graphite.tls_certificates_info
"""

EXAMPLES = r"""
- name: Write a certificate and its key from the controller's vault
  metricstack.graphite.tls_certificates:
    certificates:
      - name: wiki
        variable: wiki_tls
        server_name: wiki.example.org
        certificate_text: "{{ vault_wiki_certificate }}"
        key_text: "{{ vault_wiki_key }}"

- name: Make a self-signed certificate
  metricstack.graphite.tls_certificates:
    certificates:
      - name: wiki
        variable: wiki_tls
        server_name: wiki.example.org
        self_signed: true
        authority: /etc/apache-wsgi/wiki.pem
"""

RETURN = r"""
changed_paths:
  description: Paths of the files that were written (in check mode, would be).
  returned: success
  type: list
  elements: str
  sample: [/etc/apache-wsgi/wiki.pem, /etc/apache-wsgi/wiki.key]
certificates:
  description: The certificates that are there, as PEM, by the names of their sites.
  returned: success
  type: dict
  sample: {wiki: "-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host.certificates import (
    CERTIFICATES_ARGUMENT_SPEC,
    CertificateError,
    Certificates,
)


def main() -> None:
    module = AnsibleModule(argument_spec=CERTIFICATES_ARGUMENT_SPEC, supports_check_mode=True)
    certificates = Certificates(module.params["certificates"], module.params["directory"])
    problems = certificates.problems()
    if problems:
        module.fail_json(msg="\n".join(problems))
    try:
        changed = certificates.write(module.check_mode)
    except CertificateError as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{path}: written\n" for path in changed)}
    module.exit_json(changed=bool(changed), changed_paths=changed, certificates=certificates.texts(), diff=diff)


if __name__ == "__main__":
    main()
