# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a host lacks is found out before anything is changed on it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host import (
    apt,
    directories,
    imports,
    locks,
    manual_processes,
    requirements,
    time_zones,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.ledger import Ledger, removable_packages

# As an interpreter that never had the modules.
WITHOUT = "import sys\nfor name in {names!r}: sys.modules.setdefault(name)\n"


@pytest.fixture
def examine(tmp_path):
    """Import a module of this content as the program on the host does; return its answer."""

    def run(content):
        (tmp_path / "application.py").write_text(content)
        command = [sys.executable, "-B", imports.__file__, "application"]
        environment = {"PYTHONPATH": str(tmp_path)}
        return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    return run


def test_all_that_is_missing_and_known_is_found_at_once(examine):
    lacking = WITHOUT.format(names=["six", "six.moves", "imp"])
    assert examine(f"{lacking}from six.moves import queue\nimport imp\nclass Found(queue.Queue): pass\n") == {
        "missing": ["six", "imp"],
        "error": "",
    }


def test_what_no_package_brings_back_is_an_error_with_its_place(examine):
    answer = examine("import nowhere_to_be_found\n")
    assert answer["missing"] == []
    assert "application.py" in answer["error"]
    assert "nowhere_to_be_found" in answer["error"]


def test_an_application_that_fails_otherwise_is_an_error(examine):
    assert "ZeroDivisionError" in examine("1 / 0\n")["error"]


def test_what_prints_while_it_is_imported_is_understood(examine):
    assert examine("print('hello')\n") == {"missing": [], "error": ""}


def test_a_cure_that_did_not_help_is_said(run_module, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "application.py").write_text(WITHOUT.format(names=["imp"]) + "import imp\n")
    result = run_module("python_imports_info", python=str(python), modules=["application"], packages_installed=True)
    assert "application" in result["msg"]
    assert "no module imp" in result["msg"]


def test_everything_that_a_host_lacks_is_found_in_one_call(run_module, tmp_path):
    """This machine has no systemd, no archive has the package, and no unit sees /tmp."""
    if Path("/run/systemd/system").exists():
        pytest.fail("this test runs where systemd does not; it is the feature that is missing")
    missing = str(Path(__file__).with_name("missing"))
    (tmp_path / "[source]").mkdir()
    (tmp_path / "dangling").symlink_to(missing)
    result = run_module(
        "host_requirements_info",
        components=[
            {
                "component": "store",
                "packages": ["no-such-package-anywhere", "bash"],
                "advice": "Take another.",
                "directories": [{"variable": "the_directory", "path": "/tmp/store", "user": "root"}],
                "users": ["root", "no-such-user"],
                "paths": [__file__, missing, f"{tmp_path}/*"],
                "kernel_settings": ["kernel.ostype", "no.such.setting"],
                "imports": [{"python": sys.executable, "modules": ["never_imported"]}],
                "problems": ["told by another module"],
            },
            {
                "component": "sender",
                "conditional_packages": [
                    {"name": "also-nowhere", "unless_exists": [missing, __file__]},
                    {"name": "nowhere-either", "unless_exists": [missing]},
                ],
                "imports": [{"python": sys.executable, "modules": ["nowhere_to_be_found"]}],
                "interpreters": [{"python": sys.executable, "minimum": "2.7", "below": "3.0", "problem": "the sender needs an old one."}],
                "conditional_problems": [
                    {"problem": "void", "unless_exists": [__file__]},
                    {"problem": "valid", "unless_exists": [missing]},
                    {"problem": "no directory", "if_exists": __file__, "unless_exists": [f"{__file__}/."]},
                    {"problem": "void: not there", "if_exists": missing, "unless_exists": [f"{missing}/."]},
                    {"problem": "void: a directory", "if_exists": f"{tmp_path}", "unless_exists": [f"{tmp_path}/."]},
                ],
            },
            {"component": "reader", "imports": [{"python": sys.executable, "modules": ["nowhere_to_be_found"]}]},
        ],
        lock_timeout=5,
    )
    assert result["host_names"][0] == platform.node().partition(".")[0]
    assert "127.0.0.1" in result["host_addresses"]
    problems = "\n".join(result["problems"])
    for message in (
        "systemd",
        "no-such-package-anywhere, nowhere-either",
        "Take another.",
        "the_directory is /tmp/store",
        "told by another module",
        "the sender needs an old one",
        "valid",
        "no directory",
        "nowhere_to_be_found",
    ):
        assert message in problems
    assert "void" not in problems
    assert "never_imported" not in problems
    assert result["missing"] == {"store": ["no-such-package-anywhere"], "sender": ["nowhere-either"], "reader": []}
    assert result["unverified"] == [
        {"component": "store", "python": sys.executable, "modules": ["never_imported"]},
        {"component": "sender", "python": sys.executable, "modules": ["nowhere_to_be_found"]},
    ]
    assert result["missing_users"] == ["no-such-user"]
    assert result["missing_groups"] == ["no-such-user"]
    assert result["paths"] == [__file__, f"{tmp_path}/[source]"]
    assert result["kernel_settings"] == {"kernel.ostype": "Linux", "no.such.setting": ""}


