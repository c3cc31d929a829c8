# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The files of a tree, brought to other rules by the module as Ansible runs it."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.filter.carbon import whisper_retention_report

OLD = [(60, 1440), (300, 8640), (3600, 26280)]
RULES = [{"name": "load", "pattern": r"^load\.", "retentions": "10s:6h,1m:6d,10m:60d"}]
NEW = [(10, 2160), (60, 8640), (600, 8640)]
DAY = 86400


def make(path, archives=tuple(OLD), points=(), method="average", factor=0.5, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    whisper.create(str(path), list(archives), factor, method, **options)
    for archive_points in points:
        whisper.update_many(str(path), archive_points)
    return path


def archives_of(path):
    return [(archive["secondsPerPoint"], archive["points"]) for archive in whisper.info(str(path))["archives"]]


def values_of(path, step, seconds, ahead=0):
    now = int(time.time()) + ahead
    (begin, end, step), values = whisper.fetch(str(path), now - seconds, now, now, f"{step}s")
    return dict(zip(range(begin, end, step), values))


def known(values):
    return {moment: value for moment, value in values.items() if value is not None}


@pytest.fixture
def bring(run_module, tmp_path):
    def run(*flags, **arguments):
        return run_module(
            "whisper_retention", *flags, **{"directory": str(tmp_path), "storage_schemas": RULES, "storage_aggregations": [], **arguments}
        )

    return run


def test_each_point_is_there_afterwards_at_the_best_resolution(bring, tmp_path):
    now = int(time.time())
    minutes = {now // 60 * 60 - 60 * back: float(back) for back in range(1, 1400) if back % 50}
    path = make(tmp_path / "load" / "requests.wsp", points=[list(minutes.items())])
    # What the coarser archives hold alone is older than what the finer ones cover.
    with open(path, "r+b", buffering=0) as stream:
        whisper.file_update_many(stream, [(now // 3600 * 3600 - 3600 * back, back * 10.0) for back in range(31 * 24, 59 * 24)], now=now)
        whisper.file_update_many(stream, [(now // 300 * 300 - 300 * back, back * 1.0) for back in range(2 * 288, 29 * 288)], now=now)
    fives = known(values_of(path, 300, 30 * DAY))
    hours = known(values_of(path, 3600, 59 * DAY))
    result = bring()
    assert result["changed"]
    assert (result["series"], result["differing"], result["reshaped"]) == (1, 1, 1)
    assert archives_of(path) == NEW
    ten_seconds, minute, ten_minutes = values_of(path, 10, 21600), values_of(path, 60, 6 * DAY), values_of(path, 600, 60 * DAY)
    for moment, value in minutes.items():
        if moment > now - 21500:
            assert ten_seconds[moment] == value
        assert minute[moment] == value
    older_fives = {moment: value for moment, value in fives.items() if moment < now - DAY - 600}
    assert older_fives
    for moment, value in older_fives.items():
        if moment > now - 6 * DAY + 120:
            assert minute[moment] == value
        elif moment % 600 == 0 and moment + 300 in fives:
            assert ten_minutes[moment] == (value + fives[moment + 300]) / 2
    for moment, value in hours.items():
        if moment < now - 30 * DAY - 7200:
            assert ten_minutes[moment] == value
    assert len(known(ten_seconds)) == len([moment for moment in minutes if moment in ten_seconds])


def test_a_lone_point_outlives_a_coarser_archive_that_would_not_aggregate_it(bring, tmp_path):
    moment = int(time.time()) // 600 * 600 - 20 * DAY
    path = make(tmp_path / "load" / "rare.wsp", [(60, 60 * 24 * 30)], [[(moment + 180, 5.0)]])
    bring(storage_aggregations=[{"name": "all", "pattern": ".*", "xfilesfactor": 0.9, "aggregation_method": "average"}])
    assert known(values_of(path, 600, 60 * DAY)) == {moment: 5.0}


@pytest.mark.parametrize(("method", "expected"), [("sum", 30.0), ("average", 3.0), ("max", 5.0), ("min", 1.0), ("last", 5.0)])
def test_finer_points_are_aggregated_as_the_rules_say(bring, tmp_path, method, expected):
    begin = int(time.time()) // 600 * 600 - 1200
    path = make(tmp_path / "load" / "m.wsp", [(60, 1440)], [[(begin + 60 * index, index % 5 + 1.0) for index in range(10)]])
    rules = [{"name": "load", "pattern": "load", "retentions": "10m:60d"}]
    bring(storage_schemas=rules, storage_aggregations=[{"name": "a", "pattern": ".*", "xfilesfactor": 0, "aggregation_method": method}])
    assert known(values_of(path, 600, DAY)) == {begin: expected}


def test_a_resolution_that_does_not_divide_the_new_one_is_aggregated_too(bring, tmp_path):
    begin = int(time.time()) // 600 * 600 - 600
    path = make(tmp_path / "load" / "m.wsp", [(40, 2160)], [[(begin + 40 * index, float(index)) for index in range(12)]])
    bring(storage_schemas=[{"name": "load", "pattern": "load", "retentions": "60s:1d"}])
    expected = [[0, 1], [2], [3, 4], [5], [6, 7], [8], [9, 10], [11]]
    assert known(values_of(path, 60, DAY)) == {begin + 60 * index: sum(group) / len(group) for index, group in enumerate(expected)}


def test_a_point_ahead_of_the_clock_stays(bring, tmp_path):
    moment = int(time.time()) // 60 * 60 + 600
    path = make(tmp_path / "load" / "m.wsp", points=[[(moment, 7.0), (moment - 900, 3.0)]])
    bring()
    assert known(values_of(path, 10, 1800, ahead=900)) == {moment: 7.0, moment - 900: 3.0}


def test_check_mode_reports_and_the_second_run_finds_nothing(bring, tmp_path):
    for index in range(5):
        make(tmp_path / "load" / f"m{index}.wsp")
    make(tmp_path / "other.wsp")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.wsp")}
    report = bring("--check")
    assert report["changed"]
    (unmatched, load) = report["rules"]
    assert load["found"] == {"1m:1d,5m:30d,1h:3y": 5}
    assert (load["bytes"], load["bytes_after"]) == (5 * 436372, 5 * 233332)
    assert (unmatched["name"], unmatched["differing"]) == ("(none)", 1)
    assert "load: 5 series 1m:1d,5m:30d,1h:3y" in report["shown_diff"]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.wsp")}
    text = whisper_retention_report(report)
    assert "5 of rule load have 1m:1d,5m:30d,1h:3y" in text
    assert "reshape" in text
    assert bring()["reshaped"] == 6
    again = bring()
    assert not again["changed"]
    assert whisper_retention_report(again) == ""
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_another_aggregation_alone_leaves_the_points_where_they_are(bring, tmp_path):
    path = make(tmp_path / "load" / "m.wsp", NEW, [[(int(time.time()) - 100, 1.0)]])
    os.utime(path, (1, 1_100_000_000))
    number = path.stat().st_ino
    rules = [{"name": "a", "pattern": "load", "xfilesfactor": 0.1, "aggregation_method": "max"}]
    result = bring(storage_aggregations=rules)
    assert (result["changed"], result["relabelling"], result["reshaped"]) == (True, 1, 0)
    assert (path.stat().st_ino, path.stat().st_mtime) == (number, 1_100_000_000)
    assert whisper.info(str(path))["aggregationMethod"] == "max"
    assert not bring(storage_aggregations=rules)["changed"]


def test_owner_mode_time_and_sparseness_stay(bring, tmp_path):
    dense, sparse = make(tmp_path / "load" / "dense.wsp"), make(tmp_path / "load" / "sparse.wsp", sparse=True)
    for path in (dense, sparse):
        os.chown(path, 1234, 4321)
        os.chmod(path, 0o640)
        os.utime(path, (1_000_000_000, 1_100_000_000))
    bring()
    for path in (dense, sparse):
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_mtime) == (1234, 4321, 0o640, 1_100_000_000)
        assert archives_of(path) == NEW
    assert dense.stat().st_blocks * 512 >= dense.stat().st_size
    assert sparse.stat().st_blocks * 512 < 20000


def test_what_is_no_whisper_file_is_reported_and_set_aside_on_request(bring, tmp_path):
    good = make(tmp_path / "load" / "good.wsp")
    (tmp_path / "load" / "empty.wsp").touch()
    (tmp_path / "load" / "noise.wsp").write_bytes(os.urandom(5000))
    (tmp_path / "load" / "short.wsp").write_bytes(good.read_bytes()[:9000])
    for name in ("empty", "noise", "short"):
        os.utime(tmp_path / "load" / f"{name}.wsp", (1, 1))
    (tmp_path / "load" / "being_made.wsp").touch()
    (tmp_path / "load" / "notes.txt").touch()
    result = bring()
    assert {item["path"] for item in result["corrupt_files"]} == {f"load/{name}.wsp" for name in ("empty", "noise", "short")}
    assert result["in_creation"] == 1
    assert "no whisper files" in whisper_retention_report(result)
    assert bring(set_aside_corrupt=True)["changed"]
    assert sorted(path.name for path in (tmp_path / "load").glob("*.wsp")) == ["being_made.wsp", "good.wsp"]
    assert len(list((tmp_path / "load").glob("*.wsp.corrupt-*"))) == 3
    assert not bring(set_aside_corrupt=True)["changed"]


def damaged(content, position, value):
    return content[:position] + struct.pack("!L", value) + content[position + 4 :]


def test_one_damaged_header_is_reported_and_does_not_stop_the_others(bring, tmp_path):
    good = [make(tmp_path / "load" / f"m{index}.wsp") for index in range(3)]
    content = good[0].read_bytes()
    damages = {
        "offset": damaged(content, 16, 2**31),
        "overlap": damaged(content, 28, 52),
        "step": damaged(content, 20, 61),
        "retention": damaged(content, 4, 60),
        "number": damaged(content, 12, 2**32 - 1),
        "none": damaged(content, 12, 0),
    }
    for name, damage in damages.items():
        path = tmp_path / "load" / f"{name}.wsp"
        path.write_bytes(damage)
        os.utime(path, (1, 1))
    odd = os.fsencode(tmp_path / "load") + b"/odd\xff.wsp"
    with open(odd, "wb") as stream:
        stream.write(b"noise" * 100)
    os.utime(odd, (1, 1))
    result = bring()
    assert result["reshaped"] == 3
    assert {item["path"] for item in result["corrupt_files"]} == {*(f"load/{name}.wsp" for name in damages), "load/odd\\xff.wsp"}
    assert [archives_of(path) for path in good] == [NEW] * 3


def test_names_that_leave_no_room_for_a_second_one_are_left_alone(bring, tmp_path):
    path = make(tmp_path / "load" / f"{'x' * 248}.wsp")
    result = bring()
    assert (result["unreadable"], result["changed"]) == (1, False)
    assert "too long" in result["unreadable_files"][0]["reason"]
    assert archives_of(path) == OLD


def test_a_tree_of_any_depth_is_walked(bring, tmp_path):
    top = tmp_path / "load"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _level in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    source = make(tmp_path / "source" / "m.wsp")
    os.rename(source, "m.wsp", dst_dir_fd=descriptor)
    os.close(descriptor)
    assert bring()["reshaped"] == 1
    subprocess.run(["rm", "-rf", top], check=True)


def test_hidden_directories_are_left_alone(bring, tmp_path):
    for name in (".snapshot/load", "load/.git", "lost+found"):
        make(tmp_path / name / "m.wsp")
    assert bring()["series"] == 0


def test_links_are_not_followed(bring, tmp_path):
    tree, outside = tmp_path / "tree", make(tmp_path / "outside" / "m.wsp")
    make(tree / "load" / "m.wsp")
    (tree / "load" / "link.wsp").symlink_to(outside)
    (tree / "load" / "loop").symlink_to("..")
    (tree / "elsewhere").symlink_to(outside.parent)
    top = tmp_path / "top"
    top.symlink_to(tree)
    result = bring(directory=str(top))
    assert (result["series"], result["reshaped"], result["links"]) == (1, 1, 1)
    assert archives_of(outside) == OLD


def test_series_with_tags_follow_the_rule_of_their_name(bring, tmp_path):
    tagged = make(tmp_path / "_tagged" / "abc" / "def" / "load_DOT_m;host=a_DOT_b.wsp")
    make(tmp_path / "_tagged" / "abc" / "def" / ("0" * 64 + ".wsp"))
    result = bring(storage_schemas=[{"name": "load", "pattern": r"^load\.m;host=a\.b$", "retentions": "10s:6h"}])
    assert result["unnamed"] == 1
    assert archives_of(tagged) == [(10, 2160)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[a]\npattern = .*\nretentions = 10x:1d\n", "unknown unit 'x'"),
        ("[a]\npattern = (\nretentions = 10s:1d\n", "not a regular expression"),
        ("pattern = .*\n", "no section headers"),
        ("[a]\npattern = .*\nretentions = 10s:1d\n[a]\npattern = b\n", "already exists"),
    ],
)
def test_rules_that_carbon_could_not_read_are_refused(run_module, tmp_path, content, reason):
    (tmp_path / "storage-schemas.conf").write_text(content)
    path = make(tmp_path / "load" / "m.wsp")
    result = run_module("whisper_retention", directory=str(tmp_path), conf_directory=str(tmp_path))
    assert not result["changed"]
    assert reason in result["msg"]
    assert "Nothing was changed" in result["msg"]
    assert archives_of(path) == OLD


def test_the_rules_of_carbons_own_files_are_read_as_carbon_reads_them(run_module, tmp_path):
    (tmp_path / "storage-schemas.conf").write_text(
        "[dead]\npattern = load\n[first]\npattern = ^load\nretentions = 10s:6h\n[second]\npattern = .*\nretentions = 60s:1d\n"
    )
    (tmp_path / "storage-aggregation.conf").write_text("[sums]\npattern = count$\nxFilesFactor = 0\naggregationMethod = sum\n")
    load, other = make(tmp_path / "load" / "count.wsp"), make(tmp_path / "other.wsp")
    assert run_module("whisper_retention", directory=str(tmp_path), conf_directory=str(tmp_path))["reshaped"] == 2
    assert (archives_of(load), archives_of(other)) == ([(10, 2160)], [(60, 1440)])
    assert (whisper.info(str(load))["aggregationMethod"], whisper.info(str(load))["xFilesFactor"]) == ("sum", 0.0)
    assert (whisper.info(str(other))["aggregationMethod"], whisper.info(str(other))["xFilesFactor"]) == ("average", 0.5)


def test_a_change_that_the_disk_could_not_take_does_not_start(bring, tmp_path, file_system):
    small = file_system(tmp_path / "small", "size=8m")
    paths = [make(small / "load" / f"m{index}.wsp", [(60, 1440)]) for index in range(20)]
    report = bring("--check", directory=str(small))
    assert report["bytes_needed"] > report["bytes_available"]
    result = bring(directory=str(small))
    assert not result["changed"]
    assert f"needs {result['bytes_needed']} bytes" in result["msg"]
    assert {tuple(archives_of(path)) for path in paths} == {((60, 1440),)}


def test_sparse_files_need_the_room_that_they_take(bring, tmp_path, file_system):
    small = file_system(tmp_path / "small", "size=8m")
    for index in range(40):
        make(small / "load" / f"m{index}.wsp", [(60, 1440 * 30)], sparse=True)
    assert bring(directory=str(small))["reshaped"] == 40


REPLACE = """
import sys, time
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import StorageRules
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import open_tree, walk
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.retention import NoRoomError, Report, Reshaper, Work
rules = StorageRules([{"name": "load", "pattern": "load", "retentions": "10s:6h,1m:6d,10m:60d"}], [])
reshaper = Reshaper(Work(rules, False, None), Report())
try:
    for entry in walk(open_tree(sys.argv[1])):
        reshaper.rewrite(entry, growing=True)
        reshaper.rewrite(entry, growing=False)
except NoRoomError:
    print("full")
reshaper.settle()
"""


def test_a_disk_that_fills_up_costs_nothing_and_the_next_run_goes_on(bring, tmp_path, file_system):
    moment = int(time.time()) // 60 * 60 - 600
    small = file_system(tmp_path / "small", "size=3m")
    paths = [make(small / "load" / f"m{index}.wsp", [(60, 1440)], [[(moment, float(index))]]) for index in range(20)]
    run = subprocess.run([sys.executable, "-c", REPLACE, small], capture_output=True, text=True, check=True, env=in_tree())
    assert run.stdout == "full\n"
    assert {len(archives_of(path)) for path in paths} == {1, 3}
    assert [known(values_of(path, 60, 1200)) for path in paths] == [{moment: float(index)} for index in range(20)]
    subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
    assert bring(directory=str(small))["changed"]
    assert [archives_of(path) for path in paths] == [NEW] * 20
    assert [known(values_of(path, 60, 1200)) for path in paths] == [{moment: float(index)} for index in range(20)]


def in_tree():
    return {**os.environ, "PYTHONPATH": ".ansible/collections"}


WRITER = """
import os, sys, time, whisper
path, second, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path, "r+b", buffering=0) as stream:
    print("open", flush=True)
    deadline = time.monotonic() + 30
    while not os.path.exists(second) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.2)
    whisper.file_update_many(stream, [(moment, 2.0), (moment - 60, 2.0)])
"""


def test_a_point_that_is_written_to_a_file_while_it_is_replaced_is_carried_over(bring, tmp_path):
    moment = int(time.time()) // 60 * 60 - 120
    path = make(tmp_path / "load" / "m.wsp", points=[[(moment, 1.0)]])
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, path.parent / ".m.wsp.replaced", str(moment)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        result = bring()
        assert writer.wait() == 0
    assert result["carried_over"] == 2
    assert archives_of(path) == NEW
    assert known(values_of(path, 10, 600)) == {moment: 2.0, moment - 60: 2.0}


HOLDER = """
import os, sys, time
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import lease
descriptor = os.open(sys.argv[1], os.O_RDWR)
with lease(descriptor, exclusive=True):
    print("held", flush=True)
    time.sleep(2)
"""


def test_a_lease_of_somebody_else_is_waited_for(bring, tmp_path):
    path = make(tmp_path / "load" / "m.wsp")
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True, env=in_tree()) as holder:
        assert holder.stdout.readline() == "held\n"
        result = bring()
        assert holder.wait() == 0
    assert (result["unreadable"], result["reshaped"]) == (0, 1)


def killed_between(path, write_to_old, write_to_new, moment):
    """Leave what a run leaves that is killed after it has replaced a file."""
    second = path.parent / f".{path.name}.replaced"
    os.utime(path, ns=(1, time.time_ns() - 10**10))
    written = path.stat()
    os.link(path, second)
    path.unlink()
    make(path, NEW, [[(moment, 1.0)]])
    os.utime(path, ns=(1, written.st_mtime_ns))
    (path.parent / f".{path.name}.reshaping").write_bytes(b"half")
    if write_to_old:
        whisper.update_many(str(second), write_to_old)
    if write_to_new:
        whisper.update_many(str(path), write_to_new)


@pytest.mark.parametrize(
    ("to_old", "to_new", "expected"),
    [
        ([], [], {0: 1.0}),
        ([(0, 2.0), (-60, 3.0)], [], {0: 2.0, -60: 3.0}),
        ([(-60, 3.0)], [(0, 4.0)], {0: 4.0, -60: 3.0}),
    ],
)
def test_the_next_run_finishes_what_a_kill_has_left(bring, tmp_path, to_old, to_new, expected):
    moment = int(time.time()) // 60 * 60 - 120
    path = make(tmp_path / "load" / "m.wsp", points=[[(moment, 1.0)]])
    killed_between(path, *([(moment + offset, value) for offset, value in points] for points in (to_old, to_new)), moment)
    checked, done = bring("--check"), bring()
    assert (checked["changed"], checked["recovered"], done["changed"], done["recovered"]) == (True, 1, True, 1)
    assert known(values_of(path, 10, 600)) == {moment + offset: value for offset, value in expected.items()}
    assert [item.name for item in path.parent.iterdir()] == ["m.wsp"]
    assert not bring()["changed"]


def test_a_kill_at_any_moment_loses_nothing(bring, tmp_path):
    moment = int(time.time()) // 60 * 60 - 120
    paths = [make(tmp_path / "load" / f"m{index}.wsp", points=[[(moment, float(index))]]) for index in range(60)]
    chance = random.Random(1)
    begun = 0
    for _round in range(4):
        size = sum(path.stat().st_size for path in paths)
        with subprocess.Popen([sys.executable, "-c", REPLACE, tmp_path], env=in_tree()) as run:
            while run.poll() is None and sum(path.stat().st_size for path in paths) == size:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.2)
            run.send_signal(signal.SIGKILL)
        begun += len(list((tmp_path / "load").glob(".*.replaced")))
        for index, path in enumerate(paths):
            assert known(values_of(path, 60, 1200)) == {moment: float(index)}
    assert begun > 0
    bring()
    assert {tuple(archives_of(path)) for path in paths} == {tuple(NEW)}
    assert [known(values_of(path, 60, 1200)) for path in paths] == [{moment: float(index)} for index in range(60)]
    assert sorted(item.name for item in (tmp_path / "load").iterdir()) == sorted(path.name for path in paths)


def test_files_that_go_during_the_run_are_passed_over(bring, tmp_path):
    paths = [make(tmp_path / "load" / f"m{index}.wsp") for index in range(150)]
    remover = threading.Thread(target=lambda: [(time.sleep(0.01), path.unlink()) for path in paths[::-2]])
    remover.start()
    result = bring()
    remover.join()
    assert "msg" not in result, result
    assert {tuple(archives_of(path)) for path in paths[::2]} == {tuple(NEW)}


def test_two_runs_do_not_meet(run_module, bring, tmp_path):
    make(tmp_path / "load" / "m.wsp")
    top = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(top, fcntl.LOCK_EX)
    result = bring(lock_timeout=1)
    assert not result["changed"]
    assert "Another run" in result["msg"]
    os.close(top)


def test_a_number_of_processes_that_is_none_is_refused(bring, tmp_path):
    result = bring(processes=-1)
    assert not result["changed"]
    assert "processes is -1" in result["msg"]
