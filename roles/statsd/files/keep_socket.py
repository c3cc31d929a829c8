# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""``keep_socket.py keep|forget NAME``: lets systemd keep the socket that is file descriptor 3 while the service restarts, or close it.

Run by kept_sockets.js, for Node.js sends no file descriptors, and systemd-notify does since systemd 254 only. Ends with 0 when systemd has
read the message; without ``BARRIER=1``, it might look for the sender's service after the sender has ended.

Source: sd_notify(3) of systemd 247 and 257.
"""

from __future__ import annotations

import os
import select
import socket
import sys

LONGEST_WAIT = 10  # seconds


def main() -> int:
    action, name = sys.argv[1:]
    if action == "keep":
        os.set_blocking(3, False)  # StatsD shares the socket, and must not wait in it
    path = os.environ["NOTIFY_SOCKET"]
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect("\0" + path[1:] if path.startswith("@") else path)
        if action == "keep":
            # Not to be polled: systemd would close a socket that has an error.
            socket.send_fds(manager, [f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}".encode()], [3])
        else:
            manager.send(f"FDSTOREREMOVE=1\nFDNAME={name}".encode())
        socket.send_fds(manager, [b"BARRIER=1"], [write])
    os.close(write)
    closed = select.poll()
    closed.register(read, 0)  # the end of the pipe is always reported
    return 0 if closed.poll(LONGEST_WAIT * 1000) else 1


if __name__ == "__main__":
    sys.exit(main())
