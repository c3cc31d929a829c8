# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What expensive requests cost: they are refused or end in time, the processes live on, and other clients get their answers meanwhile."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest

# Seconds of processor time, within the bounds.
SLOW = urlencode({"target": 'movingMedian(randomWalk("a"),400)', "from": "-30d", "format": "json", "noCache": 1})
SMALL = urlencode({"target": "carbon.agents.*.metricsReceived", "from": "-5min", "format": "json", "noCache": 1})
# Has 50 connections, and asks again on each, until it is told to end.
HOG = """
import http.client, sys, threading, time
counts = {}
def ask():
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=70, source_address=("127.0.0.9", 0))
        try:
            connection.request("GET", "/render?" + sys.argv[1], headers={"Host": "localhost"})
            status = connection.getresponse().status
        except OSError as error:
            status = type(error).__name__
        counts[status] = counts.get(status, 0) + 1
        if status == 429:
            time.sleep(0.5)
end = time.monotonic() + float(sys.argv[2])
threads = [threading.Thread(target=ask, daemon=True) for _ in range(50)]
for thread in threads: thread.start()
time.sleep(float(sys.argv[2]))
print(counts)
"""
ASK = """
import http.client, json, sys, time
source, number, pause, path = sys.argv[1:]
answers = []
for _ in range(int(number)):
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60, source_address=(source, 0))
    connection.request("GET", path, headers={"Host": "localhost"})
    response = connection.getresponse()
    body = response.read()
    answers.append([response.status, round(time.monotonic() - began, 3), len(body)])
    connection.close()
    time.sleep(float(pause))
print(json.dumps(answers))
"""


@pytest.fixture
def processes(host):
    """Return the ids of the processes of the site."""
    return lambda: set(host.run("pgrep -f '^.wsgi:graphite'").stdout.split())


@pytest.fixture
def ask_from(run_python, site_port):
    """Ask from an address of the host; return status, seconds and size of each answer."""

    def ask(source, path, number=1, pause=0):
        return json.loads(run_python(ASK.replace("PORT", str(site_port)), source, str(number), str(pause), path))

    return ask


@pytest.fixture
def many_connections(host, site_port):
    """Have a client keep 50 connections busy meanwhile."""

    @contextmanager
    def busy(seconds):
        code = HOG.replace("PORT", str(site_port))
        host.run("systemd-run --quiet --unit=hog --collect python3 -c %s %s %s", code, SLOW, str(seconds))
        time.sleep(5)
        try:
            yield
            assert host.check_output("systemctl is-active hog.service") == "active"  # it was busy all the time
        finally:
            host.run("systemctl stop hog.service")

    return busy


def test_one_client_does_not_keep_others_out(ask_from, many_connections, processes):
    before = processes()
    idle = [seconds for _status, seconds, _size in ask_from("127.0.0.3", f"/render?{SMALL}", 5)]
    with many_connections(40):
        answers = ask_from("127.0.0.3", f"/render?{SMALL}", 10, 0.5)
    assert {status for status, _seconds, _size in answers} == {200}
    assert max(seconds for _status, seconds, _size in answers) < max(2, 20 * max(idle)), (idle, answers)
    assert processes() == before


def test_a_client_gets_a_dashboard_at_once(ask_from, run_python, site_port):
    """40 graphs over 6 connections, as browsers ask, or all at once, as Grafana does."""
    many = """
import http.client, json, sys
from concurrent.futures import ThreadPoolExecutor
def ask(number):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60, source_address=("127.0.0.4", 0))
    connection.request("GET", f"/render?{sys.argv[1]}&uniq={number}", headers={"Host": "localhost"})
    return connection.getresponse().status
print(json.dumps([list(ThreadPoolExecutor(connections).map(ask, range(40))) for connections in (6, 40)]))
""".replace("PORT", str(site_port))
    query = urlencode({"target": "carbon.agents.*.*", "from": "-1h", "width": 600, "height": 300})
    assert json.loads(run_python(many, query)) == [[200] * 40] * 2


CATASTROPHES = ["(a|aa)+$", "((.{999}){999}){999}", "(" * 500 + ")" * 500]
NAME = "a" * 60 + "!"


