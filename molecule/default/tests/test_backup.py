# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A backup under traffic, and the way back from it: the same graphs, users and dashboards."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import contextmanager
from functools import partial
from urllib.parse import quote, urlencode

import pytest
from conftest import MODULE_DEFAULTS, PASSWORD, values

WHISPER = "/var/lib/graphite/whisper"
TRAFFIC = """
import socket, time
carbon = socket.create_connection(("127.0.0.1", 2003))
end = time.time() + 600
while time.time() < end:
    now = int(time.time())
    carbon.sendall("".join(f"load_test.backup.{n} {now // 10 * n} {now}\\n" for n in range(40)).encode())
    time.sleep(0.1)
"""
# Keeps whoever wants to write to a file waiting, and with it carbon's only writer.
HOLD = """
import fcntl, os, pwd, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
descriptor = os.open(sys.argv[1], os.O_RDONLY)
os.seteuid(pwd.getpwnam("_graphite").pw_uid)
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("held", flush=True)
time.sleep(40)
"""
READ = """
import json, sys, whisper
print(json.dumps({path: [v for v in whisper.fetch(path, int(sys.argv[1]))[1] if v is not None] for path in sys.argv[2:]}))
"""


@pytest.fixture
def background(host):
    """Run a program on the host for as long as a block lasts."""

    @contextmanager
    def run(name, program, *arguments):
        host.run(f"systemctl reset-failed {name}")
        command = ["systemd-run", f"--unit={name}", "python3", "-c", program, *arguments]
        assert host.run(shlex.join(command)).rc == 0
        yield
        host.run(f"systemctl stop {name}")

    return run


@pytest.fixture
def send(run_python):
    """Send lines to carbon."""
    return lambda *lines: run_python(
        "import socket,sys; socket.create_connection(('127.0.0.1',2003)).sendall('\\n'.join([*sys.argv[1:], '']).encode())", *lines
    )


@pytest.fixture
def tasks(playbook, tmp_path):
    """Run tasks as a playbook."""

    def run(*wanted):
        path = tmp_path / "tasks.yml"
        path.write_text(
            json.dumps(
                [
                    {
                        "name": "Tasks",
                        "hosts": "all",
                        "gather_facts": False,
                        "become": True,
                        "tasks": wanted,
                        "module_defaults": MODULE_DEFAULTS,
                    }
                ]
            )
        )
        status, output = playbook(path)
        assert status == 0, output
        return output

    return run


@pytest.fixture
def clean(host, playbook):
    candidate = host.run("apt-cache policy borgbackup | sed -n 's/ *Candidate: //p'").stdout
    if candidate.startswith("1.1."):
        status, output = playbook("backup.yml")
        assert status != 0
        assert "1.2 or later is needed" in " ".join(output.split())
        pytest.skip("this distribution's Borg is too old, and the backup has said so")
    yield
    host.run(f"rm -rf /var/backups/graphite /root/tree {WHISPER}/backup_* {WHISPER}/load_test/backup /var/lib/graphite/*.before-restore-*")


def test_what_carbon_has_not_written_is_in_the_backup(host, send, run_python, tasks, background, render, wait_until, clean):
    names = [f"backup_cache.{number}" for number in range(5)]
    begin = int(time.time()) - 60
    send(*(f"{name} 1 {begin}" for name in [*names, "backup_hold"]))
    wait_until(lambda: host.run(f"ls {WHISPER}/backup_cache/*.wsp {WHISPER}/backup_hold.wsp").stdout.count(".wsp") == 6)
    time.sleep(2)  # until carbon has closed them
    host.run(f"mkdir /root/tree; cp -a {WHISPER}/backup_cache /root/tree")
    with background("backup-hold", HOLD, f"{WHISPER}/backup_hold.wsp"):
        wait_until(lambda: "held" in host.run("journalctl --unit backup-hold").stdout)
        now = int(time.time())
        send(f"backup_hold 2 {now}")
        time.sleep(2)
        send(*(f"{name} 7 {now}" for name in names))
        wait_until(lambda: values(render("backup_cache.0")[0])[-1:] == [7], message="graphite-web shows what carbon has in its cache")
        # A tree that carbon does not write to: what is not from the cache cannot be there.
        tasks(
            {"name": "Borg", "ansible.builtin.apt": {"name": "borgbackup", "install_recommends": False, "update_cache": True}},
            {
                "name": "Back up",
                "metricstack.graphite.graphite_backup": {
                    "whisper_directory": "/root/tree",
                    "carbonlink": ["127.0.0.1:7002:a"],
                    "host": "tree",
                },
            },
        )
    borg = "cd /root/tree && BORG_BASE_DIR=/var/backups/graphite/borg borg"
    archive = host.run(f"{borg} list --short /var/backups/graphite/repository").stdout.strip()
    assert host.run(f"{borg} extract /var/backups/graphite/repository::{archive}").rc == 0
    paths = [f"/root/tree/whisper/{name.replace('.', '/')}.wsp" for name in names]
    assert json.loads(run_python(READ, str(begin - 60), *paths)) == {path: [1, 7] for path in paths}


