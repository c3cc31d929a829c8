# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What graphite-web keeps in memcached, with the settings of the role, and what it costs where memcached is away.

A dictionary that speaks memcached's protocol stands for memcached; the scenario default has the real one.
"""

from __future__ import annotations

import json
import os
import pickle
import socket

import pytest

BEGINNING = """
import json, sys, time
import django
from django.conf import settings
settings.configure(**json.loads(sys.argv[1]))
django.setup()
from django.core.cache import cache
from django.http import HttpResponse
def seconds(function):
    began = time.monotonic()
    function()
    return time.monotonic() - began
"""


@pytest.fixture
def run(role_validation, run_beside_graphite_web):
    """Run a program with Django and the settings that the role writes; return what it prints, as JSON."""

    def result(program: str, *servers: str, secret_key: str = "one", duration: int = 10):
        variables = {"graphite_web_memcached_hosts": list(servers), "graphite_web_cache_duration": duration}
        settings = {"SECRET_KEY": secret_key, **role_validation.value("graphite_web", "__graphite_web_cache_settings", variables)}
        return run_beside_graphite_web(BEGINNING + program, json.dumps(settings))

    return result


def test_answers_are_kept_and_the_series_between_are_not(run, memcached):
    program = """
cache.add("answer", HttpResponse(b"a picture"), 10)
cache.add("series", [1, 2], 10)
print(json.dumps([cache.get("answer").content.decode(), cache.get("series")]))
"""
    assert run(program, memcached.name) == ["a picture", None]
    assert len(memcached.store) == 1


def test_a_thread_keeps_its_connection_and_notices_its_end(run, memcached):
    program = """
from django.core.signals import request_finished
answers = []
cache.set("a", "an answer", 10)
for number in range(7):
    request_finished.send(None)
    answers.append(cache.get("a"))
print(json.dumps(answers))
"""
    assert run(program, memcached.name) == ["an answer"] * 7
    assert memcached.connections == 1
    memcached.commands = 4
    # One answer is computed anew, in the request that finds the connection ended.
    assert run(program, memcached.name) == ["an answer"] * 3 + [None] + ["an answer"] * 3
    assert memcached.connections == 3


@pytest.mark.parametrize(("prefix", "path"), [("", "/render"), ("/graphite", "/graphite/render")])
def test_a_kept_answer_is_given_again_before_anything_else_and_only_by_its_own_path(run, memcached, prefix, path):
    """By the key of graphite-web's view, and as the guard sends what the view gives."""
    program = f"""
settings.URL_PREFIX, settings.LOG_CACHE_PERFORMANCE, settings.LOG_RENDERING_PERFORMANCE = {prefix!r}, False, False
class Modules:
    hashRequest = staticmethod(lambda request: request.GET["key"])
    plain = staticmethod(lambda get_response: lambda request: get_response(request).content.decode() + " as text")
sys.modules.update({{name: Modules for name in ("graphite", "graphite.render", "graphite.render.hashing", "graphite_guard")}})
from django.test import RequestFactory
from graphite_cache import MiddlewareNotUsed, answer
cache.add("kept", HttpResponse(b"an answer"), 10)
answered = answer(lambda request: "a new one")
given = [answered(RequestFactory().get(path, {{"key": key}})) for path, key in
         (("{path}", "kept"), ("{path}/", "kept"), ("{path}", "other"), ("{path}/local", "kept"), ("/find", "kept"))]
settings.LOG_CACHE_PERFORMANCE = True
try:
    answer(None)
except MiddlewareNotUsed:
    given.append("logged by the view")
print(json.dumps(given))
"""
    kept, new = "an answer as text", "a new one"
    assert run(program, memcached.name) == [kept, kept, new, new, new, "logged by the view"]


def test_expressions_of_tags_are_keys(run, memcached):
    """graphite-web gives them as they are, and memcached takes 250 characters without white space."""
    program = """
for name in ("TagDB.find_series:name=~a b", "x" * 1000, "\\u65e5", ""):
    cache.set(name, [name], 10)
    assert cache.get(name) == [name], name
print(0)
"""
    run(program, memcached.name)


def test_what_others_have_written_is_neither_run_nor_shown(run, memcached, tmp_path):
    run("cache.add('a', HttpResponse(b'a'), 10), cache.add('b', HttpResponse(b'b'), 10); print(0)", memcached.name)
    first, second = memcached.store
    code = pickle.dumps(Command(f"touch {tmp_path}/ran"))
    read = "print(json.dumps(['ok' if cache.get(name) else None for name in 'ab']))"
    assert run(read, memcached.name) == ["ok", "ok"]
    for value in (code, memcached.store[second][:32] + code, b"", memcached.store[second]):
        memcached.store[first] = value
        assert run(read, memcached.name) == [None, "ok"]
    assert list(tmp_path.iterdir()) == []
    # The names are others as well, so that nothing of one application is in the way of the other.
    assert run(read, memcached.name, secret_key="two") == [None, None]
    run("cache.add('a', HttpResponse(b'a'), 10); print(0)", memcached.name, secret_key="two")
    assert len(memcached.store) == 3


class Command:
    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self):
        return os.system, (self._text,)


@pytest.mark.parametrize("way", ["refuses", "does not answer", "does not even accept"])
def test_a_memcached_that_is_away_costs_a_moment_once(run, way):
    program = """
operations = [lambda: cache.get("a"), lambda: cache.get("b"), lambda: cache.add("b", [], 9), lambda: cache.add("a", HttpResponse(b"a"), 9)]
waits = [sum(seconds(operation) >= 0.1 for operation in operations) for request in range(101)]
print(json.dumps([waits[0], sum(waits[1:])]))
"""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        waiting = []
        if way != "refuses":
            listener.listen(0 if way == "does not even accept" else 10)
        if way == "does not even accept":
            # The kernel drops what comes once its queue is full.
            for _number in range(3):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
        first, later = run(program, f"127.0.0.1:{listener.getsockname()[1]}")
        for client in waiting:
            client.close()
    # One wait of 0.1 s for four operations, and none in the next hundred requests, but for the pauses of a busy machine.
    assert (way != "refuses") <= first <= 2
    assert later <= 10


def test_one_of_several_that_is_away_leaves_the_others(run, memcached):
    program = """
for attempt in range(3):
    for number in range(20):
        cache.set(f"a{number}", number, 10)
    time.sleep(1.1)
print(json.dumps([cache.get(f"a{number}") for number in range(20)]))
"""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert run(program, f"127.0.0.1:{listener.getsockname()[1]}", memcached.name) == list(range(20))


def test_lifetimes_follow_from_the_duration(run, memcached):
    names = ["DEFAULT_CACHE_DURATION", "FIND_CACHE_DURATION", "TAGDB_CACHE_DURATION"]
    program = f"print(json.dumps([getattr(settings, name) for name in {names}]))"
    assert run(program, duration=1) == [1, 1, 0]
    assert run(program, memcached.name, duration=60) == [60, 60, 0]
