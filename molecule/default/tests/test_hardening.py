# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What Apache tells and takes, asked from outside of the host, and its sandbox, in which all of the site still works."""

from __future__ import annotations

import json
import re
import socket
from urllib.parse import urlencode

import pytest
from conftest import PASSWORD, UNITS

DROP_IN = "/etc/systemd/system/apache2.service.d/apache-wsgi.conf"
# Whether it is taken, and the lines of the request before those that all have.
REQUESTS = {
    "GET": (True, "GET /version/ HTTP/1.1"),
    "HEAD": (True, "HEAD /version/ HTTP/1.1"),
    "POST": (True, "POST /render HTTP/1.1\r\nContent-Length: 0"),
    "OPTIONS": (True, "OPTIONS /version/ HTTP/1.1"),
    "TRACE": (False, "TRACE / HTTP/1.1"),
    "PUT": (False, "PUT /version/ HTTP/1.1\r\nContent-Length: 0"),
    "DELETE": (False, "DELETE /events/1 HTTP/1.1"),
    "PATCH": (False, "PATCH /render HTTP/1.1\r\nContent-Length: 0"),
    "PROPFIND": (False, "PROPFIND / HTTP/1.1"),
    "CONNECT": (False, "CONNECT other.example:443 HTTP/1.1"),
    "unknown method": (False, "BREW /version/ HTTP/1.1"),
    "lower case": (False, "get /version/ HTTP/1.1"),
    "HTTP/0.9": (False, "GET /version/"),
    "two spaces": (False, "GET  /version/ HTTP/1.1"),
    "space before colon": (False, "GET /version/ HTTP/1.1\r\nX-A : b"),
    "folded header": (False, "GET /version/ HTTP/1.1\r\nX\x01: b"),
    "both lengths": (False, "POST /version/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4"),
    "encoded slash": (False, "GET /static/..%2f..%2fetc/passwd HTTP/1.1"),
    "parent": (False, "GET /static/../../../etc/passwd HTTP/1.1"),
    "not there": (False, "GET /static/none HTTP/1.1"),
    "list of a directory": (False, "GET /static/js/ HTTP/1.1"),
    "too long a line": (False, f"GET /version/?{'a' * 9000} HTTP/1.1"),
    "too many headers": (False, "GET /version/ HTTP/1.1\r\n" + "\r\n".join(f"X-{n}: a" for n in range(120))),
}


