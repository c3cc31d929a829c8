# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Connections to a name at an address of our choice. This file is private to the collection.

Over TLS, a server is asked by its name, which also says which certificate is right. Whether and where the name resolves is another
question: on the host itself, it is asked over loopback.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Iterator


@contextlib.contextmanager
def resolved(name: str, address: str | None) -> Iterator[None]:
    """Within, connections of this process to ``name`` go to ``address``; as usual if there is none."""
    if not address:
        yield
        return
    usual = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        asked = host.decode() if isinstance(host, bytes) else host
        is_ours = isinstance(asked, str) and asked.lower() == name.lower()
        return usual(address if is_ours else host, *arguments, **options)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = usual
