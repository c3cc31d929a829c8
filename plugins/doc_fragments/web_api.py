# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that ask graphite-web over HTTP."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - Address of graphite-web, without C(/render) or C(/events).
    type: str
    default: http://127.0.0.1
  timeout:
    description:
      - Time to wait for the answer, in seconds.
    type: int
    default: 30
  host_header:
    description:
      - Name of the site to ask for, if O(url) has an address; sent as the Host header of the request. By default, the name in O(url).
    type: str
  connect_address:
    description:
      - Address to connect to, in place of that to which the host in O(url) resolves. No proxy is asked then. Over HTTPS,
        the certificate has to be that of the host in O(url).
    type: str
    version_added: 2.1.0
  ca_path:
    description:
      - Path of the certificates on the host by which that of an HTTPS server is trusted. If left out, those of the system.
    type: path
    version_added: 2.1.0
  secret_key_file:
    description:
      - File on the host with graphite-web's secret key, as the role P(metricstack.graphite.graphite_web#role) writes it. With it,
        the module shows that it runs on the host of graphite-web, which then asks for no login.
      - Without effect if O(url_username) is given, if O(connect_address), or else O(url), has another host, or if the module cannot read
        the file.
    type: path
    default: /etc/graphite/secret_key
    version_added: 2.1.0
  url_username:
    description:
      - User name for HTTP basic authentication.
    type: str
  url_password:
    description:
      - Password that is sent with O(url_username), by HTTP basic authentication.
    type: str
  force_basic_auth:
    description:
      - Whether to send the credentials with the first request, without being asked for them.
    type: bool
    default: false
  use_proxy:
    description:
      - Whether to ask through the proxy that the environment names.
    type: bool
    default: true
  validate_certs:
    description:
      - Whether to check the certificate of an HTTPS server.
    type: bool
    default: true
notes:
  - What all tasks of a play or block say of these options can stand once in its C(module_defaults), under
    C(group/metricstack.graphite.graphite_web_api).
"""