def test_a_backup_brings_back_graphs_users_and_dashboards(
    host, http_get, documented, render, tasks, background, login, wait_until, clean, tmp_path
):
    user = {"name": "backup", "password": "restored 'word'"}
    tasks({"name": "A user", "metricstack.graphite.graphite_user": user})
    state = {"name": "backup", "graphs": [], "defaultGraphParams": {"from": "-1hours", "until": "now"}}
    save = urlencode({"state": json.dumps(state)}).encode()
    http_get("/dashboard/save/backup", headers={"Cookie": login("admin", PASSWORD)}, data=save)
    page = partial(
        documented,
        "docs/backup.md",
        instead={"/srv/backups": str(tmp_path / "backups")},
        variables={"vault_graphite_backup_passphrase": "with 'quotes' and \"more\""},
    )

    def graphs(end):
        series = render("load_test.backup.*", **{"from": end - 600, "until": end - end % 10 - 1})  # the last interval was not over yet
        return {item["target"]: item["datapoints"] for item in series}

    with background("backup-traffic", TRAFFIC):
        wait_until(lambda: len(graphs(int(time.time()))) == 40)
        time.sleep(21)
        begin = int(time.time())
        page("backup")
        before = graphs(begin)
        assert {len([value for value, _time in points if value is not None]) >= 2 for points in before.values()} == {True}
        time.sleep(max(0, begin + 40 - time.time()))
        # It holds newer data now.
        secret = host.file("/etc/graphite/secret_key").content_string
        output = page("restore", fails=True)
        assert "graphite_restore_force" in output
        assert "load_test/backup" in output
    tasks(
        {"name": "No user", "metricstack.graphite.graphite_user": {"name": "backup", "state": "absent"}},
        {"name": "No dashboard", "metricstack.graphite.graphite_dashboard": {"name": "backup", "state": "absent"}},
        # As on a bare host, but for the time that it takes to make one.
        {"name": "Another key", "ansible.builtin.copy": {"content": "another", "dest": "/etc/graphite/secret_key"}},
        {"name": "No backups", "ansible.builtin.file": {"path": "/var/backups/graphite", "state": "absent"}},
    )
    host.run(f"rm -rf {WHISPER}/load_test/backup")
    page("force")
    assert graphs(begin) == before
    assert host.file("/etc/graphite/secret_key").content_string == secret
    assert "sessionid=" in login("backup", user["password"])
    assert json.loads(http_get(f"/dashboard/load/{quote('backup')}")[2])["state"] == state
    assert host.run(f"find {WHISPER} ! -user _graphite").stdout == ""
    assert host.run(f"ls -d {WHISPER}.before-restore-*").rc == 0
    tasks(
        {"name": "No user", "metricstack.graphite.graphite_user": {"name": "backup", "state": "absent"}},
        {"name": "No dashboard", "metricstack.graphite.graphite_dashboard": {"name": "backup", "state": "absent"}},
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"graphite_backup_directory": "backups"}, ["graphite_backup_directory is 'backups'", "absolute"]),
        ({"graphite_backup_keep": {"fortnightly": 2}}, ["graphite_backup_keep", "fortnightly", "weekly"]),
        ({"graphite_backup_keep": {"daily": 0}}, ["graphite_backup_keep", "at least 1"]),
        ({"graphite_backup_passphrase": ""}, ["graphite_backup_passphrase is empty"]),
    ],
)
def test_variables_that_make_no_backup_are_refused(playbook, variables, words):
    status, output = playbook("backup.yml", variables)
    output = " ".join(output.split())
    assert status != 0
    assert [word for word in words if word not in output] == []
    assert "Install" not in output
