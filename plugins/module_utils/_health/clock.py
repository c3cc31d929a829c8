# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The host's clock, as the kernel and the controller see it. This file is private to the collection.

Sources: adjtimex(2), ``include/uapi/linux/timex.h`` of Linux, and the container interface of systemd.
"""

from __future__ import annotations

import ctypes
import os
import struct

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import Report

# struct timex up to its status: modes, offset, freq, maxerror, esterror, status.
_TIMEX = struct.Struct("@I4li")
_TIMEX_BYTES = 512
_UNSYNCHRONIZED = 0x40
CONTAINER = "/run/systemd/container"


def kernel_status() -> int | None:
    """Return the status word of the kernel's clock, or ``None`` if it cannot be read."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        if ctypes.CDLL(None).adjtimex(buffer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return _TIMEX.unpack_from(buffer.raw)[-1]


def check_clock(report: Report, tolerance: int, now: float, reference: float | None, container: str = CONTAINER) -> None:
    """Report a clock that nothing synchronizes, or that differs from ``reference``, the controller's time a moment ago."""
    if reference is not None and abs(now - reference) > tolerance:
        direction = "ahead of" if now > reference else "behind"
        report.critical(
            "clock",
            None,
            round(now - reference),
            f"The clock is {abs(now - reference):.0f} s {direction} that of the controller, so that points get a wrong time. Set the clock"
            " and synchronize it (chrony, or timedatectl set-ntp true).",
        )
        return
    if os.path.exists(container):
        report.skip("clock_synchronization", "the clock of a container is that of its machine; look there.")
        return
    status = kernel_status()
    if status is None:
        report.skip("clock_synchronization", "the kernel does not tell it.")
    elif status & _UNSYNCHRONIZED:
        report.warn(
            "clock",
            None,
            "unsynchronized",
            "Nothing synchronizes the clock, which drifts by up to some seconds a day. Install chrony, or run timedatectl set-ntp true.",
        )
