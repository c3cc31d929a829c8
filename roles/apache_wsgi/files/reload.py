# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""reload.py CERTIFICATE KEY [CHAIN]: reload Apache once the certificate fits its key.

Apache ends if it is reloaded with a certificate and a key of another one, and a renewal replaces one file after the other. Started by
systemd when one of the files changes; what changes meanwhile starts nothing, and is waited for here.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time

SETTLED = 1.0
PATIENCE = 60.0


def state_of(paths: list[str]) -> list:
    """Return what changes whenever a file does, or a link to it."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)
            found.append((os.path.realpath(path), status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return found


def refusal_of(certificate: str, key: str) -> str:
    """Return why Apache would not start with a certificate, or an empty text."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        return f"{certificate} with {key}: {error}"
    return ""


def main(paths: list[str]) -> int:
    done = None
    deadline = time.monotonic() + PATIENCE
    while True:
        before = state_of(paths)
        if before == done:
            return 0
        time.sleep(SETTLED)
        refusal = refusal_of(*paths[:2])
        if state_of(paths) == before and not refusal:
            # Does nothing if an administrator has stopped Apache.
            subprocess.run(["systemctl", "try-reload-or-restart", "apache2.service"], check=True)
            done = before
        elif time.monotonic() > deadline:
            print(f"Apache keeps the certificate that it has. {refusal}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
