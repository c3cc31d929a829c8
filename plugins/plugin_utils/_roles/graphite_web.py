# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the roles graphite_web and apache_wsgi. This file is private to the collection."""

from __future__ import annotations

import re

import zoneinfo
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import dashboard_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import address_problem, port_problem

_SQLITE = "django.db.backends.sqlite3"
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*\Z")
# Setting by setting, the variable that owns it.
_OWNED_SETTINGS = {
    "ALLOWED_HOSTS": "graphite_web_allowed_hosts",
    "CARBONLINK_HOSTS": "graphite_web_carbonlink_hosts",
    "DATABASES": "graphite_web_database",
    "SECRET_KEY": "graphite_web_secret_key",
    "TIME_ZONE": "graphite_web_time_zone",
    "WHISPER_DIR": "graphite_web_whisper_directory",
}
_SITE_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")


def graphite_web_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``graphite_web_``.

    ``secret_key`` is any text where the host makes its own.
    """
    problems = [port_problem("graphite_web_port", variables["port"])]
    problems += [_count_problem(f"graphite_web_{name}", variables[name]) for name in ("processes", "threads", "request_timeout")]
    if not str(variables["secret_key"] or "").strip():
        problems.append("graphite_web_secret_key is empty; leave it out to have one made on the host, or give a long random text.")
    problems.append(_time_zone_problem(variables["time_zone"]))
    problems += _database_problems(variables["database"], variables["install_method"])
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
    problems += _user_problems(variables["users"])
    problems += dashboard_problems("graphite_web_dashboards", variables.get("dashboards") or [])
    return [problem for problem in problems if problem]


def apache_wsgi_problems(sites: list[dict]) -> list[str]:
    """Return one sentence for each mistake in the descriptions of sites."""
    problems: list[str | None] = []
    names: set[str] = set()
    addresses: dict[tuple, str] = {}
    for site in sites:
        where = f"apache_wsgi_sites: site '{site['name']}'"
        if not _SITE_NAME.match(str(site["name"])):
            problems.append(f"{where} has a name that cannot name a file; use letters, digits, '_' and '-'.")
        if site["name"] in names:
            problems.append(f"{where} is there twice; give each site a name of its own.")
        names.add(site["name"])
        if site.get("state", "present") == "absent":
            continue
        problems.append(port_problem(f"{where}: port", site.get("port", 80)))
        for option in ("processes", "threads", "request_timeout", "graceful_timeout", "maximum_requests"):
            if option in site:
                problems.append(_count_problem(f"{where}: {option}", site[option]))
        problems += [f"{where} lacks {key}." for key in ("wsgi_script", "user", "group") if not site.get(key)]
        if site.get("address"):
            problems.append(address_problem(f"{where}: address", site["address"]))
        address = (_address(site), _port(site), site.get("server_name") or "")
        if address in addresses:
            problems.append(f"{where} answers at the same address, port and server_name as '{addresses[address]}'; give it another one.")
        addresses[address] = site["name"]
    return [problem for problem in problems if problem]


def apache_wsgi_listen(sites: list[dict], elsewhere: list[str]) -> dict[str, list[str]]:
    """Return the arguments of the ``Listen`` directives that each site has to bring, by the site's name.

    ``elsewhere`` are those of the rest of Apache's configuration. Apache ends when it is told one twice.
    """
    told = {_listener(*_split_listener(argument)) for argument in elsewhere}
    wide = {_port(site) for site in sites if _address(site) == "*"}
    result: dict[str, list[str]] = {}
    for site in sites:
        listener = _listener("*" if _port(site) in wide else _address(site), _port(site))
        needed = listener not in told and _listener("*", _port(site)) not in told
        result[site["name"]] = [listener] if needed else []
        told.add(listener)
    return result


def apache_wsgi_port_problems(sites: list[dict], elsewhere: list[str], listeners: list[list[str]]) -> list[str]:
    """Return one sentence for each port that Apache could not listen on.

    ``listeners`` are the sockets of the host as pairs of ``address:port`` and the control group that opened it.
    """
    problems = []
    for site in sites:
        where = f"apache_wsgi_sites: site '{site['name']}'"
        for local, group in listeners:
            owner = group.rpartition("/")[2]
            if local.rpartition(":")[2] == _port(site) and owner != "apache2.service":
                problems.append(f"{where} has port {_port(site)}, which {owner} listens on ({local}); give it another one.")
        narrow = [address for address, port in map(_split_listener, elsewhere) if port == _port(site) and address != "*"]
        if narrow and _address(site) == "*":
            problems.append(
                f"{where} answers on all addresses of port {_port(site)}, but Apache is told elsewhere to listen on {narrow[0]} only;"
                " give the site that address."
            )
    return problems


def shared_port_problems(uses: dict[str, list]) -> list[str]:
    """Return one sentence for each TCP port that stands under more than one variable; ``uses`` are ports by variable."""
    variables: dict[str, list[str]] = {}
    for variable, ports in uses.items():
        for port in {str(port) for port in ports}:
            variables.setdefault(port, []).append(variable)
    return [
        f"{' and '.join(names)} use TCP port {port} on the same host; change one of them."
        for port, names in variables.items()
        if len(names) > 1
    ]


def _address(site: dict) -> str:
    return site.get("address") or "*"


def _port(site: dict) -> str:
    return str(site.get("port") or 80)


def _split_listener(argument: str) -> tuple[str, str]:
    address, _, port = argument.rpartition(":")
    return address.strip("[]") if address not in ("", "0.0.0.0", "[::]") else "*", port


def _listener(address: str, port: str) -> str:
    if address == "*":
        return port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _count_problem(name: str, value: object) -> str | None:
    if isinstance(value, bool) or not re.match(r"[1-9]\d*\Z", str(value)):
        return f"{name} is {value}; give a number of at least 1."
    return None


def _time_zone_problem(name: str) -> str | None:
    known = zoneinfo.available_timezones()
    # A controller without time zone data cannot judge; Django on the host does.
    if known and name not in known:
        return f"graphite_web_time_zone is '{name}', which is no time zone; give one such as Asia/Shanghai or UTC."
    return None


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
        if user.get("state", "present") == "present" and not user.get("password"):
            problems.append(f"graphite_web_users: user '{user['name']}' has no password; give one, or state: absent.")
        if not re.match(r"[\w.@+-]{1,150}\Z", str(user["name"])):
            problems.append(f"graphite_web_users: '{user['name']}' is no user name for Django; use letters, digits and @ . + - _ only.")
        if user["name"] in names[:position]:
            problems.append(f"graphite_web_users has '{user['name']}' twice; keep one of the two.")
    return problems
