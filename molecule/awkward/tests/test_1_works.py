# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Check mode, the first run and the second have ended well before these tests: what was in the way is as it was, and points arrive."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import values

WHISPER = "/srv/graphite/whisper"


@pytest.fixture
def site_port():
    return 8080


@pytest.fixture
def log():
    """Return what Ansible has said before the tests, on one line."""
    text = (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "ansible.log").read_text()
    return " ".join(text.split())


def test_a_packet_comes_back_as_a_value_on_port_8080(counter_comes_back):
    counter_comes_back("awkward.works")


def test_tags_find_what_was_sent_with_tags(statsd_send, render, wait_until):
    """The switch is on in the inventory."""
    name = f"awkward.orders_{int(time.time())}"
    statsd_send(f"{name}:3|c|#env:prod,region:eu\n{name}:4|c|#env:test", f"{name}:5|c|#region:eu,env:prod")
    target = f"seriesByTag('name=stats.counters.{name}.count', 'env=prod')"

    def found():
        return [(series["tags"], sum(values(series))) for series in render(f"removeEmptySeries({target})")]

    expected = [({"name": f"stats.counters.{name}.count", "env": "prod", "region": "eu"}, 8)]
    wait_until(lambda: found() == expected, timeout=40, message="the tags do not find the series with its sum")


def test_nginx_still_answers_on_port_80(host, address):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address()}/", timeout=10) as response:
        assert "nginx" in response.headers["Server"]
    assert host.run("systemctl is-active nginx apache2").stdout.split() == ["active", "active"]


def test_whisper_files_are_below_directories_of_root(host):
    owners = host.run(f"stat --format '%n %U %a' /srv/graphite {WHISPER}").stdout.split("\n")
    assert owners[:2] == ["/srv/graphite root 755", f"{WHISPER} _graphite 755"]
    assert host.run(f"find {WHISPER} ! -user _graphite").stdout == ""
    assert host.run(f"find {WHISPER}/stats -name '*.wsp'").stdout
    assert host.run("find /var/lib/graphite -name '*.wsp'").stdout == ""


def test_the_user_who_was_there_is_as_before(host):
    user = host.user("statsd")
    assert (user.home, user.shell) == ("/srv/statsd", "/bin/bash")
    assert host.run("systemctl is-active process-of-statsd statsd").stdout.split() == ["active", "active"]
    assert host.run("ps -o user= -p $(systemctl show --property MainPID --value statsd)").stdout.strip() == "statsd"


def test_the_time_zone_has_come_along(host, render):
    assert host.package("tzdata-legacy").is_installed
    assert "TIME_ZONE = 'US/Eastern'" in host.run("cat /etc/graphite/local_settings.py").stdout


def test_the_run_has_waited_for_the_other_package_manager_and_named_it(log):
    assert re.search(r"waited for /usr/bin/python3 /usr/local/sbin/other-package-manager 30 \(process \d+\), which held a lock", log)


def test_the_dead_source_is_a_warning_with_its_name(log):
    assert "a package source could not be fetched, its old package lists are used: http://127.0.0.1:9/" in log


def test_no_module_has_left_files_in_the_private_directory(host):
    assert host.run("ls -A /tmp/user/0").stdout == ""
