# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Services under real systemd: started, current, on their sockets, and up."""

from __future__ import annotations

import re

import pytest

DIRECTORY = "/var/lib/service-under-test"
UNIT = "under-test@a.service"
# Listens on the ports in its configuration, one after the other, and maps a library of its own.
PROGRAM = """\
import ctypes, os, socket, sys, time
directory = sys.argv[1]
if os.path.exists(directory + "/lib.so.1"):
    ctypes.CDLL(directory + "/lib.so.1")
sockets = []
for port in open(directory + "/ports").read().split():
    sockets.append(socket.create_server(("127.0.0.1", int(port))))
    time.sleep(0.1)
print("all sockets are open", flush=True)
time.sleep(3600)
"""
TEMPLATE = f"""\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/python3 {DIRECTORY}/program.py {DIRECTORY}
ExecReload=/bin/touch /run/under-test/reloaded
RuntimeDirectory=under-test
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def service(host, run_module):
    """Run service_current for one instance; return the result."""

    def write(path, text):
        assert host.run(f"cat > {path} <<'END'\n{text}\nEND").rc == 0

    host.run(f"mkdir -p {DIRECTORY}")
    write(f"{DIRECTORY}/program.py", PROGRAM)
    write(f"{DIRECTORY}/ports", "47001 47002")
    write("/etc/systemd/system/under-test@.service", TEMPLATE)

    def run(*flags, unwanted=(), **options):
        unit = {
            "name": UNIT,
            "files": [f"{DIRECTORY}/ports", "/etc/systemd/system/under-test@.service"],
            "sockets": [{"port": 47001}, {"port": 47002}],
            **options,
        }
        return run_module("service_current", *flags, units=[unit], unwanted=list(unwanted), timeout=12)

    run.write = write
    yield run
    host.run("systemctl disable --now 'under-test@*.service' under-test@a under-test@b; systemctl stop squatter")
    host.run(f"rm -rf {DIRECTORY} /etc/systemd/system/under-test@.service; systemctl daemon-reload; systemctl reset-failed")


def done(result):
    return {key: value for key, value in result.items() if key in ("started", "restarted", "reloaded", "stopped", "enabled") and value}


def main_process(host):
    return host.run(f"systemctl show --property MainPID --value {UNIT}").stdout.strip()


def test_a_service_is_started_once_and_found_current(host, service):
    assert done(service("--check")) == {"started": [UNIT], "enabled": [UNIT]}
    assert main_process(host) == "0"
    assert done(service()) == {"started": [UNIT], "enabled": [UNIT]}
    before = main_process(host)
    for flags in (["--check"], []):
        assert not service(*flags)["changed"]
    assert main_process(host) == before
    # A run that ended between writing a file and restarting the service.
    service.write(f"{DIRECTORY}/ports", "47001 47002 47003")
    assert service("--check")["reasons"] == {UNIT: f"{DIRECTORY}/ports is newer"}
    assert done(service()) == {"restarted": [UNIT]}
    assert main_process(host) != before
    assert not service()["changed"]


def test_a_reload_keeps_the_process_and_a_replaced_library_does_not(host, service):
    # On Debian 11 and earlier, /lib may be a directory beside /usr/lib.
    library = host.run("find /lib/ /usr/lib/ -name 'libz.so.1.*' -o -name 'libcrypt.so.1.*' | head -n 1").stdout.strip()
    assert host.run(f"cp {library} {DIRECTORY}/lib.so.1").rc == 0
    service()
    before = main_process(host)
    host.run(f"touch {DIRECTORY}/ports")
    options = {"on_change": "reload", "started": "/run/under-test/reloaded"}
    assert done(service(**options)) == {"reloaded": [UNIT]}
    assert not service(**options)["changed"]
    assert main_process(host) == before
    assert host.run(f"cp {library} {DIRECTORY}/new && mv {DIRECTORY}/new {DIRECTORY}/lib.so.1").rc == 0
    result = service(**options)
    assert done(result) == {"restarted": [UNIT]}
    assert result["reasons"] == {UNIT: f"{DIRECTORY}/lib.so.1 has been replaced"}
    assert not service(**options)["changed"]


def squat(host, program):
    """Have another process hold port 47002; return once it does."""
    assert host.run(f"systemd-run --unit squatter python3 {program}").rc == 0
    assert host.run("timeout 20 sh -c 'until ss -Hltn sport = :47002 | grep -q .; do sleep 0.1; done'").rc == 0


def test_a_port_that_somebody_else_holds_is_not_green(host, service):
    """It opens its first port, for a moment, again and again."""
    squat(host, "-m http.server --bind 127.0.0.1 47002")
    result = service()
    assert "under-test@a.service does not" in result["msg"]
    assert "Address already in use" in result["msg"]
    # A restart loop that an earlier run has left is a failure as well.
    result = service(sockets=[{"port": 47001}])
    assert "under-test@a.service does not stay up" in result["msg"]
    host.run("systemctl stop squatter")
    assert "msg" not in service()
    assert not service()["changed"]


def test_a_port_that_is_free_in_time_is_waited_for(host, service):
    script = "import socket, time; s = socket.create_server(('127.0.0.1', 47002)); time.sleep(4)"
    squat(host, f'-c "{script}"')
    assert done(service()) == {"started": [UNIT], "enabled": [UNIT]}


def test_a_test_that_fails_leaves_the_service_alone(host, service):
    service()
    before = main_process(host)
    host.run(f"touch {DIRECTORY}/ports")
    result = service(test=["sh", "-c", "echo line 1 is wrong >&2; exit 1"])
    assert "line 1 is wrong" in result["msg"]
    assert main_process(host) == before
    assert done(service(test=["true"])) == {"restarted": [UNIT]}


def test_unwanted_units_are_stopped_and_disabled(host, service):
    service()
    assert host.run("systemctl enable --now under-test@b.service").rc == 0
    unwanted = {"unwanted": ["under-test@*.service"], "sockets": [{"port": 47001}]}
    checked = service("--check", **unwanted)
    assert (checked["stopped"], checked["disabled"]) == (["under-test@b.service"], ["under-test@b.service"])
    result = service(**unwanted)
    assert (result["stopped"], result["disabled"]) == (checked["stopped"], checked["disabled"])
    assert host.run("systemctl is-active under-test@a").stdout.strip() == "active"
    assert host.run("systemctl is-enabled under-test@b").stdout.strip() == "disabled"
    assert not service(**unwanted)["changed"]


def test_a_unit_whose_file_is_gone_is_stopped_and_disabled_as_well(host, service, run_module):
    unit = "/etc/systemd/system/under-test-gone.service"
    service.write(unit, "[Service]\nExecStart=/bin/sleep 600\n[Install]\nWantedBy=multi-user.target")
    assert host.run(f"systemctl enable --now under-test-gone && rm {unit} && systemctl daemon-reload").rc == 0
    result = run_module("service_current", unwanted=["under-test-*.service"])
    assert (result["stopped"], result["disabled"]) == (["under-test-gone.service"], ["under-test-gone.service"])
    assert host.run("ls /etc/systemd/system/multi-user.target.wants/under-test-gone.service").rc != 0
    assert not run_module("service_current", unwanted=["under-test-*.service"])["changed"]


@pytest.mark.parametrize("unit", ["carbon-cache@a", "carbon-relay", "statsd", "graphite-memcached", "graphite_build_search_index"])
def test_a_service_has_its_sandbox(host, unit):
    output = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", output)
    assert exposure, output
    assert float(exposure[1]) <= 1.5, output


def test_a_port_that_apache_does_not_need_makes_way(host, playbook, http_get):
    """An administrator enables ssl, whose port another program uses: the next reload would end Apache."""
    assert host.run("systemd-run --unit squatter python3 -m http.server --bind 0.0.0.0 443").rc == 0
    host.run("a2enmod ssl")
    try:
        for check in (True, False):
            status, output = playbook("graphite_web.yml", check=check)
            assert status == 0, output
            assert "squatter.service" in output
            assert "changed=0" not in output
        assert http_get("/version/")[0] == 200
        status, output = playbook("graphite_web.yml")
        assert status == 0, output
        assert "changed=0" in output
    finally:
        host.run("a2dismod ssl socache_shmcb; systemctl stop squatter; systemctl reload apache2")
    assert "# Listen 443" in host.run("cat /etc/apache2/ports.conf").stdout
