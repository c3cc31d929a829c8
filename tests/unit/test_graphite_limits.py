# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What graphite_limits.py counts, and how it shares threads and interrupts them. The scenario default has graphite-web itself."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROLE_FILES = Path(__file__).resolve().parents[2] / "roles" / "graphite_web" / "files"
STUBS = {
    "graphite.errors": {"InputParameterError": ValueError},
    "graphite.render.attime": {"parseTimeOffset": None},
    "graphite.util": {"timebounds": None},
}


@pytest.fixture(scope="module")
def limits():
    """Load the file beside names of graphite-web that these tests do not use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROLE_FILES))
        for name in ("graphite", "graphite.render", *STUBS):
            module = ModuleType(name)
            module.__dict__.update(STUBS.get(name, {}))
            patch.setitem(sys.modules, name, module)
        yield importlib.import_module("graphite_limits")
        sys.modules.pop("graphite_limits")


@pytest.fixture
def budget(limits, role_validation):
    """Have a request with the role's own bounds."""
    value = role_validation.value("graphite_web", "__graphite_web_limits", {})
    limits._current.budget = limits.Budget(value)
    yield limits._current.budget
    limits._current.budget = None


@pytest.mark.parametrize(
    ("target", "depth", "rereads"),
    [
        ("a.b.c", 0, 0),
        ("alias(sum(a.*), 'x(((')", 2, 0),
        ('f(a, "\\"(((")', 1, 0),
        ("f(a, b=g(c, d=h(e)))", 3, 2),
        ("f(a, b=1, g(c))", 2, 0),
        ("template(template(f(a)))", 3, 2),
        ("a)))", 0, 0),
    ],
)
def test_the_depth_of_a_target_is_counted(limits, target, depth, rereads):
    assert limits.nesting(target) == (depth, rereads)


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        ("a.b", 1),
        ("a.{b,c}.{d,e}", 2),
        ("a.{b,c}{d,e}x{f,g,h}", 12),
        ("{a,{b,c}}", 4),
        ("sum(a.{b,c},a.{d,e})", 2),
        ("{a,b}" * 20, 2**20),
        ("}{", 1),
    ],
)
def test_the_names_for_which_braces_stand_are_counted(limits, pattern, number):
    assert limits.alternatives(pattern) == number


@pytest.mark.parametrize(
    ("pattern", "number"),
    [("a+", 1), ("a{3}", 3), ("(a{10}b{2}){10}", 100), ("(?:a{2,7})*", 7), ("a{9}|b{5}", 9), ("(?=(a{3}){4})", 12)],
)
def test_counted_repetitions_are_multiplied(limits, pattern, number):
    assert limits.repetitions(limits.parser.parse(pattern)) == number


@pytest.mark.parametrize("method", ["search", "match", "sub"])
def test_regular_expressions_without_end_are_refused_in_time(limits, budget, method):
    began = time.thread_time()
    with pytest.raises(limits.Refused, match=r"regular expressions of the request take more than 0\.5 s"):
        getattr(limits.Patterns(), method)("(a|aa)+$", *(["b"] if method == "sub" else []), "a" * 80 + "b")
    assert time.thread_time() - began < 1.5
    assert budget.refusal[0] == 400


def test_the_seconds_for_regular_expressions_are_those_of_the_whole_request(limits, budget):
    budget.pattern_seconds = 0.2
    pattern = limits.Patterns().compile("(a|aa)+$")
    began = time.thread_time()
    for _name in range(5):
        with pytest.raises(limits.Refused):
            pattern.search("a" * 80 + "b")
    assert time.thread_time() - began < 0.6


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(.{200}){200}", "counted repetitions"), ("(", "not valid"), ("a" * 1001, "1001 characters")]
)
def test_regular_expressions_that_take_memory_are_refused(limits, budget, pattern, reason):
    with pytest.raises(limits.Refused, match=reason):
        limits.Patterns().compile(pattern)


@pytest.mark.usefixtures("budget")
def test_other_regular_expressions_do_what_those_of_python_do(limits):
    patterns = limits.Patterns()
    assert patterns.sub(r"^.*\.(\w+)\.(?P<name>\w+)$", r"\g<name> of \1", "servers.web1.load") == "load of web1"
    assert patterns.sub("x*", "-", "abxd") == limits.re.sub("x*", "-", "abxd")
    assert patterns.sub(r"\d+", lambda found: found[0] * 2, "a1b2") == "a11b22"
    assert patterns.match("(?!cpu)[a-z]+", "cpu") is None
    assert patterns.compile("CPU", limits.re.I).search("a.cpu")
    assert patterns.escape("a.b") == r"a\.b"


def test_a_name_does_not_become_longer_than_a_target(limits, budget):
    name = limits.Patterns().sub(".", "b" * 30, "a" * 100)
    with pytest.raises(limits.Refused, match="name of a series would be too long"):
        limits.Patterns().sub(".", "b" * 30, name)
    assert len(name) <= budget.limits["target_length"]


