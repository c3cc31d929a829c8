# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Unused series are removed; series in use stay, and removed series are created again when they receive points."""

from __future__ import annotations

import base64
import json
import re
import time

import pages
import pytest

WHISPER = "/var/lib/graphite/whisper"
PRUNE = pages.variables("docs/retention.md", "prune")["carbon_cache_prune"]
ARCHIVE = PRUNE["archive_directory"]
TIMER = "carbon-cache-prune.timer"
MAKE = """
import os, sys, time, whisper
then = time.time() - 400 * 86400
for name in sys.argv[1:]:
    path = "/var/lib/graphite/whisper/" + name.replace(".", "/") + ".wsp"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    whisper.create(path, [(10, 360), (600, 1000)])
    whisper.update(path, 1, timestamp=then, now=then)
    os.utime(path, (then, then))
"""


@pytest.fixture
def make_unused(run_python):
    """Make series that got their last point long ago, as carbon's user."""
    return lambda *names: run_python(MAKE, *names, user="_graphite")


@pytest.fixture
def found(http_get):
    """Return the names that graphite-web finds."""
    return lambda query: [node["id"] for node in json.loads(http_get(f"/metrics/find?query={query}")[2])]


@pytest.fixture
def prune(playbook, tmp_path):
    """Run the module; return its result."""

    def run(check=False, **options):
        tasks = [
            {"name": "Prune", "metricstack.graphite.whisper_prune": options, "become": True, "register": "outcome"},
            {"name": "Result", "ansible.builtin.debug": {"msg": "RESULT:{{ outcome | to_json | b64encode }}"}},
        ]
        path = tmp_path / "prune.yml"
        path.write_text(json.dumps([{"name": "Prune", "hosts": "all", "gather_facts": False, "tasks": tasks}]))
        status, output = playbook(path, check=check)
        assert status == 0, output
        return json.loads(base64.b64decode(re.search(r"RESULT:([\w+/=]+)", output).group(1)))

    return run


def test_an_unused_series_goes_and_comes_back(make_unused, prune, counter_comes_back, found, host):
    counter_comes_back("prune.alive")
    make_unused("prune_test.old.dead", "stats.counters.prune.revived.count")
    assert found("prune_test.old.*") == ["prune_test.old.dead"]
    checked = prune(unused_for="90d", check=True)
    assert found("prune_test.old.*") == ["prune_test.old.dead"]
    pruned = prune(unused_for="90d")
    assert {**checked, "diff": None} == {**pruned, "diff": None}
    assert pruned["metrics"] == ["prune_test.old.dead", "stats.counters.prune.revived.count"]
    assert pruned["series"] > 20
    assert found("prune_test*") == found("stats.counters.prune.revived*") == []
    assert found("stats.counters.prune.alive.count") == ["stats.counters.prune.alive.count"]
    assert not host.file(f"{WHISPER}/prune_test").exists
    assert not prune(unused_for="90d")["changed"]
    counter_comes_back("prune.revived")


def test_the_timer_prunes_and_goes_with_its_variable(make_unused, playbook, found, host, counter_comes_back):
    variables = {"carbon_cache_prune": {**PRUNE, "schedule": "*-*-* 03:00"}}
    status, output = playbook("carbon.yml", variables, check=True)
    assert status == 0, output
    assert not host.file(ARCHIVE).exists
    status, output = playbook("carbon.yml", {"carbon_cache_prune": {"unused_for": "90d", "schedule": "now and then"}})
    assert status != 0
    assert "now and then" in output
    status, output = playbook("carbon.yml", variables)
    assert status == 0, output
    status, output = playbook("carbon.yml", variables)
    assert status == 0, output
    assert "changed=0" in output
    assert host.run(f"systemctl is-active {TIMER}; systemctl is-enabled {TIMER}").stdout.split() == ["active", "enabled"]
    verdict = host.run("systemd-analyze security --no-pager carbon-cache-prune.service | tail -n 1").stdout
    assert float(re.search(r"level for \S+: ([\d.]+)", verdict).group(1)) <= 2.0, verdict

    counter_comes_back("prune.alive")
    make_unused("prune_test.old.dead")
    since = int(time.time())
    started = host.run("systemctl start carbon-cache-prune.service")
    assert started.rc == 0, host.run("journalctl --no-pager -u carbon-cache-prune").stdout
    assert found("prune_test*") == []
    assert found("stats.counters.prune.alive.count") == ["stats.counters.prune.alive.count"]
    moved = host.file(f"{ARCHIVE}/prune_test/old/dead.wsp")
    assert (moved.user, moved.mtime.timestamp() < since - 399 * 86400) == ("_graphite", True)
    said = host.run(f"journalctl --no-pager --output=cat _SYSTEMD_UNIT=carbon-cache-prune.service --since=@{since}").stdout.splitlines()
    assert len(said) == 1
    assert re.match(r"Pruned 1 of \d+ series \(\d+ bytes\) and 2 directories; kept 0 in use and 0 ", said[0]), said

    status, output = playbook("carbon.yml")
    assert status == 0, output
    state = host.run(f"systemctl list-unit-files 'carbon-cache-prune*' --no-legend; systemctl is-active {TIMER}").stdout
    assert state.split() == ["inactive"]
    left = "find /etc/systemd /usr/local/lib /run/systemd -name '*carbon[-_]cache[-_]prune*'"
    assert host.run(left).stdout == ""
    status, output = playbook("carbon.yml")
    assert "changed=0" in output
    host.run(f"rm -r {ARCHIVE}")
