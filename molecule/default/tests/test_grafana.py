# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What Grafana asks is answered as graphite-web answers it without this collection.

Source of the requests: the data source of Grafana 13.2, both as the browser asks through Grafana's proxy
(``public/app/plugins/datasource/graphite``: ``datasource.ts``, ``gfunc.ts``) and as Grafana itself asks (``pkg/tsdb/graphite``), and the
headers that the proxy adds (``pkg/util/proxyutil``).
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from urllib.parse import quote, urlencode

import pages
import pytest
import yaml
from conftest import ROOT, values

PAGE = "docs/grafana.md"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PROXY = MappingProxyType(
    {
        "Accept": "application/json, text/plain, */*",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": "cors",
        "Via": "1.1 grafana",
        "X-Forwarded-For": "198.51.100.7",
        "X-Grafana-Org-Id": "1",
        "X-Grafana-Referer": "https://grafana.example.org/d/abc",
        "X-Panel-Id": "3",
    }
)
# Graphite-web with its own settings, apart from where things are and whether there are tags, asked without Apache.
REFERENCE = """
import json, os, sys
from types import ModuleType
sys.path.insert(0, "/etc/graphite")
import local_settings
places = sys.modules["places"] = ModuleType("places")
for name in ("CARBONLINK_HOSTS", "CARBONLINK_HASHING_TYPE", "CARBONLINK_TIMEOUT", "CONF_DIR", "DATABASES", "GRAPHITE_ROOT", "INDEX_FILE",
             "LOG_DIR", "LOG_FILE_CACHE", "LOG_FILE_EXCEPTION", "LOG_FILE_INFO", "LOG_FILE_RENDERING", "LOG_ROTATION", "SECRET_KEY",
             "STATIC_ROOT", "STORAGE_DIR", "TAGDB", "TIME_ZONE", "WHISPER_DIR"):
    setattr(places, name, getattr(local_settings, name))
os.environ.update(GRAPHITE_SETTINGS_MODULE="places", DJANGO_SETTINGS_MODULE="graphite.settings")
import django
django.setup()
from django.test import Client
client = Client(raise_request_exception=False)
answers = []
for path, form, headers in json.loads(sys.argv[1]):
    given = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items() if name != "Content-Type"}
    if form is None:
        answer = client.get(path, **given)
    else:
        answer = client.post(path, data=form, content_type=headers["Content-Type"], **given)
    answers.append([answer.status_code, answer.content.decode()])
print("ANSWERS:" + json.dumps(answers))
"""
SERIES = "grafana.*.{requests,latency}"
# What a user types where Grafana knows no default.
TYPED = {
    "aggFunc": "sum",
    "aggOrSeriesFunc": "sum",
    "date": "00:00_20260101",
    "float": "0.5",
    "func": "sum",
    "integer": "2",
    "intOrInf": "2",
    "intOrInterval": "2",
    "interval": "1min",
    "node": "1",
    "nodeOrTag": "1",
    "seriesList": SERIES,
    "seriesLists": SERIES,
    "string": "a",
    "any": "2",
    "boolean": "true",
}
UNQUOTED = ("boolean", "integer", "float", "node", "seriesList")
UNQUOTED_NUMBERS = ("intOrInterval", "nodeOrTag")
SEND = "import socket, sys; socket.create_connection(('127.0.0.1', 2003)).sendall(sys.argv[1].encode())"


