# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The points of two whisper files in one of them, on files of the library itself."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import merge as merge_module
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.merge import Content, merge_into, merged, presence
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import Entry

NOW = 1_700_000_000
ARCHIVES = [(10, 360), (60, 240), (600, 300)]
METHODS = ["average", "sum", "last", "max", "min", "avg_zero", "absmax", "absmin"]


class _Stream(io.BytesIO):
    name = "content"


class File:
    """A whisper file in memory, written to by the library at a time that the test gives."""

    def __init__(self, tmp_path, archives=None, method="average", factor=0.5, points=(), now=NOW):
        path = tmp_path / f"{random.random()}.wsp"
        whisper.create(str(path), list(archives or ARCHIVES), factor, method)
        self.stream = _Stream(path.read_bytes())
        with path.open("rb") as file:
            self.header = read_header(file.fileno())
        path.unlink()
        self.write(points, now)

    def write(self, points, now=NOW):
        for begin in range(0, len(points), 100):
            whisper.file_update_many(self.stream, sorted(points[begin : begin + 100], reverse=True), now=now)

    @property
    def content(self):
        return Content(self.stream.getvalue(), self.header)

    def take(self, other, now=NOW, until=None):
        change = merged(self.content, other.content, now, until)
        data = bytearray(self.stream.getvalue())
        for offset, part in change.parts:
            data[offset : offset + len(part)] = part
        self.stream = _Stream(bytes(data))
        return change.points

    def values(self, index, now=NOW, ahead=0):
        step, count = self.header.archives[index]
        found = whisper.file_fetch(self.stream, now + ahead - step * count, now + ahead, now=now + ahead, archiveToSelect=step)
        (begin, _end, step), values = found
        return {begin + step * place: value for place, value in enumerate(values) if value is not None}


def history(chance, seconds, seed):
    """Return points as a sender gives them, with holes of all lengths."""
    dice = random.Random(seed)
    moments = range(NOW - seconds - NOW % 10, NOW + 1, 10)
    points = [(moment, float(dice.randint(-50, 50))) for moment in moments if dice.random() < chance]
    for _hole in range(dice.randint(0, 4)):
        begin = NOW - dice.randint(0, seconds)
        length = dice.choice([30, 70, 300, 1300])
        points = [point for point in points if not begin <= point[0] < begin + length]
    return points


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_two_halves_of_a_history_are_the_history(tmp_path, method, factor):
    for seed in range(6):
        dice = random.Random(seed)
        points = history(dice.choice([0.2, 0.6, 1.0]), 3500, seed)
        whole = File(tmp_path, method=method, factor=factor, points=points)
        if seed % 2:
            cut = NOW - dice.randint(100, 3000)
            halves = [[point for point in points if point[0] < cut], [point for point in points if point[0] >= cut]]
        else:
            drawn = [dice.random() < 0.5 for _point in points]
            halves = [[point for point, first in zip(points, drawn) if first is side] for side in (True, False)]
        one, other = (File(tmp_path, method=method, factor=factor, points=half) for half in halves)
        count = one.take(other)
        assert count == len(halves[1])
        for index in range(3):
            assert one.values(index) == pytest.approx(whole.values(index)), (seed, index)
        # A second time, there is nothing to give; and so it is the other way round.
        assert merged(one.content, other.content, NOW).parts == []
        assert merged(one.content, whole.content, NOW).parts == []
        other.take(one)
        assert [other.values(index) for index in range(3)] == [pytest.approx(one.values(index)) for index in range(3)]


def test_the_value_of_the_live_file_stays_and_its_coarser_values_follow(tmp_path):
    begin = NOW - NOW % 600 - 600
    live = File(tmp_path, method="sum", factor=0, points=[(begin, 1.0), (begin + 10, 2.0)])
    live.take(File(tmp_path, method="sum", factor=0, points=[(begin + 10, 50.0), (begin + 20, 4.0)]))
    assert live.values(0) == {begin: 1.0, begin + 10: 2.0, begin + 20: 4.0}
    assert live.values(1) == {begin: 7.0}
    assert live.values(2) == {begin: 7.0}


