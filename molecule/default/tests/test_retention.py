# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the variables say is what the files are, also for series that were there before."""

from __future__ import annotations

import re
import time

import pages
import pytest
import yaml
from conftest import ROOT, values

INVENTORY = ROOT / "molecule" / "shared" / "inventory" / "group_vars" / "all.yml"
PAGE = "docs/retention.md"
SCHEMAS = yaml.safe_load(INVENTORY.read_text())["carbon_cache_storage_schemas"]


@pytest.fixture
def archives(whisper_info):
    def read(metric):
        header = whisper_info(metric)
        return list(zip(re.findall(r"secondsPerPoint: (\d+)", header), re.findall(r"points: (\d+)", header)))

    return read


def test_a_new_retention_is_reported_and_then_reaches_what_is_there(playbook, documented, archives, counter_comes_back, render, wait_until):
    name = f"retention.at_{int(time.time())}"
    counter_comes_back(name)
    series = f"stats.counters.{name}.count"
    before = values(render(series, **{"from": "-30min"})[0])
    documented_rules = pages.variables(PAGE, "rules")
    status, output = playbook("carbon.yml", {**documented_rules, "carbon_cache_expected_series": {"stats": 100, "rest": 50}})
    assert status == 0, output
    assert re.search(r"of rule stats have 10s:6h,1m:6d,10m:180d", " ".join(output.split())), output
    assert archives(series) == [("10", "2160"), ("60", "8640"), ("600", "25920")]

    def is_in_force():
        new = f"{name}.new.at_{int(time.time())}"
        counter_comes_back(new)
        return archives(f"stats.counters.{new}.count") == [("10", "2160"), ("60", "8640"), ("600", "259200")]

    wait_until(is_in_force, timeout=90, message="new series do not get the archives of the page")
    rules = [{**rule, "retentions": "10s:1h,1m:2d"} if rule["name"] == "stats" else rule for rule in SCHEMAS]
    output = documented(PAGE, "reshape", variables={"carbon_cache_storage_schemas": rules})
    assert re.search(r"^-stats: \d+ series 10s:6h,1m:6d,10m:180d$", output, re.MULTILINE), output
    assert re.search(r"^\+stats: \d+ series 10s:1h,1m:2d$", output, re.MULTILINE), output
    assert archives(series) == [("10", "360"), ("60", "2880")]
    assert values(render(series, **{"from": "-30min"})[0]) == before
    assert "whisper_retention" in documented(PAGE, "follow")
    status, output = playbook("carbon.yml", {"carbon_cache_storage_schemas": rules, "carbon_cache_existing_data": "reshape"})
    assert status == 0, output
    assert "changed=0" in output


# Three thousand points a second; the value of each is the time at which it was sent.
BURST = """
import os, pickle, socket, sys, time
carbon, sent, begin = socket.create_connection(("127.0.0.1", 2003)), [], time.time()
while time.time() < begin + float(sys.argv[1]) and not os.path.exists("/var/tmp/burst.end"):
    lines = []
    while len(sent) < (time.time() - begin) * 3000:
        name, now = len(sent) % 1000, time.time()
        sent.append((name, round(now, 3)))
        lines.append(b"burst.m%d %.3f %d\\n" % (name, now, now))
    carbon.sendall(b"".join(lines))
    time.sleep(0.02)
with open("/var/tmp/burst", "wb") as stream:
    pickle.dump(sent, stream)
"""

# A later point of the same interval takes the place of an earlier one: ten seconds in the new file, a minute in the old.
LOST = """
import pickle, time, whisper
with open("/var/tmp/burst", "rb") as stream:
    sent = pickle.load(stream)
now, lost, archives = int(time.time()), [], set()
for name in range(1000):
    path = "/var/lib/graphite/whisper/burst/m%d.wsp" % name
    archives.add(tuple((archive["secondsPerPoint"], archive["points"]) for archive in whisper.info(path)["archives"]))
    (begin, end, step), values = whisper.fetch(path, now - 3600, now)
    stored = {moment: value for moment, value in zip(range(begin, end, step), values) if value is not None}
    for moment in (moment for owner, moment in sent if owner == name):
        ten, minute = int(moment) // 10 * 10, int(moment) // 60 * 60
        if not (stored.get(ten, 0) > moment - 0.002 or minute + 60 > stored.get(minute, 0) > moment - 0.002):
            lost.append((name, moment))
print(len(sent), len(lost), lost[:5], sorted(archives))
"""


# Series of the package's rule: 60s:1d,5m:30d,1h:3y.
def test_no_point_is_lost_that_arrives_while_files_are_replaced(playbook, host, run_python, wait_until):
    run_python(BURST, "1")
    wait_until(lambda: host.run("ls /var/lib/graphite/whisper/burst | wc -l").stdout.strip() == "1000")
    rules = {"carbon_cache_storage_schemas": [{"name": "burst", "pattern": "^burst", "retentions": "10s:6h,1m:6d,10m:60d"}, *SCHEMAS]}
    status, output = playbook("carbon.yml", rules)
    assert status == 0, output
    run_python(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURST!r}, '300'], start_new_session=True)")
    status, output = playbook("carbon.yml", {**rules, "carbon_cache_existing_data": "reshape"})
    assert status == 0, output
    assert host.run("pgrep -f 'burst[.]m'").stdout, "the burst was over before the files were replaced"
    host.run("touch /var/tmp/burst.end")
    wait_until(lambda: not host.run("pgrep -f 'burst[.]m'").stdout)
    found = wait_until(lambda: re.match(r"(\d+) 0 \[\] (.*)", run_python(LOST)), message="points are missing", timeout=20, interval=3)
    assert int(found[1]) > 10000
    assert found[2] == "[((10, 2160), (60, 8640), (600, 8640))]"
    # Back to the inventory's rules, of which a run makes sure that carbon has read them.
    status, output = playbook("carbon.yml", {"carbon_cache_existing_data": "reshape"})
    assert status == 0, output
    assert run_python(LOST).endswith("[((60, 1440), (300, 8640), (3600, 26280))]\n")