@pytest.fixture
def asked(run_python, render, wait_until):
    """Store an hour of series; return the requests of the data source for a time in which they do not change any more."""
    now = int(time.time())
    times = {"from": str(now - 3600), "until": str(now - 300)}
    relative = {"from": "-1h", "until": "now"}
    # A point that is stored again has the same value.
    lines = [
        f"grafana.{host}.{name} {value} {minute * 60}\n"
        for minute in range(now // 60 - 65, now // 60)
        for host, factor in (("web1", 1), ("web2", 3))
        for name, value in (("requests", minute * factor % 17), ("latency", minute % 100 / 2 + factor))
    ]
    run_python(SEND, "".join(lines), user="_graphite")
    wait_until(lambda: [len(values(series)) >= 65 for series in render(SERIES, **{"from": "-2h"})] == [True] * 4)

    def ask(*targets, headers=PROXY, **parameters):
        # In this order, as the browser and as Go encode them.
        fields = [("target", target) for target in targets] + list(
            {"format": "json", "maxDataPoints": "877", **times, **parameters}.items()
        )
        return "/render", urlencode(fields, quote_via=quote), {**FORM, **headers}

    def get(path, headers=PROXY, **parameters):
        query = urlencode(parameters, doseq=True, quote_via=quote)
        return f"{path}?{query}" if query else path, None, dict(headers)

    def find(query, headers=PROXY, **parameters):
        # The browser does not encode the query.
        return f"/metrics/find?{urlencode(parameters)}", f"query={query}", {**FORM, **headers}

    requests = [
        # "Save & test", by the browser and by Grafana.
        ask('aliasSub(constantLine(100), "(^.*$)", "\\1 A")', maxDataPoints="300"),
        ask("constantLine(100)", headers={}, maxDataPoints="100"),
        get("/version"),
        get("/functions"),
        get("/functions", headers={}),
        # Panels, with the name of the query behind each series.
        ask(*[f'aliasSub({SERIES}, "(^.*$)", "\\1 {name}")' for name in "ABC"], cacheTimeout="60"),
        ask(f'aliasSub(asPercent({SERIES}, sumSeries({SERIES})), "(^.*$)", "\\1 C")'),
        ask(f"aliasSub(summarize({SERIES}, '5min', 'sum', false), \"(^.*$)\", \"\\1 A\")"),
        ask(f"movingAverage({SERIES}, '1min')", headers={}),
        ask('aliasSub(no.such.series, "(^.*$)", "\\1 A")'),
        ask('aliasSub(seriesByTag("name=~cpu.*", "host=a"), "(^.*$)", "\\1 A")'),
        # Query editor, variables, annotations.
        *[find(query, **relative) for query in ("*", "grafana.*", "grafana.*.{requests,no}", "*graf*", "grafana.web?.*quest*")],
        find("no.such.*"),
        find("grafana.*", headers={}, **times),
        get("/metrics/expand", {**FORM, **PROXY}, query="grafana.*.*", **relative),
        get("/metrics/expand", {}, query="grafana.*", **{"from": "undefined", "until": "undefined"}),
        *[get(f"/tags/autoComplete/tags{end}", limit=limit) for end, limit in (("", 5000), ("", 10000))],
        get("/tags/autoComplete/tags", limit=5000, tagPrefix="ho", expr=["name=cpu", "host=~a.*"], **relative),
        get("/tags/autoComplete/values", limit=5000, tag="host", expr=["name=~cpu.*", "host!=~(a|b)"], **relative),
        get("/tags/autoComplete/values", limit=10000, tag="host", valuePrefix="a"),
        get("/tags"),
        get("/tags/host"),
        get("/events/get_data", **relative),
        get("/events/get_data", {}, tags="deployment grafana", **relative),
        get("/events/get_data", tags="grafana", **{"from": str(now - 86400), "until": "now"}),
        get("/events/get_data", **{"from": "-7d", "until": "-5min"}),
    ]
    shipped = yaml.safe_load((ROOT / "playbooks" / "vars" / "dashboards.yml").read_text())["dashboards_shipped"]
    for graph in (graph for dashboard in shipped for graph in dashboard["graphs"]):
        targets = [f'aliasSub({target}, "(^.*$)", "\\1 {"ABC"[number]}")' for number, target in enumerate(graph["targets"])]
        requests.append(ask(*targets))
    return requests, ask


def calls(described, fill):
    """Return a call of a function as the query editor writes it when it is added; ``fill`` says what stands where nothing is given."""
    parameters = described["params"] or []
    takes_series = bool(parameters) and parameters[0]["type"] in ("seriesList", "seriesLists")
    if takes_series and not parameters[0].get("multiple"):
        parameters = parameters[1:]
    texts = []
    for parameter in parameters:
        value, kind = parameter.get("default"), parameter["type"]
        if value is None:
            value = next(iter(parameter.get("suggestions") or parameter.get("options") or [""]))
        value = str(value).lower() if isinstance(value, bool) else str(value)
        if not value and (fill or parameter.get("required")):
            value = TYPED.get(kind, "a")
        is_number = kind in UNQUOTED_NUMBERS and value.lstrip("-").replace(".", "", 1).isdigit()
        texts.append(value if kind in UNQUOTED or is_number else f"'{value}'")
    while texts and texts[-1] == "":
        texts.pop()
    return f"{described['name']}({', '.join([SERIES] * takes_series + texts)})"


@pytest.fixture
def compare(http_get, run_python):
    """Ask the site and graphite-web without this collection; return what is not the same, and how many answers there are."""

    def differences(requests):
        printed = run_python(REFERENCE, json.dumps(requests), user="_graphite")
        answers = json.loads(printed.partition("ANSWERS:")[2])
        found = {}
        with ThreadPoolExecutor(4) as several:
            own_answers = list(several.map(lambda one: http_get(one[0], one[2], None if one[1] is None else one[1].encode()), requests))
        for (path, form, _asked), (status, body), (own_status, _headers, own_body) in zip(requests, answers, own_answers):
            # What graphite-web cannot answer, such as /functions on Python 3.11, need not stay so.
            if status == 200 and (own_status, canonical(own_body)) != (200, canonical(body)):
                found[f"{path} {form}"] = (own_status, own_body[:300], body[:300])
        return found, [status for status, _body in answers].count(200)

    return differences


def canonical(body):
    """Return an answer without the order of its keys."""
    try:
        return json.dumps(json.loads(body), sort_keys=True)
    except ValueError:
        return body if isinstance(body, str) else body.decode()


def test_what_the_data_source_asks_is_answered_as_without_this_collection(compare, asked, run_module):
    run_module("graphite_event", what="Release", tags=["deployment", "grafana"], when=int(time.time()) - 60)
    requests, _ask = asked
    different, answered = compare(requests)
    assert different == {}
    assert answered >= len(requests) - 1  # /functions of Debian 12


def test_no_function_that_the_query_editor_adds_is_refused(compare, asked, http_get):
    _requests, ask = asked
    described = json.loads(http_get("/functions")[2])
    targets = {
        calls(function, fill)
        for function in described.values()
        for fill in (False, True)
        # Their values differ from one request to the next.
        if function["group"] != "Graph" and not function["name"].startswith("random")
    }
    different, answered = compare([ask(target.replace("'now'", "'23:59_20361231'"), headers={}) for target in sorted(targets)])
    assert different == {}
    assert answered > 100


def test_the_commands_of_the_page_let_grafana_in_and_post_an_event(
    documented, environment, http_get, playbook, monkeypatch, address, site_port
):
    tokens = {name: f"{name}-token-of-this-test" for name in ("grafana", "deployments")}
    variables = {**pages.variables(PAGE, "token"), "vault_grafana_token": tokens["grafana"]}
    variables["graphite_web_access_without_login"].append({"name": "deployments", "token": tokens["deployments"], "areas": ["events"]})
    try:
        documented(PAGE, "let-in", variables=variables)
        bearer = {"Authorization": f"Bearer {tokens['grafana']}"}
        assert [http_get("/events/get_data?from=-1h", headers)[0] for headers in ({}, PROXY, {**PROXY, **bearer})] == [401, 403, 200]
        monkeypatch.setitem(environment, "TOKEN", tokens["deployments"])
        site = f"http://{address()}:{site_port}/events/"
        documented(PAGE, "event", instead={"https://graphite.example.org/events/": f"--header 'Host: localhost' {site}"})
        events = json.loads(http_get("/events/get_data?tags=deployment&from=-1h", bearer)[2])
        assert "Release 1.2" in [event["what"] for event in events]
    finally:
        assert playbook("graphite_web.yml")[0] == 0