@pytest.mark.parametrize(
    ("difference", "named"), [(0, None), (-70, "s ahead of that of the controller"), (90, "s behind that of the controller")]
)
def test_a_clock_that_differs_is_a_problem(run_module, difference, named):
    clock = {"reference_time": time.time() + difference, "tolerance": 30}
    problems = run_module("host_requirements_info", components=[{"component": "cluster", "clock": clock}])["problems"]
    found = [problem for problem in problems if problem.startswith("The clock of the host is")]
    assert [named in problem for problem in found] == ([True] if named else [])


@pytest.mark.parametrize(
    ("lines", "half"),
    [
        ("whole installed ok\n", {}),
        ("gone config-files ok\n", {}),
        ("waiting triggers-awaited ok\n", {}),
        ("half unpacked ok\n", {"half": "unpacked"}),
        ("broken installed reinstreq\n", {"broken": "reinstreq"}),
        ("two installed ok\ntwo half-configured ok\n", {"two": "half-configured"}),
        ("two half-configured ok\ntwo installed ok\n", {"two": "half-configured"}),
    ],
)
def test_half_installed_packages_are_told_from_whole_ones(monkeypatch, lines, half):
    monkeypatch.setattr(apt, "_run", lambda _command: lines)
    assert apt.half_installed(apt.read_states()) == half


def test_an_interrupted_installation_is_refused_with_commands_that_ask_nothing(monkeypatch):
    """With simulated answers of dpkg."""
    monkeypatch.setattr(apt, "_run", lambda _command: "half half-configured ok\n")
    monkeypatch.setattr(apt, "wait_for_locks", lambda _timeout: [])
    examination = requirements.Examination([], lock_timeout=0)
    examination.missing = {"store": ["other"]}
    examination._refuse_disorder()
    (problem,) = examination.problems
    assert "half (half-configured)" in problem
    assert problem.endswith("dpkg --configure -a --force-confdef --force-confold && apt-get -y -f install")


def test_what_is_refused_by_apt_is_told_with_its_reasons():
    with pytest.raises(apt.PackageError, match="no-such-package-anywhere"):
        apt.plan("install", "no-such-package-anywhere")


def absent(run_module, record, *flags):
    return run_module("packages", *flags, packages={"statsd": ["bash", "not-installed-anywhere"]}, record=str(record), state="absent")


def test_packages_that_were_there_before_stay(run_module, tmp_path):
    result = absent(run_module, tmp_path / "none")
    assert result["removed"] == []
    assert result["kept"] == {"bash": "was there before"}
    assert not result["changed"]


def test_packages_that_another_role_needs_stay_and_the_role_is_forgotten(run_module, tmp_path):
    record = tmp_path / "record"
    record.write_text("statsd bash\ncarbon_cache bash\n")
    assert absent(run_module, record, "--check")["changed"]
    assert record.read_text() == "statsd bash\ncarbon_cache bash\n"
    result = absent(run_module, record)
    assert result["kept"] == {"bash": "another role needs it"}
    assert record.read_text() == "carbon_cache bash\n"
    assert not absent(run_module, record)["changed"]