@pytest.mark.parametrize("pattern", CATASTROPHES, ids=lambda pattern: pattern[:20])
@pytest.mark.parametrize("function", ["grep", "exclude", "aliasSub"])
def test_a_regular_expression_that_takes_for_ever_is_refused(ask_from, processes, function, pattern):
    before = processes()
    rest = ',"b")' if function == "aliasSub" else ")"
    query = urlencode({"target": f'{function}(randomWalk("{NAME}"),"{pattern}"{rest}', "format": "json", "noCache": 1})
    [[status, seconds, _size]] = ask_from("127.0.0.5", f"/render?{query}")
    assert (status, seconds < 30) == (400, True), seconds  # half a second of processor time
    assert processes() == before


REFUSED = {
    "targets": {"target": ["a"] * 501},
    "target_length": {"target": f"alias(a,'{'a' * 5000}{'b' * 1500}')", "big": 1},
    "depth": {"target": "abs(" * 31 + "a" + ")" * 31},
    "alternatives": {"target": "a." + "{a,b}" * 11},
    "days": {"target": "a", "from": "-20y"},
    "points": {"target": "randomWalk('a',1)", "from": "-1y"},
    "series": {"target": "timeStack(randomWalk('a'),'1min',0,6000)", "from": "-10min"},
}
ENDLESS = {
    "tiny intervals": {"target": "summarize(randomWalk('a',3600),'1s')", "from": "-9y"},
    "no interval": {"target": "summarize(randomWalk('a'),'0s')"},
    "backwards": {"target": "smartSummarize(randomWalk('a'),'-1d')"},
    "hits": {"target": "hitcount(randomWalk('a',3600),'1s')", "from": "-9y"},
    "no step": {"target": "randomWalk('a',0)"},
    "identity": {"target": "identity('a')", "from": "-10y"},
    "the years of a bootstrap": {"target": "holtWintersForecast(randomWalk('a'),'9999d')"},
    "windows": {"target": "movingAverage(randomWalk('a'),'9999d')"},
    "shifts": {"target": "timeStack(randomWalk('a'),'1d',0,100000)"},
    "long names": {"target": "aliasSub(" * 6 + "randomWalk('a')" + f",'.','{'a' * 200}')" * 6},
    "named arguments": {"target": "f(a,b=" * 12 + "a" + ")" * 12},
    "windows in windows": {"target": "movingAverage(" * 25 + "randomWalk('a')" + ",5)" * 25, "from": "-10d"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_exceeds_a_bound_is_refused_by_its_name(http_get, name):
    parameters = {"format": "json", "noCache": 1, **REFUSED[name]}
    if parameters.pop("big", 0):
        parameters["target"] = parameters["target"] * 4
    status, headers, body = http_get("/render", data=urlencode(parameters, doseq=True).encode())
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8"), body
    assert f"(graphite_web_limits: {name})" in body.decode()


@pytest.mark.parametrize("name", ENDLESS)
def test_work_without_end_ends(ask_from, processes, name):
    before = processes()
    [[status, seconds, _size]] = ask_from("127.0.0.6", "/render?" + urlencode({"format": "json", "noCache": 1, **ENDLESS[name]}))
    assert (status >= 400, seconds < 70) == (True, True), (status, seconds)  # graphite_web_request_timeout is 60
    assert processes() == before


@pytest.mark.parametrize("path", ["/metrics/find", "/metrics/expand"])
def test_braces_do_not_multiply(ask_from, path):
    [[status, seconds, _size]] = ask_from("127.0.0.6", f"{path}?" + urlencode({"query": "a." + "{a,b}" * 24}))
    assert (status, seconds < 5) == (400, True)


def test_the_search_box_takes_no_pattern_without_end(http_get, host):
    host.run("grep -q '%s' /var/lib/graphite/search_index || echo '%s' >> /var/lib/graphite/search_index", NAME, NAME)
    status, _headers, body = http_get("/browser/search", data=urlencode({"query": "(a|aa)+$"}).encode())
    assert (status, b"regular expressions" in body) == (400, True), body
