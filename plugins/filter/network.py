# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Addresses and networks. Each filter is documented beside this file."""

from __future__ import annotations

import ipaddress

from ansible.errors import AnsibleFilterError


def networks(texts: list) -> list[str]:
    try:
        return [str(ipaddress.ip_network(str(text))) for text in texts]
    except ValueError as error:
        raise AnsibleFilterError(f"networks: {error}") from error


class FilterModule:
    def filters(self) -> dict:
        return {"networks": networks}
