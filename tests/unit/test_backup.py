# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Backups: carbon's cache, whole files under writers, and a way there and back with Borg itself."""

from __future__ import annotations

import getpass
import io
import json
import os
import pickle
import platform
import shutil
import signal
import socketserver
import sqlite3
import struct
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._backup import content as backup_content
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.link import CarbonLink, CarbonLinkError
from ansible_collections.metricstack.graphite.plugins.module_utils._host import interpreter
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import tree as whisper_tree
from ansible_collections.metricstack.graphite.plugins.modules import graphite_backup

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
import local_settings
globals().update(local_settings.__dict__)
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "graphite.dashboard"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""
MODELS = """
from django.db import models
class Dashboard(models.Model):
    name = models.CharField(primary_key=True, max_length=255)
    state = models.TextField()
"""


class Carbon(socketserver.ThreadingTCPServer):
    """Answers as carbon-cache does, with what ``cache`` holds."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), None)
        self.cache = {}
        self.requests = []
        self.answer = None
        self.answers_of_a_connection = 1000
        carbon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                for _number in range(carbon.answers_of_a_connection):
                    head = self.rfile.read(4)
                    if len(head) < 4:
                        return
                    request = pickle.loads(self.rfile.read(struct.unpack("!I", head)[0]))
                    carbon.requests.append(request)
                    points = {metric: list(carbon.cache.get(metric, {}).items()) for metric in request["metrics"]}
                    answer = carbon.answer or pickle.dumps({"datapointsByMetric": points}, protocol=2)
                    self.wfile.write(struct.pack("!I", len(answer)) + answer)

        self.RequestHandlerClass = Handler
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def link(self):
        return CarbonLink(*self.server_address, timeout=5)


@pytest.fixture
def carbon():
    server = Carbon()
    yield server
    server.shutdown()
    server.server_close()


def series_below(top):
    """Return a function that makes a series in a new tree, and returns the path of its file."""
    top.mkdir()

    def series(name, points=(), archives=((1, 3600), (60, 1440)), method="last"):
        path = top.joinpath(*name.split(".")).with_suffix(".wsp")
        path.parent.mkdir(parents=True, exist_ok=True)
        whisper.create(str(path), list(archives), 0, method)
        if points:
            whisper.update_many(str(path), list(points))
        return path

    return series


@pytest.fixture
def tree(tmp_path):
    return series_below(tmp_path / "whisper")


def copies(top, links=(), **arguments):
    """Return the members of a copy of a tree by name, their contents, and the copy."""
    target = io.BytesIO()
    stream = backup_content.Stream(target)
    descriptor = whisper_tree.open_tree(str(top))
    copy = backup_content.WhisperCopy(descriptor, list(links), whisper, **arguments)
    copy.write(stream)
    stream.close()
    os.close(descriptor)
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        return {item.name: (item, tar.extractfile(item).read() if item.isreg() else None) for item in tar}, copy


def test_a_cache_tells_the_points_of_those_metrics_that_have_any(carbon):
    carbon.cache = {"a.b": {100: 1.5, 110: 2}, "other": {100: 1}}
    assert carbon.link.cached(["a.b", "c"]) == {"a.b": [(100, 1.5), (110, 2.0)]}
    assert carbon.requests == [{"type": "cache-query-bulk", "metrics": ["a.b", "c"]}]


def test_a_cache_that_hangs_up_is_asked_again(carbon):
    carbon.answers_of_a_connection = 1
    carbon.cache = {"a": {1: 1}}
    link = carbon.link
    assert [link.cached(["a"]) for _time in range(3)] == [{"a": [(1, 1.0)]}] * 3


class Code:
    def __reduce__(self):
        return os.mkdir, ("/tmp/made-by-a-pickle",)


@pytest.mark.parametrize(
    "answer",
    [pickle.dumps({"datapointsByMetric": {"a": Code()}}), b"no pickle", pickle.dumps([]), pickle.dumps({"datapointsByMetric": {"a": [1]}})],
)
def test_an_answer_that_is_none_is_refused_and_runs_nothing(carbon, answer):
    carbon.answer = answer
    with pytest.raises(CarbonLinkError, match="did not answer as carbon-cache does"):
        carbon.link.cached(["a"])
    assert not os.path.exists("/tmp/made-by-a-pickle")


def test_nobody_at_the_port_is_an_error():
    with pytest.raises(CarbonLinkError, match=r"^127\.0\.0\.1:1: "):
        CarbonLink("127.0.0.1", 1).cached(["a"])


def test_a_copy_has_what_carbon_would_have_written(carbon, tree, tmp_path):
    now = int(time.time())
    old = [(now - 300 + second, second) for second in range(200)]
    new = {now - 100 + second: second / 7 for second in range(100)}
    path = tree("app.requests", old)
    tree("app.quiet", old)
    carbon.cache = {"app.requests": new}
    before = path.read_bytes()
    members, copy = copies(tmp_path / "whisper", [carbon.link])
    assert path.read_bytes() == before
    whisper.update_many(str(path), list(new.items()))
    assert members["whisper/app/requests.wsp"][1] == path.read_bytes()
    assert copy.figures == {"files": 2, "bytes": 2 * len(before), "newest": now - 1, "completed": 1, "points": 100}


def test_files_are_read_after_the_cache_has_answered_for_a_while(carbon, tree, tmp_path, monkeypatch):
    """A point that carbon took out of its cache just before it was asked is in the file a moment later."""
    path = tree("a.b")
    now = int(time.time())
    monkeypatch.setattr(backup_content, "LAG", 0.5)
    threading.Timer(0.3, lambda: whisper.update_many(str(path), [(now, 42)])).start()
    members, copy = copies(tmp_path / "whisper", [carbon.link])
    assert carbon.requests
    assert members["whisper/a/b.wsp"][1] == path.read_bytes()
    assert copy.figures["newest"] == now


def test_a_copy_has_owners_modes_and_directories_and_follows_no_link(tree, tmp_path):
    top = tmp_path / "whisper"
    path = tree("a.b.c.d")
    tree("a.b.e")
    tree("x")
    path.chmod(0o640)
    path.parent.chmod(0o710)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    (top / "a" / "link.wsp").symlink_to("/etc/passwd")
    (top / "a" / "directory").symlink_to("/etc")
    os.mkfifo(top / "a" / "pipe.wsp")
    (top / "a" / "notes.txt").write_text("")
    members, copy = copies(top)
    assert sorted(members) == [
        *("whisper", "whisper/a", "whisper/a/b", "whisper/a/b/c", "whisper/a/b/c/d.wsp", "whisper/a/b/e.wsp", "whisper/x.wsp")
    ]
    item = members["whisper/a/b/c/d.wsp"][0]
    assert (item.mode, item.mtime, item.uname) == (0o640, 1_000_000_000, getpass.getuser())
    assert members["whisper/a/b/c"][0].mode == 0o710
    assert sorted(copy.skipped) == ["a/directory", "a/link.wsp", "a/notes.txt", "a/pipe.wsp"]


def test_damaged_files_are_kept_as_they_are(carbon, tree, tmp_path):
    now = int(time.time())
    contents = {"cut": tree("whole").read_bytes()[:1000], "empty": b"", "wild": struct.pack("!2LfL3L", 1, 60, 0.5, 1, 28, 1, 2**32 - 1)}
    for name, content in contents.items():
        (tmp_path / "whisper" / f"{name}.wsp").write_bytes(content)
        carbon.cache[name] = {now: 1}
    members, copy = copies(tmp_path / "whisper", [carbon.link])
    assert {name: members[f"whisper/{name}.wsp"][1] for name in contents} == contents
    assert sorted(copy.damaged) == ["cut.wsp", "empty.wsp", "wild.wsp"]


def test_a_silent_cache_is_told_and_the_files_are_copied(tree, tmp_path):
    tree("a")
    members, copy = copies(tmp_path / "whisper", [CarbonLink("127.0.0.1", 1)])
    assert "whisper/a.wsp" in members
    assert list(copy.silent) == ["127.0.0.1:1"]


WRITER = """
import sys, time, whisper
path, start = sys.argv[1], int(sys.argv[2])
value = 0
print("writes", flush=True)
while True:
    value += 1
    whisper.update_many(path, [(start + second, value) for second in range(3000)])