def test_installed_packages_are_left_alone_and_not_recorded(run_module, tmp_path):
    record = tmp_path / "record"
    result = run_module("packages", packages={"statsd": ["bash"]}, record=str(record))
    assert not result["changed"]
    assert result["installed"] == {"statsd": []}
    assert not record.exists()


def test_check_mode_tells_what_would_be_installed_and_records_nothing(run_module, tmp_path):
    record = tmp_path / "record"
    result = run_module("packages", "--check", packages={"statsd": ["bash", "not-installed-anywhere"], "web": []}, record=str(record))
    assert result["changed"]
    assert result["installed"] == {"statsd": ["not-installed-anywhere"], "web": []}
    assert "+not-installed-anywhere" in result["shown_diff"]
    assert not record.exists()


def test_an_owner_without_named_packages_loses_all_that_a_simulated_apt_can_remove(tmp_path, monkeypatch):
    ledger = Ledger(str(tmp_path / "ledger"))
    ledger.add({"backup": ["borgbackup", "rsync", "gone"], "benchmark": ["wrk"], "statsd": ["rsync"]})
    monkeypatch.setattr(apt, "read_states", lambda: dict.fromkeys(["borgbackup", "rsync", "wrk"], apt.INSTALLED[0]))
    monkeypatch.setattr(apt, "read_requested", set)
    monkeypatch.setattr(apt, "plan", lambda _action, *packages: ([], list(packages)))
    assert removable_packages({"backup": [], "benchmark": []}, ledger) == (["borgbackup", "wrk"], {"rsync": "another role needs it"})


def test_the_ledger_keeps_owners_apart_and_tools_of_any_host_out(tmp_path):
    ledger = Ledger(str(tmp_path / "ledger"))
    assert ledger.add({"statsd": ["nodejs", "iproute2"], "web": ["apache2"]})
    assert not ledger.add({"statsd": ["nodejs"]})
    assert (tmp_path / "ledger").read_text() == "statsd nodejs\nweb apache2\n"
    assert Ledger(str(tmp_path / "ledger")).packages_of(["statsd"]) == {"nodejs"}
    assert ledger.packages_of_others(["statsd"]) == {"apache2"}
    assert ledger.remove(["statsd"])
    assert not ledger.remove(["statsd"])
    assert (tmp_path / "ledger").read_text() == "web apache2\n"


