# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Whether a unit is older than what it reads, on real files and processes; what needs systemd is in molecule."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host import services
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import parse_sockets
from ansible_collections.metricstack.graphite.plugins.modules import service_current

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "ActiveEnterTimestamp": "Fri 2026-01-02 03:04:05.500000 UTC",
}
STARTED = 1767323045.5


def unit(**options):
    return {"name": "no-such-unit.service", "started": None, "files": [], "restart_files": [], "on_change": "restart", **options}


def file_of(path, age):
    path.touch()
    os.utime(path, (STARTED + age, STARTED + age))
    return str(path)


def test_the_time_of_a_start_is_read_to_the_microsecond():
    assert services.active_since(RUNNING) == STARTED
    assert services.active_since({"ActiveEnterTimestamp": ""}) is None


@pytest.mark.parametrize("on_change", ["restart", "reload"])
def test_a_unit_that_is_older_than_a_file_is_restarted_or_reloaded(tmp_path, on_change):
    older, newer = file_of(tmp_path / "a.conf", -1), file_of(tmp_path / "b.conf", 1)
    assert service_current.planned_action(unit(files=[older]), RUNNING, []) is None
    action = service_current.planned_action(unit(files=[f"{tmp_path}/*.conf"], on_change=on_change), RUNNING, [])
    assert action == (on_change, f"{newer} is newer")


def test_the_path_that_tells_the_start_wins_while_it_is_there(tmp_path):
    newer = file_of(tmp_path / "b.conf", 1)
    reloaded = unit(files=[newer], started=file_of(tmp_path / "pid", 2))
    assert service_current.planned_action(reloaded, RUNNING, []) is None
    os.unlink(tmp_path / "pid")
    assert service_current.planned_action(reloaded, RUNNING, [])


def test_what_is_read_at_a_start_only_means_a_restart_after_any_reload(tmp_path):
    newer = file_of(tmp_path / "envvars", 1)
    reloaded = unit(restart_files=[newer], started=file_of(tmp_path / "pid", 2), on_change="reload")
    assert service_current.planned_action(reloaded, RUNNING, []) == ("restart", f"{newer} is newer")


def test_what_check_mode_would_change_counts(tmp_path):
    paths = [f"{tmp_path}/sites-available/graphite.conf"]
    assert service_current.planned_action(unit(files=[f"{tmp_path}/sites-available/*"]), RUNNING, paths)
    assert service_current.planned_action(unit(files=[f"{tmp_path}/other"]), RUNNING, paths) is None


@pytest.mark.parametrize(
    ("state", "substate", "starts"),
    [
        ("inactive", "dead", True),
        ("failed", "failed", True),
        ("activating", "auto-restart", True),
        ("activating", "auto-restart-queued", True),
        ("activating", "start", False),
    ],
)
def test_what_does_not_run_is_started(state, substate, starts):
    action = service_current.planned_action(unit(), {**RUNNING, "ActiveState": state, "SubState": substate}, [])
    assert (action and action[0]) == ("start" if starts else None)


def test_a_link_counts_by_its_own_age_and_by_that_of_its_target(tmp_path):
    os.symlink(file_of(tmp_path / "target", 1), tmp_path / "link")
    os.utime(tmp_path / "link", (STARTED - 9, STARTED - 9), follow_symlinks=False)
    assert services.newer_path([f"{tmp_path}/link"], STARTED) == f"{tmp_path}/link"
    os.utime(tmp_path / "target", (STARTED - 9, STARTED - 9))
    assert services.newer_path([f"{tmp_path}/link"], STARTED) is None
    os.unlink(tmp_path / "target")
    assert services.newer_path([f"{tmp_path}/link"], STARTED) is None


def test_a_time_in_the_future_does_not_restart_for_ever(tmp_path):
    path = tmp_path / "file"
    path.touch()
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    assert services.newer_path([str(path)], time.time() - 60) == str(path)
    time.sleep(0.1)
    assert services.newer_path([str(path)], time.time()) is None


def test_an_executable_that_was_replaced_is_found(tmp_path):
    program = tmp_path / "program"
    shutil.copy(shutil.which("sleep"), program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            time.sleep(0.2)
            assert services.replaced_file(process.pid) is None
            os.unlink(program)
            assert services.replaced_file(process.pid) == str(program)
        finally:
            process.kill()
    assert services.replaced_file(process.pid) is None


MAPS = """\
7f00 r-xp 0000 08:01 12 /usr/lib/python3.13/lib-dynload/_json.cpython-313-x86_64-linux-gnu.so
7f01 rw-s 0000 00:01 13 /dev/zero (deleted)
7f02 r-xp 0000 00:01 14 /memfd:libffi.so (deleted)
7f03 r-xp 0000 00:01 15 /tmp/ffi.so (deleted)
7f04 r--p 0000 08:01 16 /var/lib/graphite/cache (deleted)
{}"""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", None),
        ("7f05 r-xp 0000 08:01 17 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n", "/usr/lib/x86_64-linux-gnu/libssl.so.3"),
        ("7f05 r-xp 0000 08:01 17 /usr/lib/apache2/modules/mod_wsgi.so-3.13 (deleted)\n", "/usr/lib/apache2/modules/mod_wsgi.so-3.13"),
    ],
)
def test_a_library_that_was_replaced_is_found(tmp_path, line, found):
    (tmp_path / "1").mkdir()
    os.symlink("/usr/sbin/apache2", tmp_path / "1" / "exe")
    (tmp_path / "1" / "maps").write_text(MAPS.format(line))
    assert services.replaced_file(1, str(tmp_path)) == found


def test_processes_are_found_by_their_unit(tmp_path):
    for number, group in enumerate(["/docker/1/system.slice/statsd.service", "/system.slice/my-statsd.service", "/a/statsd.service/sub"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cgroup").write_text(f"1:name=systemd:/x\n0::{group}\n")
    assert services.processes_of("statsd.service", str(tmp_path)) == [0, 2]
    assert os.getpid() not in services.processes_of("statsd.service")


def test_sockets_are_those_of_the_unit():
    sockets = parse_sockets(
        "tcp LISTEN 0 50 127.0.0.1:2003 0.0.0.0:* cgroup:/system.slice/system-carbon.slice/carbon-cache@a.service\n"
        'tcp LISTEN 0 50 127.0.0.1:2004 0.0.0.0:* users:(("nc",pid=7,fd=3)) cgroup:/system.slice/nc.service\n'
        'udp UNCONN 0 0 127.0.0.1:7002 0.0.0.0:* users:(("carbon",pid=9,fd=3))\n'
    )
    wanted = [{"protocol": protocol, "port": port} for protocol, port in (("tcp", 2003), ("tcp", 2004), ("tcp", 7002), ("any", 7002))]
    missing = services.missing_sockets("carbon-cache@a.service", wanted, sockets, [9])
    assert missing == ["tcp port 2004", "tcp port 7002"]


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd runs here")
def test_a_machine_without_systemd_is_told(run_module):
    result = run_module("service_current", units=[{"name": "statsd.service"}])
    assert "systemctl show" in result["msg"]


def test_only_processes_that_still_run_the_program_are_ended(run_module):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as process:
        name = os.path.basename(os.readlink(f"/proc/{process.pid}/exe"))
        try:
            other = run_module("service_current", unwanted_processes=[process.pid, 4194304], unwanted_programs=["node"])
            checked = run_module("service_current", "--check", unwanted_processes=[process.pid], unwanted_programs=[name])
            assert (other["changed"], checked["ended_processes"]) == (False, [process.pid])
            assert process.poll() is None
        finally:
            process.kill()
