# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role graphite_web. This file is private to the collection."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import zoneinfo
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.accounts import hash_problem
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import dashboard_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import (
    address_problem,
    connect_address,
    count_problem,
    earlier_installation_problem,
    everybody_problem,
    host_name_problem,
    network_problems,
    port_problem,
    url_prefix_problem,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_web_auth import auth_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import tls_problems

_SQLITE = "django.db.backends.sqlite3"
_GROUPS = ("everybody", "users", "staff", "superusers", "nobody")
_SHORTEST_TOKEN = 20
# In MiB; an idle process has 60.
_LEAST_MEMORY = 256
# The last part of a name is not all digits.
_NAME_OF_HOST = re.compile(r"(?!(.*\.)?\d+\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*\Z")
# Setting by setting, the variable that owns it.
_OWNED_SETTINGS = {
    "ACCESS": "graphite_web_access",
    "ACCESS_WITHOUT_LOGIN": "graphite_web_access_without_login",
    "ALLOWED_HOSTS": "graphite_web_allowed_hosts",
    "CARBONLINK_HOSTS": "graphite_web_carbonlink_hosts",
    "DATABASES": "graphite_web_database",
    "DIRECTORY": "graphite_web_auth",
    "LIMITS": "graphite_web_limits",
    "OPENID_CONNECT": "graphite_web_auth",
    "REMOTE_USER_VARIABLE": "graphite_web_auth",
    "SECRET_KEY": "graphite_web_secret_key",
    "TIME_ZONE": "graphite_web_time_zone",
    "URL_PREFIX": "graphite_web_url_prefix",
    "WHISPER_DIR": "graphite_web_whisper_directory",
}


def graphite_web_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``graphite_web_``.

    Without a ``secret_key``, the host makes its own.
    """
    database_problems = _database_problems(variables["database"], variables["install_method"])
    if variables.get("state") == "absent":
        return database_problems
    problems: list[str | None] = [port_problem("graphite_web_port", variables["port"])]
    if variables.get("server_name"):
        problems.append(host_name_problem("graphite_web_server_name", variables["server_name"]))
    problems += tls_problems(
        "graphite_web_tls", variables.get("tls") or {}, variables.get("server_name"), variables["port"], "graphite_web_server_name"
    )
    problems.append(url_prefix_problem("graphite_web_url_prefix", variables.get("url_prefix")))
    problems += network_problems("graphite_web_trusted_proxies", variables.get("trusted_proxies") or [])
    problems.append(everybody_problem("graphite_web_trusted_proxies", variables.get("trusted_proxies") or []))
    problems += [
        f"graphite_web_allowed_hosts has '{name}'; give each name or address as an element of its own, without white space."
        for name in variables.get("allowed_hosts") or []
        if re.search(r"\s", str(name))
    ]
    problem = variables.get("adopt") and earlier_installation_problem("graphite_web_adopt", variables["adopt"])
    if problem:
        problems.append(f"{problem}.")
    problems += [count_problem(f"graphite_web_{name}", variables[name]) for name in ("processes", "threads", "request_timeout")]
    if not str(variables.get("secret_key", "made on the host") or "").strip():
        problems.append("graphite_web_secret_key is empty; leave it out to have one made on the host, or give a long random text.")
    problems += _store_problems(variables)
    problems.append(_time_zone_problem(variables["time_zone"]))
    problems += _memcached_problems(variables.get("memcached_hosts") or [])
    if not re.match(r"\d+\Z", str(variables["cache_duration"])):
        problems.append(f"graphite_web_cache_duration is {variables['cache_duration']}; give a number of seconds, or 0 to keep no answers.")
    problems += database_problems
    problems += [
        f"graphite_web_settings has {name}, which is no name of a setting; settings are upper-case."
        for name in variables["settings"]
        if not _SETTING.match(str(name))
    ]
    problems += [
        f"graphite_web_settings has {name}; set {variable} instead, which other parts of the role read, too."
        for name, variable in _OWNED_SETTINGS.items()
        if name in variables["settings"]
    ]
    problems += _access_problems(variables.get("access") or {})
    problems += _guest_problems(variables.get("access_without_login") or [])
    problems += _limit_problems(variables.get("limits") or {})
    problems += auth_problems(variables)
    problems += _user_problems(variables["users"])
    problems += dashboard_problems("graphite_web_dashboards", variables.get("dashboards") or [])
    return [problem for problem in problems if problem]


def _store_problems(variables: dict) -> Iterator[str]:
    address = str(variables["store_address"])
    if address and (address_problem("", address) or connect_address(address) != address):
        yield f"graphite_web_store_address is '{address}'; give one IP address of the host, such as 192.0.2.10."
    yield from filter(None, [port_problem("graphite_web_store_port", variables["store_port"])])
    yield from network_problems("graphite_web_store_allowed_networks", variables.get("store_allowed_networks") or [])
    for server in variables["cluster_servers"]:
        if not re.match(r"(https?://)?([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d+(/\S*)?(\?\S+)?\Z", str(server)):
            yield (
                f"graphite_web_cluster_servers has '{server}'; write each as ADDRESS:PORT, such as 192.0.2.11:8081, or over TLS as"
                " https://ADDRESS:PORT."
            )
    authority = (variables.get("cluster_tls") or {}).get("authority", "")
    if variables.get("cluster_tls") and not re.match(r"/[^\s\"'\\]+\Z", str(authority)):
        yield f"graphite_web_cluster_tls: authority is '{authority}'; give an absolute path on the host without white space and quotes."


def _access_problems(access: dict) -> Iterator[str]:
    for area, wanted in access.items():
        if not isinstance(wanted, list) and wanted not in _GROUPS:
            yield f"graphite_web_access: {area} is '{wanted}'; give {', '.join(_GROUPS)}, or a list of names of users."
        elif area == "admin" and wanted == "everybody":
            yield "graphite_web_access: admin is 'everybody'; Django lets nobody but staff in. Give staff, superusers, nobody, or names."


def _guest_problems(guests: list[dict]) -> Iterator[str]:
    names, tokens = [guest["name"] for guest in guests], [str(guest["token"]) for guest in guests if guest.get("token")]
    for position, guest in enumerate(guests):
        where = f"graphite_web_access_without_login: '{guest['name']}'"
        if guest["name"] in names[:position]:
            yield f"{where} is there twice; keep one of the two."
        if bool(guest.get("networks")) == bool(guest.get("token")):
            yield f"{where} needs either networks or a token."
        elif guest.get("token") and guest.get("forwards"):
            yield f"{where} has forwards, which is about networks; leave it out beside a token."
        for network in guest.get("networks") or []:
            if _NAME_OF_HOST.match(str(network)):
                continue
            try:
                ipaddress.ip_network(str(network))
            except ValueError as error:
                yield f"{where} has the network '{network}' ({error}); give one such as 192.0.2.7, 192.0.2.0/24 or grafana.example.org."
        token = str(guest.get("token") or "")
        if token and not (len(token) >= _SHORTEST_TOKEN and re.match(r"[!-~]+\Z", token)):
            yield f"{where} has a token that is too short, or has white space in it; give {_SHORTEST_TOKEN} characters or more, all ASCII."
        if token and tokens.count(token) > 1:
            yield f"{where} has the token of another one; give each its own."


def _limit_problems(limits: dict) -> Iterator[str]:
    for name, value in limits.items():
        problem = count_problem(f"graphite_web_limits: {name}", value)
        if not problem and name == "memory" and int(value) < _LEAST_MEMORY:
            problem = f"graphite_web_limits: memory is {value} MiB, in which graphite-web does not run; give {_LEAST_MEMORY} or more."
        if problem:
            yield problem


def _time_zone_problem(name: str) -> str | None:
    known = zoneinfo.available_timezones()
    # A controller without time zone data cannot validate; Django on the host does.
    if known and name not in known:
        return f"graphite_web_time_zone is '{name}', which is no time zone; give one such as Asia/Shanghai or UTC."
    return None


def _memcached_problems(servers: list) -> list[str]:
    problems = []
    for position, server in enumerate(servers):
        name, _colon, port = str(server).rpartition(":")
        if not re.match(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])\Z", name) or port_problem("", port):
            problems.append(f"graphite_web_memcached_hosts has '{server}'; give an address and a port, such as 10.0.0.5:11211.")
        if server in servers[:position]:
            problems.append(f"graphite_web_memcached_hosts has '{server}' twice; keep one of the two.")
    return problems


def _database_problems(database: dict, install_method: str) -> list[str]:
    engine = database.get("engine") or _SQLITE
    if install_method == "venv" and "mysql" in engine:
        return [f"graphite_web_database: engine '{engine}' needs a driver that graphite_web_install_method venv lacks; use package."]
    if not re.match(r"[A-Za-z_][\w.]*\.[\w.]+\Z", engine):
        return [f"graphite_web_database: engine '{engine}' is no Django backend; give one such as {_SQLITE}."]
    if engine == _SQLITE and not str(database.get("name", "/")).startswith("/"):
        return [f"graphite_web_database: name '{database['name']}' must be the absolute path of a file for {_SQLITE}."]
    if engine != _SQLITE and not database.get("name"):
        return [f"graphite_web_database: name is missing; {engine} needs the name of the database."]
    return []


def _user_problems(users: list[dict]) -> list[str]:
    problems = []
    names = [user["name"] for user in users]
    for position, user in enumerate(users):
        given = [key for key in ("password", "password_hash") if user.get(key)]
        if (user.get("state") or "present") == "present" and not given:
            problems.append(f"graphite_web_users: user '{user['name']}' has no password; give one, or password_hash, or state: absent.")
        if len(given) > 1:
            problems.append(f"graphite_web_users: user '{user['name']}' has password and password_hash; give one of the two.")
        wrong = hash_problem(str(user["password_hash"])) if user.get("password_hash") else None
        if wrong:
            problems.append(f"graphite_web_users: the password_hash of user '{user['name']}' {wrong}.")
        if not re.match(r"[\w.@+-]{1,150}\Z", str(user["name"])):
            problems.append(f"graphite_web_users: '{user['name']}' is no user name for Django; use letters, digits and @ . + - _ only.")
        if user["name"] in names[:position]:
            problems.append(f"graphite_web_users has '{user['name']}' twice; keep one of the two.")
    return problems
