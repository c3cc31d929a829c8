# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""whisper_prune on real files: what goes, what stays, and that no point is lost to a file that goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import RetentionError, parse_duration
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import prune as whisper_prune
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import tree as whisper_tree
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.prune import PruneError, Pruner, prune
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import prune_program

DAY = 86400
NOW = time.time()
SHAPE = ((60, 60), (3600, 48))


@pytest.fixture(autouse=True)
def _without_grace(monkeypatch):
    monkeypatch.setattr(whisper_prune, "GRACE_SECONDS", 0)


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "whisper"
    top.mkdir()
    return top


@pytest.fixture
def series(tree):
    """Make a series whose file was written to, and whose newest point is, so many days old."""

    def make(name, age=100.0, point: float | None = 100.0, shape=SHAPE):
        path = tree / (name + ".wsp")
        path.parent.mkdir(parents=True, exist_ok=True)
        whisper.create(str(path), list(shape))
        if point is not None:
            then = NOW - point * DAY
            whisper.update(str(path), 1, timestamp=then, now=then)
        return aged(path, age)

    return make


def aged(path, age=100.0):
    os.utime(path, (NOW, NOW - age * DAY), follow_symlinks=False)
    return path


def names(top):
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def run(tree, unused_for="90d", max_share=1, **options):
    """Prune; and see before that a check says the same and changes nothing."""
    before = [(str(path), path.lstat()) for path in sorted(tree.rglob("*"))]
    checked = prune(str(tree), unused_for, max_share=max_share, check=True, **options)
    after = [(str(path), path.lstat()) for path in sorted(tree.rglob("*"))]
    assert [(path, status.st_ino, status.st_mtime_ns) for path, status in before] == [
        (path, status.st_ino, status.st_mtime_ns) for path, status in after
    ]
    result = prune(str(tree), unused_for, max_share=max_share, **options)
    if result["pruned"] <= 100:
        assert checked == result
    return result


def test_what_is_unused_goes_and_the_rest_stays(tree, series):
    series("a/dead")
    series("a/written", age=1)
    series("a/point", point=1)
    series("a/future", point=-1)
    series("a/clock", age=-1)
    series("a/no_point", point=None)
    series("a/no_point_yet", age=1, point=None)
    series("a/coarse", point=89.9, shape=((60, 60), (3600, 2400)))
    series("old/b/dead")
    for name in ("a/dead", "a/no_point", "old/b/dead"):
        assert (tree / f"{name}.wsp").stat().st_blocks > 0
    result = run(tree)
    assert names(tree) == ["a", *(f"a/{name}.wsp" for name in ("clock", "coarse", "future", "no_point_yet", "point", "written"))]
    assert (result["series"], result["pruned"], result["directories"], result["corrupt"]) == (9, 3, 2, 0)
    assert result["metrics"] == ["a.dead", "a.no_point", "old.b.dead"]
    assert result["bytes"] > 0
    assert run(tree)["pruned"] == 0


def test_the_newest_point_may_be_in_any_archive(tree, series):
    path = series("coarse", point=None, shape=((60, 60), (3600, 2400)))
    whisper.update_many(str(path), [(NOW - 50 * DAY, 1)])
    aged(path)
    assert run(tree, "60d")["pruned"] == 0
    assert run(tree, "49d")["pruned"] == 1


def test_a_series_is_never_younger_than_its_finest_archive(tree, series):
    series("fine", age=10, point=10, shape=((60, 20 * 1440),))
    assert run(tree, "1d")["pruned"] == 0
    series("fine2", age=10, point=10, shape=((60, 9 * 1440), (3600, 24 * 300)))
    assert run(tree, "1d")["metrics"] == ["fine2"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\xff" * 100), "header"),
        (lambda path: path.write_bytes(bytes(4096)), "header"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "header"),
        (lambda path: path.write_bytes(path.read_bytes()[:-12]), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:12] + bytes(4)), "header"),
    ],
)
def test_what_is_no_whisper_file_is_kept_and_told(tree, series, damage, reason):
    path = series("dead")
    damage(path)
    aged(path)
    result = run(tree)
    assert (result["series"], result["pruned"], result["corrupt"]) == (1, 0, 1)
    assert reason in result["corrupt_files"][0]["reason"]
    assert path.exists()


