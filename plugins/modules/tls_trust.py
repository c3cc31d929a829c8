#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_trust
short_description: Manage the certificates of other hosts that a host trusts
version_added: 2.1.0
description:
  - Writes one file with the certificates of several hosts, by which programs trust these hosts and no others. The certificate of a host
    that is known and not given stays as a run before has written it, so that a run on some of the hosts takes trust from none.
  - Writes a second file, if wanted, for programs that take a certificate, its key and what they trust from one file.
  - Keys neither leave the host nor appear in the output, and C(--diff) shows no content.
author:
  - metricstack maintainers (@metricstack)
options:
  path:
    description: Path of the file that gets the trusted certificates, one below the other.
    type: path
    required: true
  certificates:
    description: Certificates as PEM, by the names of their hosts.
    type: dict
    default: {}
  known:
    description: Names of all hosts. The certificates of others are removed.
    type: list
    elements: str
    default: []
  authority:
    description: Path of the certificates of an authority on the host, which are trusted in place of O(certificates).
    type: path
  combined:
    description: A file with a certificate, its key, and all that is trusted, in this order.
    type: dict
    suboptions:
      path:
        description: Path of a file that gets certificate, private key and trusted certificates, for programs that read one file.
        type: path
        required: true
      certificate:
        description: Path of the certificate, with those of its issuers below it.
        type: path
        required: true
      key:
        description: Path of the private key that is copied into the file.
        type: path
        required: true
      group:
        description: Group that can read the file beside root.
        type: str
        required: true
attributes:
  check_mode:
    description: Reports what would change; changes nothing.
    support: full
  diff_mode:
    description: Shows which files change, and no content.
    support: full
seealso:
  - module: metricstack.graphite.tls_certificates
"""

EXAMPLES = r"""
- name: Trust the certificates that the hosts of this play have made
  metricstack.graphite.tls_trust:
    path: /etc/graphite-tls/trusted.pem
    certificates: "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'certificate'))) }}"
    known: "{{ groups['all'] }}"

- name: Trust an authority, and give a service all in one file
  metricstack.graphite.tls_trust:
    path: /etc/graphite-tls/trusted.pem
    authority: /etc/ssl/certs/example-ca.pem
    combined:
      path: /etc/graphite-tls/relay.pem
      certificate: /etc/ssl/certs/host.pem
      key: /etc/ssl/private/host.key
      group: carbon-c-relay
"""

RETURN = r"""
trusted:
  description: Names of the hosts whose certificates are trusted; empty with O(authority).
  returned: success
  type: list
  elements: str
  sample: [store1.example.org, store2.example.org]
changed_paths:
  description: Paths of the files that were written (in check mode, would be).
  returned: success
  type: list
  elements: str
  sample: [/etc/graphite-tls/trusted.pem]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import trust
from ansible_collections.metricstack.graphite.plugins.module_utils._host.files import is_written, replace_file

COMBINED = {
    "path": {"type": "path", "required": True},
    "certificate": {"type": "path", "required": True},
    # A path is no secret.
    "key": {"type": "path", "required": True, "no_log": False},
    "group": {"type": "str", "required": True},
}


def changes(params: dict, check_mode: bool) -> tuple[list[str], list[str]]:
    """Write the files that differ; return whom the host trusts and the paths of these files."""
    path, combined, authority = params["path"], params["combined"], params["authority"]
    names: list[str] = []
    if authority:
        text = trust.read_certificates(authority)
    else:
        before = trust.read(path) if os.path.exists(path) else ""
        certificates = trust.trusted_certificates(before, params["certificates"], params["known"])
        names, text = list(certificates), trust.shown(certificates)
    wanted = [(path, text, os.geteuid(), os.getegid(), 0o644)]
    if combined and check_mode and not (os.path.exists(combined["certificate"]) and trust.has_group(combined["group"])):
        # In a run that changes something, tasks before this one make both.
        return names, [path, combined["path"]]
    if combined:
        own = [trust.read(combined[part]).strip() + "\n" for part in ("certificate", "key")]
        wanted.append((combined["path"], "".join([*own, text]), os.geteuid(), trust.group_id(combined["group"]), 0o640))
    changed = [item for item in wanted if not is_written(*item)]
    for item in [] if check_mode else changed:
        os.makedirs(os.path.dirname(item[0]), mode=0o755, exist_ok=True)
        replace_file(*item)
    return names, [item[0] for item in changed]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "certificates": {"type": "dict", "default": {}},
            "known": {"type": "list", "elements": "str", "default": []},
            "authority": {"type": "path"},
            "combined": {"type": "dict", "options": COMBINED},
        },
        supports_check_mode=True,
    )
    try:
        names, changed = changes(module.params, module.check_mode)
    except trust.TrustError as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{path}: written\n" for path in changed)}
    module.exit_json(changed=bool(changed), changed_paths=changed, trusted=names, diff=diff)


if __name__ == "__main__":
    main()