@pytest.mark.parametrize(
    ("method", "expected"),
    [("sum", -40.0), ("max", 30.0), ("min", -40.0), ("absmax", -40.0), ("absmin", 30.0), ("average", 30.0), ("last", 30.0)],
)
def test_coarser_values_whose_points_are_gone(tmp_path, method, expected):
    long_ago = NOW - NOW % 600 - 2 * 3600 * 10
    live, other = (File(tmp_path, method=method, factor=0, points=[(long_ago, value)]) for value in (30.0, -40.0))
    alone = File(tmp_path, method=method, factor=0, points=[(long_ago - 600, 5.0)])
    live.take(alone)
    live.take(other)
    assert live.values(2) == {long_ago: expected, long_ago - 600: 5.0}


def test_a_hole_that_begins_before_the_finest_archive_is_filled_from_the_coarser(tmp_path):
    points = history(1.0, 10_000, 3)
    whole = File(tmp_path)
    for begin in range(0, len(points), 6):
        whole.write(points[begin : begin + 6], points[min(begin + 5, len(points) - 1)][0])
    live = File(tmp_path, points=[point for point in points if point[0] > NOW - 500])
    live.take(whole)
    for index in range(3):
        theirs, mine = whole.values(index), live.values(index)
        assert set(theirs) <= set(mine)
        different = [moment for moment in theirs if mine[moment] != pytest.approx(theirs[moment])]
        assert not [moment for moment in different if moment < NOW - 1200]
        assert len(different) <= 1


def test_points_of_a_file_that_is_written_to_are_left_out(tmp_path):
    moment = NOW - NOW % 600
    live = File(tmp_path)
    assert live.take(File(tmp_path, points=[(moment - 70, 1.0), (moment - 10, 2.0)]), until=moment - 60) == 1
    assert set(live.values(0)) == {moment - 70}


def test_points_ahead_of_the_clock_are_merged_and_take_no_place_of_others(tmp_path):
    moment = NOW - NOW % 10
    ahead, oldest = moment + 300, moment + 300 - 3600
    live = File(tmp_path, points=[(oldest, 7.0), (moment, 1.0)])
    other = File(tmp_path, points=[(ahead, 2.0), (ahead + 10, 3.0)])
    live.take(other)
    assert live.values(0)[oldest] == 7.0
    assert live.values(0, ahead=400)[ahead + 10] == 3.0


def test_other_archives_are_brought_to_those_of_the_live_file(tmp_path):
    points = history(1.0, 3000, 1)
    live = File(tmp_path, points=points[:100])
    live.take(File(tmp_path, archives=[(10, 600), (300, 600)], points=points))
    assert live.values(0) == {moment: value for moment, value in points if moment > NOW - 3600}


def test_an_empty_archive_gets_its_first_place_from_the_merge(tmp_path):
    points = history(0.5, 3000, 2)
    live, whole = File(tmp_path), File(tmp_path, points=points)
    live.take(whole)
    for index in range(3):
        assert live.values(index) == whole.values(index)
    # The library goes on from there.
    for file in (live, whole):
        file.write([(NOW + 60, 5.0)], NOW + 60)
    assert live.values(0, NOW + 60) == whole.values(0, NOW + 60)


def on_disk(path, file):
    path.write_bytes(file.stream.getvalue())
    return path


def digest(path, until=NOW - 60):
    with path.open("rb") as stream:
        return presence(stream.fileno(), read_header(stream.fileno()), until)


def test_files_with_points_at_the_same_times_have_the_same_digest(tmp_path):
    points = history(0.7, 3000, 5)
    one = on_disk(tmp_path / "one.wsp", File(tmp_path, points=points))
    turned = on_disk(tmp_path / "turned.wsp", File(tmp_path, points=[(moment, value + 1) for moment, value in points[200:] + points[:200]]))
    less = on_disk(tmp_path / "less.wsp", File(tmp_path, points=points[:-30] + points[-29:]))
    later = on_disk(tmp_path / "later.wsp", File(tmp_path, points=[*points, (NOW - NOW % 10, 3.0)]))
    assert digest(one) == digest(turned) == digest(later)
    assert digest(less) != digest(one)


MERGE = """
import os, sys, time
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.merge import Content, merge_into
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import Entry
directory = os.open(sys.argv[1], os.O_RDONLY)
other = open(sys.argv[2], "rb")
content = Content(other.read(), read_header(other.fileno()))
print("ready", flush=True)
for number in range(1000):
    name = f"{number}.wsp"
    if not os.path.exists(os.path.join(sys.argv[1], name)):
        break
    merge_into(Entry(directory, name, name), content)
"""


def merge_files(directory, other):
    command = [sys.executable, "-c", MERGE, str(directory), str(other)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ".ansible/collections"})


