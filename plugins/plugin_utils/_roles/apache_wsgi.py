# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role apache_wsgi. This file is private to the collection."""

from __future__ import annotations

import re

from ansible_collections.metricstack.graphite.plugins.module_utils._host.apache import listeners_have_tls, site_listeners
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import (
    address_problem,
    count_problem,
    everybody_problem,
    network_problems,
    port_problem,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import tls_problems

_SITE_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_HEALTH_PATH = re.compile(r"(/[A-Za-z0-9_-]+)+\Z")
_SERVER_NAME = re.compile(r"[\w.-]+(:\d+)?\Z")
_METHOD = re.compile(r"[A-Z]+\Z")
# What would end an argument of a directive, or make it two.
_SEPARATOR = re.compile(r"[\s\"'\\]")


def apache_wsgi_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``apache_wsgi_``."""
    problems: list[str | None] = []
    names: set[str] = set()
    addresses: dict[tuple, str] = {}
    # By port, whether it has TLS, and the first site that says so.
    ports: dict[str, tuple[bool, str]] = {}
    health_paths: dict[str, str] = {}
    for site in variables["sites"]:
        where = f"apache_wsgi_sites: site '{site['name']}'"
        if not _SITE_NAME.match(str(site["name"])):
            problems.append(f"{where} has a name that cannot name a file; use letters, digits, '_' and '-'.")
        if site["name"] in names:
            problems.append(f"{where} is there twice; give each site a name of its own.")
        names.add(site["name"])
        if "absent" in (site.get("state"), variables.get("state")):
            continue
        problems.append(port_problem(f"{where}: port", site.get("port", 80)))
        for option in ("processes", "threads", "request_timeout", "graceful_timeout", "maximum_requests"):
            if option in site:
                problems.append(count_problem(f"{where}: {option}", site[option]))
        problems += [f"{where} lacks {key}." for key in ("wsgi_script", "user", "group") if not site.get(key)]
        if site.get("address"):
            problems.append(address_problem(f"{where}: address", site["address"]))
        problems += _name_problems(where, site)
        problems += _path_problems(where, site)
        problems += [
            f"{where}: methods has '{method}'; write methods as HTTP spells them, such as GET and POST."
            for method in site.get("methods") or []
            if not _METHOD.match(str(method))
        ]
        problems += network_problems(f"{where}: trusted_proxies", site.get("trusted_proxies") or [])
        problems.append(everybody_problem(f"{where}: trusted_proxies", site.get("trusted_proxies") or []))
        health_path = str(site.get("health_path") or "")
        if health_path and not _HEALTH_PATH.match(health_path):
            problems.append(
                f"{where}: health_path is '{health_path}'; give a path of letters, digits, '_', '-' and '/', such as /wiki-health."
            )
        if health_path and health_paths.setdefault(health_path, site["name"]) != site["name"]:
            problems.append(f"{where}: health_path is that of site '{health_paths[health_path]}' as well; give each site its own.")
        plain = site.get("port", 80)
        problems += tls_problems(
            f"{where}: tls",
            site.get("tls") or {},
            site.get("server_name") or (site.get("tls") or {}).get("name"),
            plain,
            f"server_name of site '{site['name']}'",
        )
        for (address, port), has_tls in zip(site_listeners(site), listeners_have_tls(site)):
            place = (address, port, site.get("server_name") or "")
            if place in addresses and addresses[place] != site["name"]:
                problems.append(f"{where} answers at the same address, port and server_name as '{addresses[place]}'; give it another one.")
            addresses[place] = site["name"]
            other, name = ports.setdefault(port, (has_tls, site["name"]))
            if other != has_tls and name != site["name"]:
                problems.append(
                    f"{where} has port {port} {'with' if has_tls else 'without'} TLS, and site '{name}' has it"
                    f" {'with' if other else 'without'}; give one of them another port."
                )
    return [problem for problem in problems if problem]


def _name_problems(where: str, site: dict) -> list[str]:
    problems = []
    server_name = site.get("server_name")
    if server_name and not _SERVER_NAME.match(str(server_name)):
        problems.append(
            f"{where}: server_name is '{server_name}'; give one host name, such as wiki.example.org, and others as server_aliases."
        )
    problems += [
        f"{where}: server_aliases has '{alias}'; give each host name as an element of its own, without white space and quotes."
        for alias in site.get("server_aliases") or []
        if not alias or _SEPARATOR.search(str(alias))
    ]
    return problems


def _path_problems(where: str, site: dict) -> list[str]:
    paths = {key: site[key] for key in ("wsgi_script", "python_path", "python_home", "home") if site.get(key)}
    paths.update({f"{key}[{n}]": path for key in ("readable", "writable") for n, path in enumerate(site.get(key) or [])})
    paths.update({f"path of alias {alias['url']}": alias["path"] for alias in site.get("aliases") or []})
    return [
        f"{where}: {key} is '{path}'; give an absolute path without white space and quotes, such as /srv/wiki/wiki.wsgi."
        for key, path in paths.items()
        if not str(path).startswith("/") or _SEPARATOR.search(str(path))
    ]