"""


@pytest.fixture
def rewritten(tree):
    """Return the path of a file all of whose points have one value, which somebody else changes without a pause."""
    start = int(time.time()) - 3300
    path = tree("busy", [(start + second, 0) for second in range(3000)])
    with subprocess.Popen([sys.executable, "-c", WRITER, path, str(start)], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        yield path
        assert writer.poll() is None
        writer.kill()


def known_values(content):
    """Return the values of all points of both archives."""
    offsets = [struct.unpack_from("!3L", content, 16 + 12 * index) for index in range(2)]
    points = [struct.iter_unpack("!Ld", content[offset : offset + 12 * number]) for offset, _seconds, number in offsets]
    return {value for archive in points for when, value in archive if when}


def test_no_copy_is_torn_by_a_writer(rewritten, tmp_path):
    seen, number, deadline = set(), 0, time.monotonic() + 60
    while number < 50 or len(seen) <= 10:  # until the writer has written often enough meanwhile
        assert time.monotonic() < deadline
        values = known_values(copies(tmp_path / "whisper")[0]["whisper/busy.wsp"][1])
        assert len(values) == 1
        seen |= values
        number += 1


def test_the_writer_tears_what_is_only_read(rewritten):
    """The test before could fail."""
    deadline = time.monotonic() + 60
    while len(known_values(rewritten.read_bytes())) == 1:
        assert time.monotonic() < deadline


def test_memory_does_not_grow_with_the_number_of_files(tree, tmp_path):
    program = """
