# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""An installation from source keeps its series, users, dashboards and events, and all of its files."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

import pages

OLD = "stats.gauges.billing.open"
WHISPER = "/opt/graphite/storage/whisper"


def test_the_points_are_there_and_new_ones_join_them(old_points, render, statsd_send, wait_until):
    (series,) = render(OLD, **{"from": min(old_points) - 10, "until": max(old_points)})
    found = {time: value for value, time in series["datapoints"]}
    assert len(old_points) > 300
    assert {time: found.get(time) for time in old_points} == old_points
    statsd_send("billing.open:4711|g")
    wait_until(lambda: 4711 in [value for value, _time in render(OLD)[0]["datapoints"]], timeout=60, message="no new point")


def test_user_dashboard_and_event_are_there(http_get):
    status, headers, _body = http_get("/account/login", data=urlencode({"username": "olga", "password": "years-ago-2019"}).encode())
    assert (status, "sessionid" in headers.get("Set-Cookie", "")) == (302, True)
    assert json.loads(http_get("/dashboard/load/Billing")[2])["state"]["graphs"][0][1]["title"] == "Invoices"
    (event,) = json.loads(http_get("/events/get_data?tags=rack&from=-1d")[2])
    assert (event["what"], event["data"]) == ("Moved to the new rack", "by Olga")


def test_nothing_of_the_old_installation_is_gone(host):
    paths = ["storage/graphite.db", "conf/carbon.conf", "conf/graphite.wsgi", "bin/carbon-cache.py", "webapp/graphite/local_settings.py"]
    for path in paths:
        assert host.file(f"/opt/graphite/{path}").exists, path
    assert host.file("/etc/apache2/sites-available/upstream.conf").exists
    assert host.run("ls /etc/apache2/sites-enabled").stdout.split() == ["graphite.conf"]
    assert "/opt/graphite/bin" in host.run("cat /etc/systemd/system/carbon-cache.service.*~").stdout
    assert host.run("pgrep --full '[/]opt/graphite/bin'").rc == 1
    assert host.file("/opt/graphite/storage/graphite.db").user == "www-data"


def test_the_commands_of_the_page_have_nothing_left_to_do(documented):
    variables = pages.variables("docs/migrate.md", "adopt")
    assert re.findall(r"changed=(\d+)", documented("docs/migrate.md", "site", variables=variables)) == ["0", "0"]


def test_without_the_variable_what_would_be_left_behind_is_named_before_the_first_change(host, playbook):
    # As on a host that has not had the stack yet.
    own = "/etc/graphite/graphite.wsgi /usr/local/lib/carbon_cache_guard"
    assert host.run(f"for path in {own}; do mv $path $path.away || exit 1; done").rc == 0
    try:
        status, output = playbook("site.yml", variables={"carbon_cache_whisper_directory": "/srv/other", "stack_adopt": None})
    finally:
        assert host.run(f"for path in {own}; do mv $path.away $path || exit 1; done").rc == 0
    assert status != 0
    assert f"series in {WHISPER}" in output
    assert "users, dashboards and events in /opt/graphite/storage/graphite.db" in output
    assert "Set stack_adopt to /opt/graphite" in output
    assert "changed=0" in output
    assert not host.file("/srv/other").exists


def test_a_site_with_the_name_of_our_processes_is_named_before_the_first_change(host, playbook):
    assert host.run("cd /etc/apache2/sites-enabled && ln -s ../sites-available/upstream.conf 000-upstream.conf").rc == 0
    try:
        status, output = playbook("site.yml", variables={"stack_adopt": ""})
        assert status != 0
        assert "has a WSGIDaemonProcess graphite, which is the name of the processes of site 'graphite' as well" in output
        assert "The file serves /opt/graphite/conf/graphite.wsgi. Disable the file (a2dissite 000-upstream)" in output
        assert "changed=0" in output
    finally:
        host.run("rm /etc/apache2/sites-enabled/000-upstream.conf")
