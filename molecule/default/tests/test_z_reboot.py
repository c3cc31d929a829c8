# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The last test, because the host may come back with another address."""

from __future__ import annotations

import subprocess

from conftest import UNITS, values


def test_the_stack_survives_a_reboot(host, wait_until, counter_comes_back, render):
    history = counter_comes_back("reboot.before")
    subprocess.run(["docker", "restart", "--timeout", "60", host.backend.get_hostname()], check=True, capture_output=True)
    wait_until(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), timeout=60)
    wait_until(lambda: all(host.run(f"systemctl is-active {unit}").rc == 0 for unit in UNITS), timeout=30)
    wait_until(lambda: host.run("ss -Hltn").stdout.count("LISTEN") >= 4, timeout=30)
    counter_comes_back("reboot.after")
    assert sum(values(render("stats.counters.reboot.before.count")[0])) == sum(values(history))
