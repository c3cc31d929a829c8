# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What cannot work is refused before the first change, in check mode as in the run, with the variable, its value and the cure.

Each run would change something, so that "nothing changed" says something on this host.
"""

from __future__ import annotations

import json
import re
import shlex

import pytest
from conftest import ROOT

CHANGE = {"MAX_CACHE_SIZE": 1900000}
SERVERS = [{"server": "./servers/udp", "address": "127.0.0.1", "port": 8225}]
STRANGER = 'import socket, time; s = socket.create_server(("0.0.0.0", {})); time.sleep(600)'
TREE = "/srv/linked/whisper"
ZONE = "/usr/share/zoneinfo/Antarctica/Troll"  # the controller knows it, so that validation has nothing to say
UNREADY = f"""
mkdir -p {TREE} /data2/stats && ln -s /data2/stats {TREE}/stats && chown -R _graphite: {TREE} /data2
mv {ZONE} {ZONE}.gone
sed -i '/^Package: graphite-carbon$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status
"""
READY = f"rm -r /srv/linked /data2; mv {ZONE}.gone {ZONE}"


@pytest.fixture(scope="module", params=[True, False], ids=["check", "run"])
def check(request):
    return request.param


@pytest.fixture
def site_port():
    return 8080


@pytest.fixture(scope="module")
def refused(host, run_ansible, check):
    """Run site.yml, which must refuse; return what it says, on one line."""

    def state():
        return host.run(
            "sha256sum /etc/carbon/* /etc/graphite/* /etc/statsd/* /etc/apache2/sites-enabled/*; ls /etc/graphite;"
            " systemctl show --property MainPID --value carbon-cache@a statsd apache2 nginx; dpkg-query --show"
        ).stdout

    def run(variables=None, *options):
        before = state()
        variables = {**(variables or {})}
        variables["carbon_cache_settings"] = {**CHANGE, **variables.get("carbon_cache_settings", {})}
        flags = ["--check"] if check else []
        site = ROOT / "playbooks" / "site.yml"
        status, output, errors = run_ansible("ansible-playbook", site, "-e", json.dumps(variables), *flags, *options)
        assert status != 0, output
        assert not re.search(r"changed=[1-9]", output), output
        assert state() == before
        return " ".join((output + errors).split())

    return run


@pytest.fixture(scope="module")
def strangers(host):
    """Return names of programs that hold ports, by the port."""
    names = {}
    for port in (2004, 2013):
        command = ["systemd-run", f"--unit=stranger-{port}", "--collect", "/usr/bin/python3", "-c", STRANGER.format(port)]
        assert host.run(shlex.join(command)).rc == 0
        names[port] = f"python3, process {host.run(f'systemctl show --property MainPID --value stranger-{port}').stdout.strip()}"
    yield names
    host.run("systemctl stop stranger-2004 stranger-2013")


@pytest.fixture(scope="module")
def unready(host, refused, strangers):
    """Return what one run says of a host that lacks much."""
    assert host.run(UNREADY).rc == 0
    yield refused(
        {
            "graphite_web_port": 80,
            "graphite_web_time_zone": "Antarctica/Troll",
            "carbon_cache_whisper_directory": TREE,
            "carbon_cache_instances": [{"name": "a", "line_receiver_port": 2013, "cache_query_port": 7002}],
            "carbon_cache_settings": {"PICKLE_RECEIVER_PORT": 2004},
            "statsd_config": {"servers": [{"address": "127.0.0.1"}, {"server": "./servers/tcp", "address": "192.0.2.9", "port": 8135}]},
        }
    )
    assert host.run(READY).rc == 0


def test_port_80_which_nginx_holds(unready):
    assert "Nothing was changed on" in unready
    assert re.search(r"site 'graphite' has port 80, but nginx, process \d+, unit nginx.service holds 0.0.0.0:80", unready)
    assert "Stop it (systemctl disable --now nginx.service), or give the site another port (graphite_web_port)." in unready


@pytest.mark.parametrize(("variable", "port"), [("carbon_cache_instances", 2013), ("carbon_cache_settings", 2004)])
def test_a_port_of_carbon_that_a_stranger_holds(unready, strangers, variable, port):
    cure = f"Stop it (systemctl disable --now stranger-{port}.service), or give another port."
    assert f"{variable} has port {port}, but {strangers[port]}, unit stranger-{port}.service holds 0.0.0.0:{port} (tcp). {cure}" in unready


def test_an_address_of_a_server_of_statsd_that_the_host_lacks(unready):
    assert "statsd_config: the address of one of servers is 192.0.2.9, which is not an address of this host; it has " in unready


def test_a_link_that_leads_out_of_the_whisper_directory(unready):
    assert f"{TREE}/stats, in carbon_cache_whisper_directory, is a symbolic link to /data2/stats" in unready
    assert "mount /data2/stats on it (mount --bind" in unready


def test_a_time_zone_that_no_package_brings(unready):
    assert "graphite_web_time_zone is Antarctica/Troll, but the host has no such time zone" in unready
    assert "timedatectl list-timezones" in unready


def test_packages_that_are_half_installed(host, unready):
    cure = re.search(r"graphite-carbon \(half-configured\)\. Run: (dpkg --configure -a [-\w ]+ && apt-get -y -f install)", unready)
    assert cure, unready
    result = host.run(f"DEBIAN_FRONTEND=noninteractive sh -c '{cure[1]}'")
    assert result.rc == 0, result.stderr
    assert host.run("dpkg --audit").stdout == ""


def test_a_directory_that_the_sandbox_hides_and_settings_that_do_not_load(host, refused, http_get):
    """The user's own program tests the settings, and must read the new ones: the directory for temporary files is root's alone."""
    host.run("ln -sfn /home /srv/hidden")
    output = refused(
        {"carbon_cache_whisper_directory": "/srv/hidden/whisper", "graphite_web_settings": {"STORAGE_FINDERS": ["no_such.Finder"]}}
    )
    host.run("rm /srv/hidden")
    assert "carbon_cache_whisper_directory is /srv/hidden/whisper, but it leads to /home/whisper, which is below /home" in output
    assert "hoose another directory, for example below /srv" in output
    assert "graphite_web_settings" in output
    assert "no_such" in output
    assert http_get("/version/")[0] == 200


def test_variables_that_no_host_could_follow(refused):
    output = refused(
        {"carbon_cache_whisper_directory": "/tmp/whisper", "graphite_web_time_zone": "Mars/Olympus", "statsd_config": {"servers": SERVERS}}
    )
    assert "carbon_cache_whisper_directory is '/tmp/whisper'; give a directory of its own by its absolute path, such as /" in output
    assert "graphite_web_time_zone is 'Mars/Olympus', which is no time zone; give one such as" in output
    assert "statsd_config has servers, of which none listens on 127.0.0.1, port 8125" in output


@pytest.fixture
def with_inventory(host, tmp_path):
    """Return options that add hosts and groups to the inventory; HOST is the host under test."""

    def add(groups, **variables):
        name = host.backend.get_hostname()
        children = {group: {"hosts": {item.replace("HOST", name): {} for item in hosts}} for group, hosts in groups.items()}
        hosts = {item: variables for members in groups.values() for item in members if item != "HOST"}
        path = tmp_path / "more.json"
        path.write_text(json.dumps({"all": {"hosts": hosts, "children": {key: value for key, value in children.items() if key != "all"}}}))
        return ["-i", str(path)]

    return add


def test_groups_whose_names_are_misspelt(refused, with_inventory):
    output = refused({}, *with_inventory({"carbon": ["HOST"], "graphite-web": ["db"], "Stats-D": ["db"]}))
    assert "The inventory has a group 'graphite-web': rename the group to 'graphite_web'." in output
    assert "The inventory has a group 'Stats-D': rename the group to 'statsd'." in output
    assert "No host was contacted." in output


def test_several_hosts_without_groups(refused, with_inventory):
    output = refused({}, *with_inventory({"all": ["db", "web"], "web_servers": ["web"]}))
    assert "The inventory has 3 hosts, but none of the groups" in output
    assert "go_runtime_metrics, statsd, carbon_relay, carbon, memcached, graphite_web" in output
    assert "Put each host into the groups of its components" in output
    assert "No host was contacted." in output


def test_an_unknown_tag(refused):
    output = refused({}, "--tags", "graphite-web")
    assert "No task of site.yml has one of the tags graphite-web. The tags of site.yml are carbon, carbon_relay, graphite_web" in output


def test_a_host_that_cannot_be_reached_beside_one_that_can(refused, with_inventory):
    groups = {"carbon": ["HOST", "gone"], "statsd": ["HOST"], "graphite_web": ["HOST"]}
    ssh = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    output = refused({"carbon_replicas": 0}, *with_inventory(groups, **ssh))
    assert re.search(r"gone : ok=\d+ changed=0 unreachable=1", output)