import os, resource, sys
from ansible_collections.metricstack.graphite.plugins.module_utils._backup import content as backup_content
stream = backup_content.Stream(open(os.devnull, "wb"))
for number in range(int(sys.argv[1])):
    stream.add(f"whisper/{number}.wsp", b"x" * 1000, os.stat("/"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", program, number], capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path}
            ).stdout
        )
        for path in [os.pathsep.join(sys.path)]
        for number in ("1000", "20000")
    )
    assert many - few < 2000  # KiB; tarfile alone would keep some 16 MB


class Host:
    """A host with whisper files, a database and a repository, and the modules on it."""

    def __init__(self, root, run_module, tree, database=None):
        self.root = root
        self.whisper = root / "whisper"
        self.backups = root / "backups"
        self.run_module = run_module
        self.tree = tree
        self.database = root / "data" / "graphite.db"
        self.key = root / "etc" / "secret_key"
        models = root / "graphite" / "dashboard" / "models.py"
        models.parent.mkdir(parents=True)
        models.write_text(MODELS)
        for package in (models.parent, models.parent.parent):
            (package / "__init__.py").touch()
        (root / "graphite" / "settings.py").write_text(SETTINGS)
        (root / "local_settings.py").write_text(
            f"SECRET_KEY = 'x'\nDATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(self.database)!r}}}}}\n"
        )
        self.database.parent.mkdir()
        self.key.parent.mkdir()
        self.key.write_text("old key\n")
        self.django = {"python": sys.executable, "python_path": [str(root)], "run_as": getpass.getuser()}
        if database is not None:
            shutil.copyfile(database, self.database)
            return
        assert run_module("graphite_migrate", **self.django)["changed"]
        self.user("alice")
        self.sql("INSERT INTO dashboard_dashboard (name, state) VALUES ('shop', '{}')")

    def user(self, name):
        assert self.run_module("graphite_user", name=name, password="first-word", **self.django)["changed"]

    def sql(self, statement):
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(statement).fetchall()
            connection.commit()
            return rows

    @property
    def arguments(self):
        return {"directory": str(self.backups), "whisper_directory": str(self.whisper), "database": True, **self.django}

    def back_up(self, *flags, **arguments):
        return self.run_module("graphite_backup", *flags, configuration=[str(self.key)], **{**self.arguments, **arguments})

    def restore(self, *flags, **arguments):
        return self.run_module("graphite_restore", *flags, **{**self.arguments, **arguments})

    def borg(self, *arguments):
        # Tests take copies of a repository.
        environment = {**os.environ, "BORG_BASE_DIR": str(self.backups / "borg"), "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        return subprocess.run(["borg", *arguments], env=environment, capture_output=True, text=True, check=True).stdout

    def names(self):
        return self.borg("list", "--short", "--consider-checkpoints", self.backups / "repository").split()

    def contents(self):
        return {str(path.relative_to(self.whisper)): path.read_bytes() for path in self.whisper.rglob("*.wsp")}

    @contextmanager
    def running(self, module, begun):
        """Run a module that goes on for seconds; the block, which gets its process, runs once ``begun`` is true."""
        arguments = {"directory": str(self.backups), "whisper_directory": str(self.whisper)}
        with subprocess.Popen(
            [sys.executable, ROOT / "plugins" / "modules" / f"{module}.py"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
            process.stdin.close()
            deadline = time.monotonic() + 30
            while not begun():
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process

    def imports(self):
        """Tell whether data is on its way to the repository."""
        return self.repository_is_locked() and any((self.backups / "repository" / "data").glob("0/*"))

    def repository_is_locked(self):
        return (self.backups / "repository" / "lock.exclusive").exists()


def children(parent, word):
    """Return the children of a process that have a word in their command lines."""
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", word], capture_output=True, text=True, check=False).stdout
    return [int(number) for number in found.split()]


@pytest.fixture(scope="session")
def made(made_once, run_module):
    """Return a host that the modules have made once, with one backup; tests take copies."""

    def make(top):
        host = Host(top, run_module, series_below(top / "whisper"))
        now = int(time.time())
        for number in range(5):
            host.tree(f"app.{number}", [(now - 600 + second, second * number) for second in range(500)])
        (top / "archive").write_text(host.back_up()["archive"])

    return made_once("backed-up-host", make)


@pytest.fixture
def host(tmp_path, run_module, tree, made):
    shutil.copytree(made / "whisper", tmp_path / "whisper", dirs_exist_ok=True)
    return Host(tmp_path, run_module, tree, made / "data" / "graphite.db")


@pytest.fixture
def backed_up(host, made):
    """Return the host and the name of its backup."""
    shutil.copytree(made / "backups", host.backups)
    return host, (made / "archive").read_text()


def test_what_was_there_comes_back(host):
    first = host.back_up()
    assert first["archive"].startswith(platform.node())
    assert host.backups.stat().st_mode & 0o777 == 0o700
    manifest = first["manifest"]
    assert (manifest["whisper"]["files"], manifest["configuration"]) == (5, [str(host.key)])
    assert manifest["database"] == {"vendor": "sqlite", "users": ["alice"], "dashboards": ["shop"]}
    before = host.contents()
    shutil.rmtree(host.whisper)
    host.database.unlink()
    host.key.write_text("new key\n")
    checked = host.restore("--check", secret_key_file=str(host.key))
    assert checked["changed"]
    assert not host.whisper.exists()
    result = host.restore(secret_key_file=str(host.key))
    assert result["archive"] == first["archive"]
    assert host.contents() == before
    assert host.sql("SELECT username FROM auth_user") == [("alice",)]
    assert host.sql("SELECT name FROM dashboard_dashboard") == [("shop",)]
    assert host.key.read_text() == "old key\n"
    assert list(result["aside"]) == ["secret_key"]
    assert not (host.root / ".graphite-restore").exists()


def test_newer_data_is_refused_and_set_aside_if_told(backed_up):
    host, _archive = backed_up
    before = host.contents()
    time.sleep(1.1)
    now = int(time.time())
    host.tree("app.new", [(now, 1)])
    host.tree("carbon.agents.x", [(now, 1)])
    host.user("bob")
    host.sql("INSERT INTO dashboard_dashboard (name, state) VALUES ('mine', '{}')")
    refused = host.restore("--check")
    assert [word for word in ("1 series", "app/new.wsp", "bob", "mine", "graphite_restore_force") if word not in refused["msg"]] == []
    assert refused["msg"] == host.restore()["msg"]
    assert "app/new.wsp" in host.contents()
    result = host.restore(force=True)
    assert len(result["newer"]) == 3
    assert host.contents() == before
    assert host.sql("SELECT username FROM auth_user") == [("alice",)]
    assert os.path.exists(f"{result['aside']['whisper']}/app/new.wsp")
    with closing(sqlite3.connect(result["aside"]["database"])) as aside:
        assert ("bob",) in aside.execute("SELECT username FROM auth_user").fetchall()


def test_what_the_inventory_brings_is_not_newer(backed_up):
    host, _archive = backed_up
    time.sleep(1.1)
    host.user("bob")
    host.tree("stats.statsd.x", [(int(time.time()), 1)])
    assert "bob" in host.restore("--check")["msg"]
    assert host.restore("--check", expected_users=["bob"], own_series=[r"^stats\."])["newer"] == []


def test_a_killed_backup_is_none_and_the_next_one_goes_on(backed_up):
    host, whole = backed_up
    now = int(time.time())
    for number in range(60):
        host.tree(f"many.{number}", [(now - second, number * second / 7) for second in range(500)], ((1, 100_000),))
    with host.running("graphite_backup", host.imports) as process:
        (borg,) = children(process.pid, "import-tar")
        os.kill(borg, signal.SIGSTOP)  # or it would end in order when its data does
        process.kill()
        os.kill(borg, signal.SIGKILL)
    assert host.repository_is_locked()
    again = host.back_up()
    assert host.names() == [whole, again["archive"]]
    assert again["manifest"]["whisper"]["files"] == 65
    before = host.contents()
    shutil.rmtree(host.whisper)
    assert host.restore()["archive"] == again["archive"]
    assert host.contents() == before


def test_a_killed_restore_leaves_what_was_there_and_the_next_one_goes_on(host):
    now = int(time.time())
    for number in range(60):
        host.tree(f"many.{number}", [(now - second, number * second / 7) for second in range(500)], ((1, 100_000),))
    host.back_up()
    before = host.contents()
    shutil.rmtree(host.whisper / "many")
    left = host.contents()
    stage = host.root / ".graphite-restore"
    with host.running("graphite_restore", lambda: any(stage.glob("partial/whisper/*"))) as process:
        (borg,) = children(process.pid, "extract")
        process.kill()
        os.kill(borg, signal.SIGKILL)
    assert host.contents() == left
    assert any(stage.glob("partial/whisper/*"))
    assert host.restore(state="extracted")["aside"] == {}
    assert host.contents() == left
    # Killed between the two renames.
    host.whisper.rename(host.root / "aside")
    assert "whisper" not in host.restore()["aside"]
    assert host.contents() == before
    assert not stage.exists()


def test_a_database_of_a_newer_release_is_not_taken(host):
    host.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('auth', '9999_future', '2030-01-01')")
    host.back_up()
    host.sql("DELETE FROM django_migrations WHERE name = '9999_future'")
    host.tree("app.left", [(int(time.time()) - 600, 1)])
    content, tree = host.database.read_bytes(), host.contents()
    assert host.restore()["kind"] == "newer_database"
    assert (host.database.read_bytes(), host.contents()) == (content, tree)


def test_two_runs_do_not_meet(host):
    now = int(time.time())
    for number in range(60):
        host.tree(f"many.{number}", [(now - second, number * second / 7) for second in range(500)], ((1, 100_000),))
    with host.running("graphite_backup", host.imports) as process:
        # However long the second run takes to begin.
        process.send_signal(signal.SIGSTOP)
        assert "another run is at work" in host.back_up()["msg"]
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 0


def test_old_backups_go(backed_up):
    host, first = backed_up
    made = [first]
    for _time in range(2):
        time.sleep(1.1)
        made.append(host.back_up(keep={"last": 2})["archive"])
    assert host.names() == made[1:]
    assert "backup of elsewhere" in host.restore(host="elsewhere")["msg"]
    assert made[1] in host.restore(archive="nowhere-2026-01-01T00:00:00")["msg"]
    assert host.restore(archive=made[1])["archive"] == made[1]


def test_a_passphrase_encrypts(host):
    assert "archive" in host.back_up(passphrase="first-word")
    assert "passphrase" in host.restore()["msg"]
    assert "passphrase" in host.back_up(passphrase="second-word")["msg"]
    assert host.restore(passphrase="first-word")["aside"]["database"]


def test_a_passphrase_for_open_backups_is_refused(backed_up):
    host, _archive = backed_up
    assert "was made without one" in host.back_up(passphrase="first-word")["msg"]


def test_a_damaged_database_is_not_taken_for_a_backup(backed_up):
    host, whole = backed_up
    content = bytearray(host.database.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    host.database.write_bytes(content)
    assert host.back_up()["kind"] in ("database", "no_schema")
    assert host.names() == [whole]
    assert host.restore()["archive"] == whole
    assert host.sql("SELECT username FROM auth_user") == [("alice",)]


def test_check_mode_makes_nothing(host):
    assert host.back_up("--check")["changed"]
    assert not host.backups.exists()
    assert host.restore("--check")["changed"]
    assert "does not exist" in host.restore()["msg"] or "No such file" in host.restore()["msg"]


def test_a_repository_that_another_host_uses_is_left_alone(backed_up):
    host, _archive = backed_up
    lock = host.backups / "repository" / "lock.exclusive"
    lock.mkdir()
    (lock / "elsewhere.example.org@12345.67-0").touch()
    result = host.back_up()
    assert "locked by elsewhere.example.org" in result["msg"]
    assert (lock / "elsewhere.example.org@12345.67-0").exists()


def test_a_lock_that_a_killed_run_has_left_in_the_cache_alone_is_removed(backed_up):
    host, _archive = backed_up
    (config,) = (host.backups / "borg" / ".cache" / "borg").glob("*/config")
    lock = config.with_name("lock.exclusive")
    lock.mkdir()
    (lock / f"{platform.node()}@1.1-0").touch()
    assert "archive" in host.back_up()
    assert not lock.exists()


def test_names_that_look_unfinished_and_paths_that_are_no_text(host):
    with open(os.fsencode(host.whisper) + b"/odd\xff.wsp", "wb") as stream:
        stream.write(b"noise")
    first = host.back_up(host="a.unfinished")
    assert first["archive"] in host.names()
    assert first["manifest"]["whisper"]["damaged"] == ["odd\\xff.wsp"]
    second = host.back_up(host="b")
    assert {first["archive"], second["archive"]} <= set(host.names())


def test_a_disk_that_takes_a_part_of_the_tree_leaves_the_one_that_was_there(backed_up, file_system):
    host, _archive = backed_up
    before = host.contents()
    data = file_system(host.root / "data", "size=64m,nr_inodes=9")
    target = data / "whisper"
    target.mkdir()
    result = host.restore(whisper_directory=str(target), database=False, force=True)
    assert "Not restored" in result["msg"]
    assert sorted(item.name for item in data.iterdir()) in ([".graphite-restore", "whisper"], ["whisper"])
    assert list(target.iterdir()) == []
    assert host.contents() == before


def test_a_backup_runs_again_under_a_simulated_system_python_that_has_the_library(monkeypatch):
    module = SimpleNamespace(check_mode=False, params={"carbonlink": ["127.0.0.1:7002:a"]})

    def respawn(path):
        raise SystemExit(path)

    monkeypatch.setattr(graphite_backup, "AnsibleModule", lambda **_specification: module)
    monkeypatch.setattr(graphite_backup, "WHISPER_ERROR", "ImportError")
    monkeypatch.setattr(interpreter, "probe_interpreters_for_module", lambda paths, name: paths[0] if name == "whisper" else None)
    monkeypatch.setattr(interpreter, "respawn_module", respawn)
    with pytest.raises(SystemExit, match="/usr/bin/python3"):
        graphite_backup.main()