def test_one_client_leaves_threads_and_turns_to_others(limits):
    gate = limits.Gate(64, 2)
    held = sum(gate.enter("hog") for _request in range(60))
    assert held == 48
    assert gate.enter("other")
    for _request in range(held):
        gate.leave("hog")
    assert gate.enter("hog")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::8", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
        ("", ""),
    ],
)
def test_all_addresses_of_a_host_are_one_client(limits, address, client):
    assert limits._client(address) == client


@pytest.mark.parametrize(
    "path", ["/render", "/events/get_dat", "/composer/mygraphX", "/account/login", "/dashboard/login", "/admin/login/"]
)
def test_what_takes_long_waits_for_its_turn(limits, path):
    assert limits.EXPENSIVE.match(path)
    assert not limits.EXPENSIVE.match("/dashboard" + path)


def test_a_password_is_checked_when_it_is_the_turn_of_its_client(limits, monkeypatch):
    turns = []

    class Gate:
        @contextmanager
        def running(self, client, _seconds):
            turns.append(client)
            yield True

    one = object.__new__(limits.Limits)
    one._gate, one._limits, one._answer = Gate(), {"seconds": 60}, lambda _request, _began: "answer"
    monkeypatch.setattr(limits, "settings", SimpleNamespace(URL_PREFIX="/graphite"))
    for authorization in ("Basic YTpi", "basic YTpi", "Bearer a", ""):
        request = SimpleNamespace(path_info="/graphite/version/", META={"HTTP_AUTHORIZATION": authorization})
        assert one._admit(request, authorization, 0) == "answer"
    assert turns == ["Basic YTpi", "basic YTpi"]


def test_waiting_requests_run_in_turn_and_a_client_without_any_runs_at_once(limits):
    gate = limits.Gate(32, 2)
    ran, lock, ends = [], threading.Lock(), {}

    def run(client, number):
        with gate.running(client, 10) as is_in_time:
            assert is_in_time
            with lock:
                ran.append((client, number))
            ends[client, number].wait(10)

    def wait_for(condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def start(client, number, runs):
        ends[client, number] = threading.Event()
        thread = threading.Thread(target=run, args=(client, number))
        thread.start()
        wait_for(lambda: (client, number) in ran if runs else len(gate._waiting.get(client, ())) == number - 1)
        return thread

    threads = [start("hog", number, runs=number < 2) for number in range(4)] + [start("other", 0, runs=True)]
    assert ran == [("hog", 0), ("hog", 1), ("other", 0)]
    ends["hog", 1].set()
    wait_for(lambda: len(ran) > 3)
    assert ran[3:] == [("hog", 2)]
    for event in list(ends.values()):
        event.set()
    for thread in threads:
        thread.join(5)
    assert len(ran) == 5
    assert not gate._running
    assert not gate._waiting


def test_a_request_does_not_wait_for_ever(limits):
    gate = limits.Gate(4, 1)
    with gate.running("a", 1) as first, gate.running("a", 0.05) as second, gate.running("b", 0.05) as other:
        assert (first, second, other) == (True, False, True)
    with gate.running("a", 0.05) as again:
        assert again


def test_a_thread_whose_time_is_up_is_interrupted_also_if_it_goes_on(limits, budget):
    watch = limits.Watch()

    def for_a_second():
        for _turn in range(100):
            time.sleep(0.01)

    def swallow():
        times = 0
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            try:
                while time.monotonic() < end:
                    pass
            except limits.Refused:
                times += 1
        return times

    watch.begin(0.1, budget.refuse_time)
    try:
        assert swallow() >= 2
    finally:
        watch.end()
    assert budget.refusal == (503, "The request takes more than 60 s.")
    time.sleep(0.3)  # nothing more comes
    watch.begin(5, budget.refuse_time)
    inner = watch.begin(0.1, lambda: None)
    with pytest.raises(limits.Refused):
        for_a_second()
    watch.end(inner)
    time.sleep(0.3)
    watch.end()


MEMORY = f"""
import sys
from types import ModuleType, SimpleNamespace
for name in ("graphite", "graphite.render", *{list(STUBS)!r}):
    sys.modules[name] = ModuleType(name)
sys.modules["graphite.errors"].InputParameterError = ValueError
sys.modules["graphite.render.attime"].parseTimeOffset = sys.modules["graphite.util"].timebounds = None
sys.path.insert(0, {str(ROLE_FILES)!r})
import graphite_limits
graphite_limits._bound_memory(256, 1)
bytearray(64 * 2**20)
try:
    [0] * (512 * 2**20)
except MemoryError:
    graphite_limits._current.budget = graphite_limits.Budget({{"memory": 256}})
    print(graphite_limits.Limits.process_exception(None, None, MemoryError()).content)
"""


def test_what_exceeds_the_memory_fails_and_the_process_goes_on():
    program = "from django.conf import settings; settings.configure()\n" + MEMORY
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "needs too much memory (graphite_web_limits: memory)" in result.stdout