def test_links_and_the_files_of_others_are_left_alone(tree, series, tmp_path):
    dead = series("b/dead")
    os.link(dead, tmp_path / "second.wsp")
    outside = tmp_path / "outside"
    outside.mkdir()
    whisper.create(str(outside / "x.wsp"), list(SHAPE))
    aged(outside / "x.wsp")
    (tree / "links").mkdir()
    for name, target in {"out": outside, "loop": tree, "self.wsp": "self.wsp", "file.wsp": outside / "x.wsp"}.items():
        (tree / "links" / name).symlink_to(target)
        aged(tree / "links" / name)
    for name in ("notes/readme.txt", "hidden/.dead.wsp.reshaping", "hidden/.other.wsp"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
        aged(tree / name)
    series(".dot/dead")
    os.mkfifo(tree / "notes" / "pipe.wsp")
    aged(tree / "notes" / "pipe.wsp")
    for name in ("lost+found", "empty", "new", "empty/deep"):
        (tree / name).mkdir()
    for name in ("lost+found", "empty/deep", "empty", "links", "notes", "hidden", ".dot"):
        aged(tree / name)
    kept = [name for name in names(tree) if name.split("/")[0] not in ("b", "empty")]
    result = run(tree)
    assert names(tree) == kept
    assert (result["series"], result["pruned"], result["directories"], result["links"]) == (1, 1, 3, 4)
    assert result["bytes"] == 0
    assert (tmp_path / "second.wsp").stat().st_nlink == 1
    assert (outside / "x.wsp").exists()


def test_both_names_of_a_file_go(tree, series, tmp_path):
    os.link(series("dead"), tree / "second.wsp")
    (tmp_path / "archive").mkdir()
    assert prune(str(tree), "90d", archive_directory=str(tmp_path / "archive"), max_share=1)["pruned"] == 2
    assert names(tree) == []
    assert names(tmp_path / "archive") == ["dead.wsp", "second.wsp"]


@pytest.mark.parametrize("place", ["same", "other"])
def test_to_an_archive(tree, series, tmp_path, file_system, place):
    archive = tmp_path / "archive"
    archive.mkdir()
    if place == "other":
        file_system(archive, "size=1m")
    path = series("a/b/dead")
    os.chown(path.parent, 4321, 4322)
    os.chown(path, 1234, 1235)
    path.chmod(0o640)
    before, content = path.stat(), path.read_bytes()
    result = run(tree, archive_directory=str(archive))
    moved = archive / "a/b/dead.wsp"
    status = moved.stat()
    for name in ("st_uid", "st_gid", "st_mode", "st_mtime_ns", "st_size"):
        assert getattr(status, name) == getattr(before, name)
    assert moved.read_bytes() == content
    assert (result["pruned"], result["directories"], names(tree)) == (1, 2, [])
    assert (moved.parent.stat().st_uid, moved.parent.stat().st_mode & 0o777) == (4321, 0o755)
    for _number in range(2):
        series("a/b/dead", point=101)
        run(tree, archive_directory=str(archive))
    assert names(archive) == ["a", "a/b", "a/b/dead.wsp", "a/b/dead.wsp.1", "a/b/dead.wsp.2"]
    assert moved.read_bytes() == content
    if place == "other":
        kept = [series(f"large{number}", shape=((60, 40000),)) for number in range(4)]
        with pytest.raises(PruneError, match="archive_directory does not take large") as failure:
            prune(str(tree), "90d", archive_directory=str(archive), max_share=1)
        moved_now = failure.value.result["pruned"]
        assert 1 <= moved_now < 4
        assert sum(path.exists() for path in kept) == 4 - moved_now
        assert len(names(tree)) == 4 - moved_now
        assert not [name for name in names(archive) if name.startswith(".")]


def test_an_archive_is_not_left_by_a_link(tree, series, tmp_path):
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    archive.mkdir()
    elsewhere.mkdir()
    (archive / "a").symlink_to(elsewhere)
    path = series("a/dead")
    with pytest.raises(PruneError, match="archive_directory"):
        prune(str(tree), "90d", archive_directory=str(archive), max_share=1)
    assert path.exists()
    assert names(elsewhere) == []


@pytest.mark.parametrize("archive", ["whisper/archive", "whisper", ".", "link"])
def test_an_archive_in_the_tree_is_refused(tree, series, tmp_path, archive):
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(PruneError, match="archive_directory"):
        prune(str(tree), "90d", archive_directory=str(tmp_path / archive))


@pytest.mark.parametrize("text", ["0d", "0", "90", "", "-1d", "1.5d", "90 d x", "d", "1q", "90d,", "10s:6h"])
def test_no_duration(tree, text):
    with pytest.raises(RetentionError):
        parse_duration(text)
    with pytest.raises(PruneError, match="unused_for"):
        prune(str(tree), text)


def test_durations():
    assert [parse_duration(text) for text in ("90d", "1y", "2weeks", "36h", "5min")] == [90 * DAY, 365 * DAY, 14 * DAY, 36 * 3600, 300]


def test_nothing_goes_when_most_would(tree, series):
    paths = [series(f"dead{number}") for number in range(3)]
    alive = [series(f"alive{number}", age=0, point=0) for number in range(2)]
    for check in (True, False):
        with pytest.raises(PruneError, match=r"3 of 5 series .* max_share \(0.5\)") as refusal:
            prune(str(tree), "90d", check=check)
        assert refusal.value.result["pruned"] == 3
        assert all(path.exists() for path in paths)
    alive.append(series("alive2", age=0, point=0))
    assert prune(str(tree), "90d")["pruned"] == 3
    assert all(path.exists() for path in alive)


def test_another_run_is_waited_for_by_the_user(tree, series):
    series("dead")
    top = whisper_tree.open_tree(str(tree))
    with whisper_tree.locked(top), pytest.raises(PruneError, match="another run"):
        prune(str(tree), "90d", max_share=1)
    os.close(top)


def test_without_leases_nothing_is_done_unless_carbon_is_stopped(tree, series, monkeypatch):
    path = series("dead")

    def none(_descriptor, _kind):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(whisper_tree, "_set_lease", none)
    for check in (True, False):
        with pytest.raises(PruneError, match=r"no lease.*carbon_stopped"):
            prune(str(tree), "90d", max_share=1, check=check)
    assert path.exists()
    assert run(tree, carbon_stopped=True)["pruned"] == 1


def test_what_somebody_has_open_is_kept(tree, series, monkeypatch):
    monkeypatch.setattr(whisper_prune, "LEASE_SECONDS", 0.05)
    path = series("dead")
    with open(path, "rb"):
        result = run(tree)
    assert (result["pruned"], result["busy"]) == (0, 1)
    assert names(tree) == ["dead.wsp"]


WRITER = """
import sys, whisper
sys.stdin.readline()
whisper.update(sys.argv[1], 42)
"""


@pytest.fixture
def at_judgement(monkeypatch):
    """Do something while the file is judged for the so many-th time: by the survey, before it is taken, before it goes."""

    def arrange(count, action):
        calls = []
        judge = whisper_prune.is_unused

        def judging(descriptor, *arguments):
            verdict = judge(descriptor, *arguments)
            calls.append(verdict)
            if len(calls) == count:
                action(descriptor)
            return verdict

        monkeypatch.setattr(whisper_prune, "is_unused", judging)

    return arrange


def values(path):
    return whisper.fetch(str(path), int(time.time()) - 600)[1]


@pytest.mark.parametrize(("moment", "busy"), [("survey", 0), ("take", 1)])
def test_a_point_that_arrives_meanwhile_is_not_lost(tree, series, at_judgement, moment, busy):
    """A writer waits in open() for a file that is about to go; it gets its file, which is at its path afterwards."""
    path = series("dead")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, text=True)

    def let_it_write(descriptor):
        writer.stdin.write("\n")
        writer.stdin.close()
        deadline = time.monotonic() + 10
        while not whisper_tree.somebody_waits(descriptor, exclusive=True):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    at_judgement(("survey", "take").index(moment) + 1, let_it_write)
    inode = path.stat().st_ino
    if moment == "survey":  # the file is judged again when the writer has written
        take = Pruner._take
        Pruner._take = lambda *arguments: (writer.wait(timeout=10), take(*arguments))
    try:
        result = prune(str(tree), "90d", max_share=1)
    finally:
        if moment == "survey":
            Pruner._take = take
    assert writer.wait(timeout=10) == 0
    assert (result["pruned"], result["busy"]) == (0, busy)
    assert names(tree) == ["dead.wsp"]
    assert path.stat().st_ino == inode
    assert 42 in values(path)


