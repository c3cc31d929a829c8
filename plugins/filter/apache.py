# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The sites of the role apache_wsgi. Each filter is documented beside this file."""

from __future__ import annotations

from typing import Any

from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import certificates_of, complete_sites


def apache_wsgi_sites(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return complete_sites(sites)


def apache_wsgi_certificates(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return certificates_of(sites)


class FilterModule:
    def filters(self) -> dict:
        return {"apache_wsgi_certificates": apache_wsgi_certificates, "apache_wsgi_sites": apache_wsgi_sites}
