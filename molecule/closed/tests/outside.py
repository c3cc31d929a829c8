# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""How curl reaches the site from any machine, with and without TLS. Whether its certificate is right, other tests say."""

from __future__ import annotations

import re
import subprocess


def reach(address):
    """Return the address of the site, and what curl needs to get there."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--head", "--max-time", "60", f"http://{address}/version/"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    place = re.search(r"(?im)^location: https://([^/:\s]+)(:\d+)?/", answer)
    if place is None:
        return f"http://{address}", ["--noproxy", "*"]
    name, port = place.group(1), (place.group(2) or ":443")[1:]
    return f"https://{name}{place.group(2) or ''}", ["--noproxy", "*", "--insecure", "--resolve", f"{name}:{port}:{address}"]