def test_a_point_of_somebody_who_had_looked_up_the_name_before_is_not_lost(tree, series, monkeypatch):
    path = series("dead")
    monkeypatch.setattr(time, "sleep", lambda _seconds: whisper.update(str(tree / ".dead.wsp.pruned"), 42))
    assert prune(str(tree), "90d", max_share=1)["pruned"] == 0
    assert names(tree) == ["dead.wsp"]
    assert 42 in values(path)


def test_a_new_file_is_not_replaced(tree, series, monkeypatch):
    path = series("dead")

    def create_and_write(_seconds):
        whisper.create(str(path), list(SHAPE))
        whisper.update(str(path), 7)
        whisper.update(str(tree / ".dead.wsp.pruned"), 42)

    monkeypatch.setattr(time, "sleep", create_and_write)
    result = prune(str(tree), "90d", max_share=1)
    assert (result["pruned"], result["corrupt"]) == (0, 1)
    assert 7 in values(path)
    assert 42 in values(tree / ".dead.wsp.pruned")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_was_killed_is_finished_by_the_next(tree, series, at):
    """Killed after so many names were given or taken, with a point for one of the files after that."""
    for name in ("a/dead", "a/revived"):
        series(name)
    program = f"""
import os, signal, sys
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import prune as whisper_prune
calls = []
def counted(function):
    def call(*arguments, **options):
        function(*arguments, **options)
        calls.append(1)
        if len(calls) == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
    return call
os.link, os.unlink = counted(os.link), counted(os.unlink)
whisper_prune.GRACE_SECONDS = 0
whisper_prune.prune(sys.argv[1], "90d", max_share=1)
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / ".ansible" / "collections")}
    killed = subprocess.run([sys.executable, "-c", program, tree], env=environment, check=False)
    assert killed.returncode == -9
    assert [name for name in names(tree) if name.endswith(".pruned")]
    for path in (tree / "a").iterdir():
        if "revived" in path.name:
            whisper.update(str(path), 42)
            break
    prune(str(tree), "90d", max_share=1)
    prune(str(tree), "90d", max_share=1)
    assert names(tree) == ["a", "a/revived.wsp"]
    assert 42 in values(tree / "a" / "revived.wsp")


def test_what_vanishes_or_grows_meanwhile_is_no_failure(tree, series, at_judgement):
    for number in range(20):
        series(f"a{number % 4}/b/dead{number}")
    survivors = []

    def interfere(descriptor):
        for path in tree.rglob("*.wsp"):
            number = int(path.stem[4:])
            if number % 3 == 0:
                path.unlink()
            elif number % 3 == 1 and not os.path.samestat(path.stat(), os.fstat(descriptor)):  # which would wait for itself
                with path.open("ab") as stream:
                    stream.write(bytes(5000))
                survivors.append(path)

    at_judgement(1, interfere)
    result = prune(str(tree), "90d", max_share=1)
    assert result["corrupt"] == 0
    assert sorted(path for path in tree.rglob("*.wsp")) == sorted(survivors)


def test_carbon_may_make_and_remove_series_during_a_run(tree, series):
    """Writers do what carbon does, over and over; what they write last is there in the end."""
    count = 1500
    for number in range(count):
        series(f"a{number % 7}/s{number}")
    last = {}
    stop = threading.Event()

    def write(offset):
        number = offset
        while not stop.is_set():
            path = str(tree / f"a{number % 7}" / f"s{number}.wsp")
            if not os.path.exists(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                whisper.create(path, list(SHAPE))
            try:
                whisper.update(path, 42)
                last[path] = True
            except FileNotFoundError:  # between the two calls, as in carbon
                last.pop(path, None)
            number = (number + 2) % count

    writers = [threading.Thread(target=write, args=(offset,)) for offset in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        for _number in range(3):
            prune(str(tree), "90d", max_share=1)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert len(last) > 10
    assert [path for path in last if 42 not in values(path)] == []


@pytest.fixture
def open_place():
    """Return a directory that everybody can reach."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_as_a_user_who_may_not_read_everything(tree, series, open_place):
    """The program as the timer runs it: as the owner of the files, without any privilege."""
    for name in ("own", "foreign", "secret", "closed/dead", "b/own"):
        series(name)
    tree = shutil.copytree(tree, open_place / "whisper")
    for path in (tree, tree / "b", tree / "own.wsp", tree / "b" / "own.wsp"):
        os.chown(path, 65534, 65534)
    (tree / "secret.wsp").chmod(0o600)
    (tree / "closed").chmod(0o700)
    (tree / "lost+found").mkdir(mode=0o700)
    package = open_place / "pruning"
    for item in prune_program(str(package)):
        path = Path(item["path"])
        path.mkdir(exist_ok=True) if item["state"] == "directory" else path.write_text(item["content"])
    shutil.copy(whisper.__file__, open_place)
    environment = {"PYTHONPATH": str(open_place), "PYTHONDONTWRITEBYTECODE": "1"}

    def program(*arguments):
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-m", "pruning._whisper.prune"]
        return subprocess.run([*command, *arguments], env=environment, cwd="/", capture_output=True, text=True, check=False)

    checked = program(tree, "90d", "--max-share", "1", "--check")
    assert checked.returncode == 0, checked.stderr
    assert "Would prune 2 of 4 series" in checked.stdout
    assert [name for name in ("closed", "foreign", "secret") if name not in checked.stdout] == []
    refused = program(tree, "90d", "--max-share", "0.1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "max_share" in refused.stderr
    done = program(tree, "90d", "--max-share", "1")
    assert [name for name in ("closed", "foreign", "secret") if name not in done.stdout] == []
    assert "Pruned 2 of 4 series" in done.stdout
    assert "kept 0 in use and 3 that cannot be read" in done.stdout
    assert names(tree) == ["closed", "closed/dead.wsp", "foreign.wsp", "lost+found", "secret.wsp"]


def test_what_is_reported_does_not_grow_with_the_tree(tree, series):
    for number in range(105):
        series(f"a/dead{number}")
        path = series(f"b/corrupt{number}")
        path.write_bytes(b"x")
        aged(path)
    result = run(tree)
    assert (result["pruned"], result["corrupt"]) == (105, 105)
    assert len(result["metrics"]) == len(result["corrupt_files"]) == 100


def test_the_module(run_module, tree, series):
    series("dead")
    series("alive", age=0, point=0)
    (tree / os.fsdecode(b"caf\xe9.wsp")).write_bytes(b"")
    aged(tree / os.fsdecode(b"caf\xe9.wsp"))
    arguments = {"directory": str(tree), "unused_for": "90d"}
    checked = run_module("whisper_prune", "--check", **arguments)
    assert (tree / "dead.wsp").exists()
    pruned = run_module("whisper_prune", **arguments)
    assert checked == pruned
    assert pruned["changed"]
    assert "-dead\n" in pruned["shown_diff"]
    assert pruned["corrupt_files"] == [{"path": "caf\\xe9.wsp", "reason": "it is empty"}]
    assert not run_module("whisper_prune", **arguments)["changed"]
    refused = run_module("whisper_prune", **{**arguments, "unused_for": "90"})
    assert "unused_for: '90' is no duration" in refused["msg"]
    assert "is there" in run_module("whisper_prune", directory=f"{tree}/none", unused_for="90d")["msg"]


def test_without_the_library(tree, monkeypatch):
    monkeypatch.setattr(whisper_prune, "whisper", None)
    with pytest.raises(PruneError, match="python3-whisper"):
        prune(str(tree), "90d")