def test_a_merge_that_is_killed_is_completed_by_the_next(tmp_path):
    now = int(time.time())
    times = [now - now % 10 - 10 * back for back in range(350)]
    evens, odds = ([(moment, moment % 77.0) for moment in times if moment % 20 == rest] for rest in (0, 10))
    whole = File(tmp_path, points=evens + odds, now=now)
    other = on_disk(tmp_path / "other", File(tmp_path, points=odds, now=now))
    for attempt in range(5):
        place = tmp_path / str(attempt)
        place.mkdir()
        for number in range(40):
            on_disk(place / f"{number}.wsp", File(tmp_path, points=evens, now=now))
        process = merge_files(place, other)
        process.stdout.readline()
        time.sleep(random.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert merge_files(place, other).wait() == 0
        for number in range(40):
            live = File(tmp_path)
            live.stream = _Stream((place / f"{number}.wsp").read_bytes())
            for index in range(2):
                assert live.values(index, now) == whole.values(index, now)


def opened(path):
    return Entry(os.open(path.parent, os.O_RDONLY), path.name, path.name)


def read(tmp_path, path):
    live = File(tmp_path)
    live.stream = _Stream(path.read_bytes())
    return live


def test_a_merge_that_ends_after_any_of_its_replaced_writes_is_completed_by_the_next(tmp_path, monkeypatch):
    now = int(time.time())
    times = [now - now % 600 - 600 - 10 * back for back in range(200)]
    mine, theirs = ([(moment, moment % 77.0) for moment in times if moment % 700 // 350 == side] for side in (0, 1))
    whole, other = File(tmp_path, method="sum", factor=0, points=mine + theirs, now=now), File(tmp_path, points=theirs, now=now)

    class KilledError(Exception):
        pass

    write, number = merge_module._write, 0

    def write_some(left, *arguments):
        if not left:
            raise KilledError
        left.pop()
        write(*arguments)

    while True:
        path = on_disk(tmp_path / "m.wsp", File(tmp_path, method="sum", factor=0, points=mine, now=now))
        monkeypatch.setattr(merge_module, "_write", partial(write_some, [None] * number))
        try:
            merge_into(opened(path), other.content)
            break
        except KilledError:
            monkeypatch.setattr(merge_module, "_write", write)
            merge_into(opened(path), other.content)
            live = read(tmp_path, path)
            assert [live.values(index, now) for index in range(3)] == [whole.values(index, now) for index in range(3)], number
        number += 1
    assert number >= 3


def test_what_is_written_before_the_replaced_lease_is_taken_is_not_lost(tmp_path, monkeypatch):
    now = int(time.time())
    times = [now - now % 10 - 10 * back for back in range(100)]
    path = on_disk(tmp_path / "m.wsp", File(tmp_path, points=[(moment, 1.0) for moment in times[::4]], now=now))
    lease = merge_module.lease

    @contextlib.contextmanager
    def replaced(descriptor, exclusive=False):
        whisper.update_many(str(path), [(moment, 2.0) for moment in times[1::4]])
        with lease(descriptor, exclusive):
            yield

    monkeypatch.setattr(merge_module, "lease", replaced)
    merge_into(opened(path), File(tmp_path, points=[(moment, 3.0) for moment in times[2::4]], now=now).content)
    expected = {moment: (1.0, 2.0, 3.0)[place % 4] for place, moment in enumerate(times) if place % 4 < 3}
    assert read(tmp_path, path).values(0, now) == expected


def test_nothing_that_carbon_writes_meanwhile_is_lost(tmp_path):
    now = int(time.time())
    times = [now - now % 10 - 10 * back for back in range(300)]
    other = File(tmp_path, points=[(moment, 1.0) for moment in times[150:]], now=now)
    path = on_disk(tmp_path / "0.wsp", File(tmp_path))
    written = []

    def write():
        for moment in times[:150]:
            whisper.update(str(path), 2.0, moment)
            written.append(moment)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert merge_files(tmp_path, on_disk(tmp_path / "other", other)).wait() == 0
    writer.join()
    live = File(tmp_path)
    live.stream = _Stream(path.read_bytes())
    expected = {**dict.fromkeys(times[150:], 1.0), **dict.fromkeys(written, 2.0)}
    assert live.values(0, int(time.time())) == {moment: value for moment, value in expected.items() if moment > time.time() - 3600}
