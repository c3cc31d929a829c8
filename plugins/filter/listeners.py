# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Who holds a port. The filter is documented beside this file."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import port_holders


class FilterModule:
    def filters(self) -> dict:
        return {"port_holders": port_holders}
