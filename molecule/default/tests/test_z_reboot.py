# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The last test, because the host may come back with another address."""

from __future__ import annotations

from conftest import UNITS, values


def test_the_stack_survives_a_reboot(host, reboot, counter_comes_back, render):
    history = counter_comes_back("reboot.before")
    reboot()
    assert all(host.run(f"systemctl is-active {unit}").rc == 0 for unit in UNITS)
    counter_comes_back("reboot.after")
    assert sum(values(render("stats.counters.reboot.before.count")[0])) == sum(values(history))
