# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Asks graphite-web on other hosts: over TLS, if wanted, and again while Apache there reads its configuration.

local_settings.py names the finder. For graphite-web 1.1.8 to 1.2.1 and urllib3 1.26 to 2.x. Installed by the role
metricstack.graphite.graphite_web, which overwrites manual changes.
"""

from __future__ import annotations

import urllib3
from django.conf import settings
from graphite.finders import remote

# When Apache is reloaded, mod_wsgi answers 503 until the new processes are there, for less than a second on most hosts. The finder would
# leave the server out for a minute (REMOTE_RETRY_DELAY). This waits for 0, 0.2, 0.4, 0.8 and 1.6 s, in all for less than FETCH_TIMEOUT.
RETRIES = urllib3.Retry(
    total=5, connect=3, read=3, status_forcelist=[503], backoff_factor=0.1, raise_on_status=False, respect_retry_after_header=False
)


class Pools(urllib3.PoolManager):
    """Connections to servers. Over TLS, a certificate is for the name of the server rather than for its address."""

    def __init__(self, authority=None, names=None, **options):
        trust = {"cert_reqs": "CERT_REQUIRED", "ca_certs": authority} if authority else {}
        super().__init__(retries=RETRIES, **trust, **options)
        # As urllib3 writes the host of a URL.
        self._names = {address.lower(): name for address, name in (names or {}).items()}

    def connection_from_host(self, host, port=None, scheme="http", pool_kwargs=None):
        name = self._names.get(host.strip("[]"))
        if scheme == "https" and name:
            pool_kwargs = {**(pool_kwargs or {}), "assert_hostname": name, "server_hostname": name}
        return super().connection_from_host(host, port, scheme, pool_kwargs)


# The finder has no other way to be given a pool. The file of the authority is read with each connection.
remote.http = Pools(**settings.CLUSTER_TLS, num_pools=10, maxsize=5)
RemoteFinder = remote.RemoteFinder
