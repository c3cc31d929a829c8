# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The way out, and back in: services, configuration and packages go, data stays unless its removal is confirmed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from conftest import PASSWORD, values

PAGE = "docs/uninstall.md"
OTHER_SITE = "<VirtualHost *:80>\n    ServerName other.example\n    RedirectMatch 302 . http://other.example/\n</VirtualHost>\n"
PACKAGES = (
    "carbon-c-relay",
    "graphite-carbon",
    "graphite-web",
    "libapache2-mod-wsgi-py3",
    "python3-twisted",
    "nodejs",
    "memcached",
    "borgbackup",
)
UNINSTALLABLE = "apt cannot install apache2, carbon-c-relay, graphite-carbon, graphite-web, libapache2-mod-wsgi-py3, memcached, nodejs, npm"


@pytest.fixture
def installed(host):
    return lambda *packages: [name for name in packages if host.package(name).is_installed]


@pytest.fixture
def listeners(host):
    return lambda: sorted(line.split()[4].rpartition(":")[2] for line in host.run("ss -Hltun").stdout.splitlines())


def logs_in(http_get):
    fields = {"username": "admin", "password": PASSWORD, "nextPage": "/"}
    return http_get("/account/login", data=urlencode(fields).encode())[0] == 302


def test_half_installed_packages_are_refused_before_the_first_change(host, playbook):
    assert host.run("cd /tmp && apt-get download graphite-web && dpkg --unpack graphite-web_*.deb").rc == 0
    before = host.run("find /etc /var/lib/graphite -newer /run/statsd").stdout
    status, output = playbook("site.yml")
    assert status != 0
    assert "graphite-web (unpacked)" in output
    assert "dpkg --configure -a" in output
    assert "changed=0" in output
    assert host.run("find /etc /var/lib/graphite -newer /run/statsd").stdout == before
    assert host.run("DEBIAN_FRONTEND=noninteractive dpkg --configure -a --force-confold").rc == 0
    status, output = playbook("site.yml")
    assert status == 0, output


def test_what_the_roles_have_brought_goes_and_the_data_stays(
    host, playbook, documented, counter_comes_back, http_get, installed, listeners, render
):
    history = sum(values(counter_comes_back("uninstall.before")))
    status, output = playbook("backup.yml")
    assert status == 0, output
    key = host.file("/etc/graphite/secret_key").content_string
    assert host.run("printf %%s %s > /etc/apache2/sites-available/other.conf && a2ensite other", OTHER_SITE).rc == 0

    documented(PAGE, "check")
    assert installed(*PACKAGES) == list(PACKAGES)
    assert set(listeners()) >= {"80", "2003", "2103", "7002", "8125", "8126", "11211"}

    documented(PAGE, "uninstall")
    # Apache serves another site as well.
    assert listeners() == ["80"]
    assert http_get("/", headers={"Host": "other.example"})[0] == 302
    assert installed(*PACKAGES) == ["libapache2-mod-wsgi-py3"]
    assert host.run("systemctl --failed --plain --no-legend").stdout == ""
    assert host.run("find /etc/systemd/system /opt /usr/local/lib -name '*carbon*' -o -name '*statsd*' -o -name '*graphite*'").stdout == ""
    assert not host.file("/var/lib/statsd").exists

    assert host.run("a2dissite other && rm /etc/apache2/sites-available/other.conf").rc == 0
    status, output = playbook("uninstall.yml")
    assert status == 0, output
    assert (installed(*PACKAGES), listeners()) == ([], [])

    status, output = playbook("site.yml")
    assert status == 0, output
    assert host.file("/etc/graphite/secret_key").content_string == key
    assert logs_in(http_get)
    assert sum(values(render("stats.counters.uninstall.before.count", **{"from": "-1h"})[0])) == history
    counter_comes_back("uninstall.after")


def test_told_twice_the_data_goes(host, playbook, documented, installed):
    assert host.run("touch /var/lib/graphite/somebody.elses").rc == 0
    documented(PAGE, "data")
    assert host.run("ls -A /var/lib/graphite").stdout.split() == ["somebody.elses"]
    assert [path for path in ("/etc/carbon", "/etc/graphite", "/var/log/carbon", "/var/log/graphite") if host.file(path).exists] == []
    assert host.run("dpkg-query --show --showformat '${db:Status-Status}' graphite-carbon").stdout == ""
    status, output = playbook("uninstall.yml", {"carbon_cache_remove_data": True, "graphite_web_remove_data": True})
    assert status == 0, output
    assert "changed=0" in output


def test_a_host_that_lacks_packages_is_refused_before_the_first_change(host, playbook, installed):
    assert host.run("mkdir /root/apt && mv /etc/apt/sources.list* /root/apt && rm -rf /var/lib/apt/lists").rc == 0
    status, output = playbook("site.yml")
    assert host.run("mv /root/apt/* /etc/apt && apt-get update").rc == 0
    assert status != 0
    assert UNINSTALLABLE in output
    assert "changed=0" in output
    assert installed(*PACKAGES) == []


def test_what_statsd_is_built_with_is_looked_for_before_the_first_change(host, playbook, monkeypatch, tmp_path):
    assert host.run("printf 'Package: npm\\nPin: release *\\nPin-Priority: -1\\n' > /etc/apt/preferences.d/npm").rc == 0
    status, output = playbook("site.yml", {"statsd_build": "host"})
    assert status != 0
    assert UNINSTALLABLE in output
    assert "Package 'npm' has no installation candidate" in output
    assert "changed=0" in output
    assert host.run("rm /etc/apt/preferences.d/npm").rc == 0

    # A controller without npm, where nothing was built yet.
    tools = tmp_path / "bin"
    tools.mkdir()
    for directory in os.environ["PATH"].split(":"):
        for tool in Path(directory).glob("*"):
            if tool.name != "npm" and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("HOME", str(tmp_path))
    status, output = playbook("site.yml", {"statsd_build": "controller"})
    assert status != 0
    assert "statsd_build is controller" in output
    assert "changed=0" in output

    # What it has built before serves without npm.
    archive = Path(re.search(r"\S+/statsd-[0-9a-f]{12}\.tar\.gz", output).group())
    archive.parent.mkdir(parents=True)
    archive.touch()
    status, output = playbook("examine.yml", {"statsd_build": "controller"})
    assert status == 0, output
