#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: http_probe
short_description: Wait until web sites answer
version_added: 2.1.0
description:
  - Asks sites until each of them answers, and fails with the last answer of each that does not. Redirects are not followed.
  - Over HTTPS, a site is asked by its name at an address of choice, its certificate is verified, and the certificate can be compared with
    the file that the server is to use. C(ansible.builtin.uri) can ask a name at the address that the name resolves to only.
author:
  - metricstack maintainers (@metricstack)
options:
  sites:
    description: Sites that are asked, each until it answers or O(timeout) is over.
    type: list
    elements: dict
    required: true
    suboptions:
      url:
        description: Address to ask, with the name of the site over HTTPS.
        type: str
        required: true
      host_header:
        description: Name of the site to ask for, if O(sites[].url) has an address.
        type: str
      connect_address:
        description: Address to connect to. If left out, that of the host in O(sites[].url).
        type: str
      ca_path:
        description: Path of the certificates by which that of the site is trusted. If left out, those of the system.
        type: path
      certificate:
        description: Path of the certificate that the site has to show; another one counts as no answer.
        type: path
  status_codes:
    description: Statuses that show that the site works.
    type: list
    elements: int
    default: [200, 201, 204, 301, 302, 303, 307, 308, 401, 403]
  timeout:
    description: Time to wait for all sites, in seconds.
    type: int
    default: 30
attributes:
  check_mode:
    description: Asks in any mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: N/A
"""

EXAMPLES = r"""
- name: Wait until a site answers on its own host
  metricstack.graphite.http_probe:
    sites:
      - url: https://wiki.example.org/
        connect_address: 127.0.0.1
        ca_path: /etc/ssl/certs/example-ca.pem

- name: Wait until a site without TLS answers
  metricstack.graphite.http_probe:
    sites:
      - url: http://127.0.0.1:8080/version/
        host_header: wiki.example.org
    timeout: 60
"""

RETURN = r"""
statuses:
  description: What each site has answered, by its URL, with O(sites[].host_header) in parentheses.
  returned: success
  type: dict
  sample: {"https://wiki.example.org/": 200}
"""

import http.client
import ssl
import time
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host.resolver import resolved
from ansible_collections.metricstack.graphite.plugins.module_utils._host.tls import certificates_in

SITE_SPEC = {
    "url": {"type": "str", "required": True},
    "host_header": {"type": "str"},
    "connect_address": {"type": "str"},
    "ca_path": {"type": "path"},
    "certificate": {"type": "path"},
}
SECONDS_FOR_EACH = 10


class ProbeError(Exception):
    """A site does not answer as it should; the message says what it does."""


def ask(site: dict) -> int:
    """Return the status that a site answers."""
    url = urlsplit(site["url"])
    name = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=site["ca_path"])
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(name, url.port, timeout=SECONDS_FOR_EACH, context=context)
    else:
        connection = http.client.HTTPConnection(name, url.port, timeout=SECONDS_FOR_EACH)
    try:
        with resolved(name, site["connect_address"]):
            connection.connect()
        if isinstance(connection.sock, ssl.SSLSocket) and site["certificate"]:
            compare(connection.sock.getpeercert(binary_form=True), site["certificate"])
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", path, headers={"Host": site["host_header"]} if site["host_header"] else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise ProbeError(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def compare(shown: bytes | None, path: str) -> None:
    """Raise :class:`ProbeError` if a server shows another certificate than the first of a file."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        wanted = certificates_in(stream.read())
    if not wanted or shown != ssl.PEM_cert_to_DER_cert(wanted[0]):
        raise ProbeError(f"it shows another certificate than that in {path}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sites": {"type": "list", "elements": "dict", "required": True, "options": SITE_SPEC},
            "status_codes": {"type": "list", "elements": "int", "default": [200, 201, 204, 301, 302, 303, 307, 308, 401, 403]},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    deadline = time.monotonic() + module.params["timeout"]
    statuses: dict[str, int] = {}
    failures: dict[str, str] = {}
    for site in module.params["sites"]:
        shown = f"{site['url']} ({site['host_header']})" if site["host_header"] else site["url"]
        while True:
            try:
                status = ask(site)
                failure = "" if status in module.params["status_codes"] else f"it answers {status}"
            except ProbeError as error:
                status, failure = 0, str(error)
            if not failure or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if failure:
            failures[shown] = failure
        else:
            statuses[shown] = status
    if failures:
        listed = "\n".join(f"{shown} does not answer as it should: {failure}." for shown, failure in failures.items())
        module.fail_json(msg=f"After {module.params['timeout']} s:\n{listed}", failures=failures)
    module.exit_json(changed=False, statuses=statuses)


if __name__ == "__main__":
    main()