@pytest.fixture
def ask(address, site_port):
    """Send the lines of a request as they are; return the answer."""

    def send(lines):
        with socket.create_connection((address(), site_port), timeout=20) as connection:
            connection.sendall(f"{lines}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
            answer = b""
            while block := connection.recv(65536):
                answer += block
            return answer.decode("latin-1")

    return send


@pytest.fixture
def exposure(host):
    """Return the figure that systemd gives to Apache."""

    def figure():
        output = host.check_output("systemd-analyze security --no-pager apache2.service")
        return float(re.search(r"exposure level for \S+ ([0-9.]+)", output)[1])

    return figure


@pytest.mark.parametrize(("taken", "lines"), REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_is_taken_or_refused_and_tells_no_version(ask, taken, lines):
    answer = ask(lines)
    status = re.match(r"HTTP/1\.1 (\d+)", answer)
    assert not re.search(r"(?i)debian|ubuntu|apache/|mod_wsgi|python/|openssl/|at localhost port", answer), answer
    assert status or not taken
    if status:
        assert (int(status[1]) < 400) == taken, answer
        assert re.search(r"(?mi)^Server: Apache\r$", answer), answer
        # A request that cannot be read belongs to no site.
        assert int(status[1]) in (400, 431, 414, 501, 505) or re.search(r"(?mi)^X-Content-Type-Options: nosniff\r$", answer), answer
    assert "root:" not in answer


def test_a_method_that_graphite_web_does_not_have_never_reaches_it(ask):
    assert all(ask(f"{method} /version/ HTTP/1.1").startswith("HTTP/1.1 405 ") for method in ("PUT", "DELETE", "TRACE", "PROPFIND"))


def test_modules_that_the_site_does_not_need_are_not_enabled(host):
    """Beside what the packages enable themselves."""
    by_hand = re.findall(r"(?m)^(\S+) \(enabled by (?:unknown|site administrator)\)$", host.run("a2query -m").stdout)
    assert by_hand == ["headers"]


def test_apache_listens_where_a_site_answers_and_nowhere_else(host, playbook):
    status, output = playbook("graphite_web.yml", {"graphite_web_port": 8088})
    assert status == 0, output[-3000:]
    ports = set(re.findall(r":(\d+) .*\"apache2\"", host.run("ss -Hltnp").stdout))
    assert ports == {"8088"}
    status, output = playbook("graphite_web.yml", {"graphite_web_port": 8088})
    assert "changed=0 " in output.partition("PLAY RECAP")[2], output
    status, output = playbook("graphite_web.yml")
    assert status == 0, output[-3000:]
    assert set(re.findall(r":(\d+) .*\"apache2\"", host.run("ss -Hltnp").stdout)) == {"80"}
    assert host.run("grep -c '^Listen 80$' /etc/apache2/ports.conf").stdout.strip() == "1"


def test_an_apache_that_serves_something_else_gets_no_sandbox(host, playbook):
    host.run("printf '<VirtualHost *:80>\\nServerName shop.example\\n</VirtualHost>\\n' > /etc/apache2/sites-enabled/shop.conf")
    try:
        status, output = playbook("site.yml", {"apache_wsgi_sandbox": True})
        assert status != 0
        assert "Apache also reads sites-enabled/shop.conf" in output
        assert "changed=0 " in output.partition("PLAY RECAP")[2], output
        assert not host.file(DROP_IN).exists
    finally:
        host.run("rm /etc/apache2/sites-enabled/shop.conf")


def test_the_site_works_in_the_sandbox(host, playbook, http_get, login, exposure, tmp_path, wait_until):
    host.run("truncate --size 0 /var/log/apache2/*.log")
    status, output = playbook("site.yml", {"apache_wsgi_sandbox": True})
    assert status == 0, output[-3000:]
    assert exposure() <= 3.0
    # It can make its directories after a boot.
    assert host.run("systemctl stop apache2 && rm -rf /run/apache2 /run/lock/apache2 && systemctl start apache2").rc == 0
    wait_until(lambda: http_get("/version/")[0] == 200)
    status, _headers, picture = http_get("/render?target=carbon.agents.*.*&format=png&noCache=1&title=%E8%BF%90&fontName=sans")
    assert (status, picture[:4]) == (200, b"\x89PNG")
    for kind in ("svg", "pdf"):
        assert http_get(f"/render?target=carbon.agents.*.*&format={kind}&noCache=1")[0] == 200
    cookie = login("admin", PASSWORD)
    assert "sessionid=" in cookie
    event = json.dumps({"what": "in the sandbox", "tags": [], "data": ""}).encode()
    assert http_get("/events/", {"Cookie": cookie}, event)[0] == 200
    state = urlencode({"state": json.dumps({"name": "sandbox", "graphs": [], "defaultGraphParams": {}})}).encode()
    assert json.loads(http_get("/dashboard/save/sandbox", {"Cookie": cookie}, state)[2]) == {"success": True}
    assert host.run("systemctl reload apache2").rc == 0
    status, output = playbook("verify.yml", {"apache_wsgi_sandbox": True, "verify_artifacts_directory": str(tmp_path)})
    assert status == 0, output[-3000:]
    status, output = playbook("site.yml", {"apache_wsgi_sandbox": True})
    assert "changed=0 " in output.partition("PLAY RECAP")[2], output[-3000:]
    denied = host.run("grep -riE 'permission denied|operation not permitted|read-only file' /var/log/apache2 /var/log/graphite").stdout
    assert denied == ""


def test_without_the_variable_the_sandbox_is_gone(host, playbook, exposure):
    status, output = playbook("site.yml")
    assert status == 0, output[-3000:]
    assert not host.file(DROP_IN).exists
    own = host.check_output("systemctl show --property MemoryDenyWriteExecute --value apache2.service")
    assert exposure() > {"no": 8, "yes": 4}[own]  # where the package has a sandbox of its own
    assert all(host.service(unit).is_running for unit in UNITS)