@contextlib.contextmanager
def lock_held(path, seconds):
    program = (
        f"import fcntl, time; f = open({str(path)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep({seconds})"
    )
    with subprocess.Popen([sys.executable, "-c", program, "unattended-upgrade"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_lock_is_waited_for_and_its_holder_is_named(tmp_path):
    path = tmp_path / "lock"
    with lock_held(path, 1) as process:
        begin = time.monotonic()
        (holder,), released = locks.wait(10, (str(tmp_path / "none"), str(path)), interval=0.05)
        assert released
        assert 0.5 < time.monotonic() - begin < 30
        assert "python" in holder
        assert holder.endswith(f"(process {process.pid})")
    assert locks.wait(0, (str(path),)) == ([], True)


def test_the_wait_for_a_lock_has_an_end(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setattr(locks.wait, "__defaults__", ((str(path),), 0.05))
    with lock_held(path, 60), pytest.raises(apt.LockedError, match=r"python.* \(process \d+\) has held a lock .* for the 0.2 s"):
        apt.wait_for_locks(0.2)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Give apt a root of its own with a repository of one package and a source that nobody serves; return the source's list."""
    package = tmp_path / "package" / "DEBIAN"
    package.mkdir(parents=True)
    fields = "Package: metricstack-test\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: test\n"
    (package / "control").write_text(fields)
    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run(["dpkg-deb", "--build", package.parent, repository / "test.deb"], check=True, capture_output=True)
    size = (repository / "test.deb").stat().st_size
    (repository / "Packages").write_text(f"{fields}Filename: ./test.deb\nSize: {size}\n")
    for directory in ("state/lists/partial", "cache/archives/partial", "parts"):
        (tmp_path / directory).mkdir(parents=True)
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [trusted=yes] file:{repository} ./\ndeb [trusted=yes] http://127.0.0.1:9 stable main\n")
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'''Dir::State "{tmp_path}/state"; Dir::State::status "/var/lib/dpkg/status"; Dir::Cache "{tmp_path}/cache";
        Dir::Etc::SourceList "{sources}"; Dir::Etc::SourceParts "{tmp_path}/parts"; APT::Sandbox::User "root";
        Acquire::Retries "0"; Acquire::http::Proxy "DIRECT";'''
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    monkeypatch.setattr(apt, "_LISTS", (str(tmp_path / "state/lists/partial"),))
    return sources


def test_a_dead_source_is_a_warning_that_names_it(archive):
    warnings = apt.refuse_uninstallable(["metricstack-test"], timeout=5)
    assert any("127.0.0.1:9" in warning for warning in warnings)
    assert apt.refuse_uninstallable(["metricstack-test"], timeout=5) == []
    assert apt.available_packages(("metricstack-test", "no-such-package-anywhere")) == {"metricstack-test"}


def test_old_package_lists_are_fetched_before_a_plan_is_made_with_them(archive, tmp_path):
    apt.refuse_uninstallable(["metricstack-test"], timeout=5)
    os.utime(tmp_path / "state/lists/partial", (0, 0))
    assert any("127.0.0.1:9" in warning for warning in apt.refuse_uninstallable(["metricstack-test"], timeout=5))


def test_a_package_that_only_a_dead_source_may_have_is_refused_with_the_source(archive):
    with pytest.raises(apt.UninstallableError, match=r"(?s)no-such-package-anywhere.*127\.0\.0\.1:9"):
        apt.refuse_uninstallable(["no-such-package-anywhere"], timeout=5)


@pytest.mark.parametrize(
    ("name", "installed", "available", "packages"),
    [
        ("Europe/Berlin", {"tzdata"}, {"tzdata", "tzdata-legacy"}, []),
        ("US/Eastern", {"tzdata"}, {"tzdata", "tzdata-legacy"}, ["tzdata-legacy"]),
        ("US/Eastern", set(), {"tzdata", "tzdata-legacy"}, ["tzdata", "tzdata-legacy"]),
        ("US/Eastern", set(), {"tzdata"}, ["tzdata"]),
        ("UTC", set(), {"tzdata", "tzdata-legacy"}, ["tzdata"]),
        ("Mars/Olympus", {"tzdata", "tzdata-legacy"}, {"tzdata", "tzdata-legacy"}, []),
    ],
)
def test_a_time_zone_that_a_package_has_comes_along(tmp_path, name, installed, available, packages):
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").touch()
    assert time_zones.packages_for(name, installed, available, str(tmp_path)) == packages


@pytest.fixture
def srv():
    """Return a directory that the sandbox of a unit does not hide, as it hides those of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="metricstack-", dir="/srv"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def problems_of(path, user="nobody"):
    return directories.directory_problems("the_directory", str(path), user)


def test_directories_and_parents_need_not_exist(srv):
    assert problems_of(srv / "graphite" / "whisper") == []
    (srv / "graphite").symlink_to("elsewhere")
    (srv / "elsewhere" / "whisper").mkdir(parents=True)
    assert problems_of(srv / "graphite" / "whisper") == []


@pytest.mark.parametrize("path", ["/tmp/whisper", "/var/tmp/a/b", "/dev/shm/w"])
def test_directories_that_the_sandbox_hides_are_refused(path):
    (problem,) = problems_of(path)
    assert path in problem
    assert "sandbox" in problem


def test_a_directory_below_home_is_mounted_into_the_sandbox_and_a_link_to_it_is_not(srv):
    assert problems_of("/home/graphite/whisper") == []
    (srv / "data").symlink_to("/home")
    (problem,) = problems_of(srv / "data" / "graphite")
    assert "/home/graphite" in problem


def test_a_link_into_a_hidden_directory_is_refused_by_both_names(srv, tmp_path):
    (srv / "data").symlink_to(tmp_path)
    (problem,) = problems_of(srv / "data" / "whisper")
    assert f"{srv}/data/whisper" in problem
    assert f"{tmp_path}/whisper" in problem


def test_a_link_in_place_of_the_directory_is_refused_with_its_target(srv):
    (srv / "data").mkdir()
    (srv / "whisper").symlink_to("data")
    (problem,) = problems_of(srv / "whisper")
    assert f"Set the_directory to the directory itself, {srv}/data" in problem


def test_parents_that_are_no_directories_are_refused(srv):
    (srv / "file").touch()
    (srv / "dangling").symlink_to("nowhere")
    assert f"{srv}/file is not a directory" in problems_of(srv / "file" / "whisper")[0]
    assert f"{srv}/dangling is a symbolic link to nowhere" in problems_of(srv / "dangling" / "whisper")[0]


def test_file_systems_that_nobody_can_write_to_are_refused(srv, file_system):
    assert "read-only" in problems_of(file_system(srv / "fixed", "ro") / "whisper")[0]
    full = file_system(srv / "full", "size=64k")
    with contextlib.suppress(OSError):
        (full / "data").write_bytes(b"x" * 1000000)
    assert "is full" in problems_of(full / "whisper")[0]


def test_parents_that_the_user_cannot_enter_are_refused(srv):
    closed = srv / "closed"
    closed.mkdir(mode=0o700)
    assert f"cannot enter {closed} (mode 0700)" in problems_of(closed / "whisper")[0]
    assert f"cannot enter {closed}" in problems_of(closed / "whisper", user="no-such-user")[0]
    assert problems_of(closed / "whisper", user="root") == []
    nobody = pwd.getpwnam("nobody")
    os.chown(closed, nobody.pw_uid, nobody.pw_gid)
    assert problems_of(closed / "whisper") == []
    os.chown(closed, 0, nobody.pw_gid)
    closed.chmod(0o710)
    assert problems_of(closed / "whisper") == []


def test_links_that_lead_out_of_what_the_unit_may_write_to_are_named(srv):
    whisper = srv / "whisper"
    for directory in (whisper / "carbon" / "agents", srv / "log", srv / "other"):
        directory.mkdir(parents=True)
    (whisper / "inside").symlink_to("carbon")
    (whisper / "log").symlink_to(srv / "log")
    (whisper / "carbon" / "stats").symlink_to(srv / "other")
    (whisper / "gone").symlink_to(srv / "unmounted")
    problems = directories.link_problems("the_directory", str(whisper), [str(srv / "log")])
    assert len(problems) == 2
    assert any(f"{whisper}/carbon/stats" in problem and f"mount {srv}/other on it" in problem for problem in problems)
    assert any(f"{whisper}/gone" in problem for problem in problems)
    assert directories.link_problems("the_directory", str(srv / "not there yet"), []) == []


def test_a_program_from_a_shell_is_started_manually_and_one_of_a_supervisor_is_not():
    program = [sys.executable, "-c", "import time; time.sleep(60)", "stats.js "]
    names = [Path(sys.executable).resolve().name]
    command = r"(^|[ /])stats\.js "
    with subprocess.Popen(program) as supervised:
        assert not manual_processes.is_started_manually(supervised.pid, names, command)
        supervised.kill()
    line = f"{sys.executable} -c 'import time; time.sleep(60)' 'stats.js ' & echo $!; wait"
    with subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, text=True) as shell:
        pid = int(shell.stdout.readline())
        for _attempt in range(100):
            if manual_processes.is_started_manually(pid, names, command):
                break
            time.sleep(0.05)
        else:
            pytest.fail("it is started manually")
        assert not manual_processes.is_started_manually(pid, ["node"], command)
        assert not manual_processes.is_started_manually(pid, names, "another")
        os.kill(pid, 9)
    assert not manual_processes.is_started_manually(pid, names, command)
