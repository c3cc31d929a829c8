# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Several hosts as one Graphite: every series on two stores, whole through each front, whatever dies."""

from __future__ import annotations

import time

import pytest
from cluster import FRONTS, NAME, RATE, RELAYS, SPARE, STORES, Sender, copies, counted, docker, on, player

testinfra_hosts = [f"ansible://{NAME}-f1"]


@pytest.fixture
def play(run_ansible, tmp_path):
    return player(run_ansible, tmp_path)


def test_each_series_is_on_two_stores_and_whole_through_each_front(wait_until):
    sender = Sender("two", RELAYS, 3, series=200)
    sender.join()
    for front in FRONTS:
        # From the caches, before anything is on disk.
        wait_until(lambda front=front: sender.missing(front, range(200), sender.end) == 0, message=f"{front} lacks points")
    wait_until(lambda: len(copies("load_test/two/")) == 200 and all(len(stores) == 2 for stores in copies("load_test/two/").values()))
    shares = [sum(store in stores for stores in copies("load_test/two/").values()) for store in STORES]
    assert min(shares) > 80, shares


def test_stores_answer_fronts_at_their_own_address_only():
    listening = on("c1").run("ss -Hltn").stdout
    assert "10.213.77.11:8081 " in listening
    assert "10.213.77.11:2013 " in listening
    assert on("c1").run("ls /etc/apache2/sites-enabled").stdout.split() == ["graphite-store.conf"]
    for port in (2103, 2203, 7002, 7102):
        assert f"127.0.0.1:{port} " in listening


def test_what_each_statsd_counts_comes_back_from_each_front(wait_until):
    for relay, amount in zip(RELAYS, (3, 4)):
        program = f"import socket; socket.socket(2, 2).sendto(b'shared:{amount}|c', ('127.0.0.1', 8125))"
        assert on(relay).run(f'/usr/bin/python3 -c "{program}"').rc == 0
    for front in FRONTS:
        wait_until(lambda front=front: counted(front, "shared") == 7, timeout=60, message=f"{front} does not show what both have counted")


def test_a_user_of_one_front_is_known_to_the_other():
    names = {on(front).run("sha256sum /etc/graphite/secret_key").stdout.split()[0] for front in FRONTS}
    assert len(names) == 1


def test_nothing_is_missing_while_a_store_is_away_and_after(wait_until, documented):
    sender = Sender("store", RELAYS, 60)
    time.sleep(15)
    docker("kill", f"{NAME}-c2")
    killed = time.time()
    incomplete = []
    while time.time() < sender.begin + 40:
        for front in FRONTS:
            until = int(time.time()) - 5
            incomplete.append(sender.missing(front, range(200), until))
    docker("start", f"{NAME}-c2")
    sender.join()
    assert incomplete
    assert sum(incomplete) == 0, incomplete
    for front in FRONTS:
        wait_until(lambda front=front: sender.missing(front, range(200), sender.end) == 0, timeout=60, message=f"{front} lacks points")
    # What the store had in memory is in the other copies. Points of the last minute may be in caches, and are not compared.
    time.sleep(max(0, killed + 70 - time.time()))
    documented("docs/rebalance.md", "rebalance")
    assert sender.missing("c2", sender.at_home("c2", range(200)), sender.end) == 0


COUNT_FOR_30_S = """
import socket, time
for _ in range(300):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"relay_away:1|c", ("127.0.0.1", 8125))
    time.sleep(0.1)
"""


def test_a_relay_that_is_away_loses_nothing_of_senders_that_have_two(wait_until):
    sender = Sender("relay", RELAYS, 40)
    # StatsD sends to the relay of its host, or else to the other one.
    assert on("r1").run("systemd-run /usr/bin/python3 -c %s", COUNT_FOR_30_S).rc == 0
    time.sleep(10)
    on("r1").run("systemctl kill --signal KILL carbon-relay; systemctl stop carbon-relay")
    time.sleep(15)
    on("r1").run("systemctl start carbon-relay")
    sender.join()
    for front in FRONTS:
        wait_until(lambda front=front: sender.missing(front, range(200), sender.end) == 0, timeout=60, message="points were lost")
        wait_until(lambda front=front: counted(front, "relay_away") == 300, timeout=60, message="counts were lost")


def test_three_stores_become_four_and_three_again_under_load(wait_until, play):
    everybody = (*STORES, SPARE)
    before = Sender("before", RELAYS, 20, series=200)
    before.join()
    sender = Sender("move", RELAYS, 3000)
    status, output = play("site", {SPARE: {}})
    assert status != 0
    assert "would have other homes in the ring" in output
    for more in ({}, {"carbon_store_leaving": True}):
        status, output = play("site", {SPARE: more}, carbon_ring_may_move=True)
        assert status == 0, output
        status, output = play("rebalance", {SPARE: more})
        assert status == 0, output
        expected = STORES if more else everybody
        found = copies("load_test/", everybody)
        assert {len(stores) for stores in found.values()} == {2}, {path: stores for path, stores in found.items() if len(stores) != 2}
        assert {store for stores in found.values() for store in stores} == set(expected)
        for front in FRONTS:
            assert before.missing(front, range(200), before.end) == 0
            assert sender.missing(front, range(200), int(time.time()) - 10) == 0
    sender.stop()
    for front in FRONTS:
        wait_until(lambda front=front: sender.missing(front, range(RATE), sender.end) == 0, timeout=90, message=f"{front} lacks points")
    assert f"Take {NAME}-{SPARE} out of the group carbon" in output


def psql(statement):
    on("f1").check_output("runuser --user postgres -- psql --dbname graphite --command %s", statement)


def test_a_front_that_is_older_than_the_database_is_refused(play):
    psql("INSERT INTO django_migrations (app, name, applied) VALUES ('dashboard', '0099_future', now())")
    status, output = play("site", None, "--limit", f"{NAME}-f2", graphite_web_settings={"DOCUMENTATION_URL": "http://docs.example.org/"})
    assert status != 0
    assert "dashboard.0099_future" in output
    assert "docs.example.org" not in on("f2").file("/etc/graphite/local_settings.py").content_string
    psql("DELETE FROM django_migrations WHERE name = '0099_future'")


def test_a_store_that_has_lost_its_disk_comes_back_from_its_backup_and_the_copies(wait_until, play):
    saved = Sender("saved", RELAYS, 5, series=200)
    saved.join()
    wait_until(lambda: len(copies("load_test/saved/")) == 200, message="not all points are on disk")
    home = saved.at_home("c2", range(200))
    status, output = play("backup")
    assert status == 0, output
    later = Sender("later", RELAYS, 5, series=200)
    later.join()
    time.sleep(5)
    units = "carbon-cache@a carbon-cache@b"
    assert on("c2").run(f"systemctl stop {units} && rm -r /var/lib/graphite/whisper/* && systemctl start {units}").rc == 0
    assert saved.missing("c2", home, saved.end) == len(home) * 5
    for front in FRONTS:
        assert saved.missing(front, range(200), saved.end) == 0
    status, output = play("restore", None, "--limit", f"{NAME}-c2", graphite_restore_force=True)
    assert status == 0, output
    assert saved.missing("c2", home, saved.end) == 0
    time.sleep(max(0, later.end + 70 - time.time()))  # points that may be in caches are not compared
    status, output = play("rebalance")
    assert status == 0, output
    assert len(copies("load_test/later/", ["c2"])) > 80
    assert later.missing("c2", later.at_home("c2", range(200)), later.end) == 0


def test_every_path_and_every_host_is_found_sound(play):
    for playbook in ("verify", "doctor"):
        status, output = play(playbook)
        assert status == 0, output
