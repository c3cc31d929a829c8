# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""TLS of the sites of Apache: the defaults of its options, and the rules for them. This file is private to the collection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.module_utils._host.apache import bare_name
from ansible_collections.metricstack.graphite.plugins.module_utils._host.tls import (
    DEFAULT_CIPHERS,
    DEFAULT_PORT,
    authority_of,
    certificate_files,
    is_text,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import connect_address, port_problem

ACME_DIRECTORY = "/var/www/html"
_PROTOCOLS = {"TLSv1.2": "-all +TLSv1.2 +TLSv1.3", "TLSv1.3": "-all +TLSv1.3"}
_PARTS = ("certificate", "key", "chain")
# What messages call the certificate of a site.
_VARIABLES = {"graphite": "graphite_web_tls"}
_KINDS = {"certificate": "BEGIN CERTIFICATE", "key": "PRIVATE KEY", "chain": "BEGIN CERTIFICATE"}
# What would end an argument of a directive, or make it two.
_SEPARATOR = re.compile(r"[\s\"'\\]")


def wants_tls(site: Mapping[str, Any]) -> bool:
    """Return whether a site of ``apache_wsgi_sites`` has a certificate."""
    return bool(site.get("tls")) and site.get("state") != "absent"


def complete_sites(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return sites with every key of ``tls`` and without the texts of certificates and keys."""
    return [{**site, "tls": _complete(site), "probes": _probes(site)} for site in sites]


def _complete(site: Mapping[str, Any]) -> dict[str, Any]:
    if not wants_tls(site):
        return {}
    tls = site["tls"]
    return {
        "port": int(tls.get("port") or DEFAULT_PORT),
        "redirect": redirects(tls),
        "only": is_alone(tls),
        "acme_directory": str(tls.get("acme_directory") or ACME_DIRECTORY).rstrip("/"),
        "hsts": int(tls.get("hsts") or 0),
        "protocols": _PROTOCOLS[str(tls.get("minimum_version") or "TLSv1.2")],
        "ciphers": str(tls.get("ciphers") or DEFAULT_CIPHERS),
        "self_signed": is_self_signed(tls),
        **{f"{part}_file": path for part, path in _files(site).items()},
        "authority": authority_of({**tls, "self_signed": is_self_signed(tls)}, site["name"]),
    }


def redirects(tls: Mapping[str, Any]) -> bool:
    """Return whether the plain port of a site only redirects."""
    value = tls.get("redirect")
    return True if value is None else boolean(value, strict=False)


def is_alone(tls: Mapping[str, Any]) -> bool:
    """Return whether the site has no port without TLS."""
    return boolean(tls.get("only") or False, strict=False)


def is_self_signed(tls: Mapping[str, Any]) -> bool:
    """Return whether the host makes the certificate by itself."""
    return boolean(tls.get("self_signed") or False, strict=False)


def _files(site: Mapping[str, Any]) -> dict[str, str]:
    return certificate_files({**site["tls"], "self_signed": is_self_signed(site["tls"])}, site["name"])


def _probes(site: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the module http_probe asks to see whether a site works."""
    if site.get("state") == "absent":
        return []
    address = connect_address(site.get("address") or "*")
    shown = f"[{address}]" if ":" in address else address
    name, path = str(site.get("server_name") or ""), str(site.get("readiness_path") or "/")
    found: list[dict[str, Any]] = [{"url": f"http://{shown}:{site.get('port') or 80}{path}", "host_header": name or "localhost"}]
    tls = _complete(site)
    if tls:
        certified = str(site["tls"].get("name") or "")
        url = f"https://{certified or bare_name(name)}:{tls['port']}{path}"
        found.append({"url": url, "connect_address": address, "certificate": tls["certificate_file"]})
        if certified:
            found[-1]["host_header"] = name or "localhost"
        if tls["authority"]:
            found[-1]["ca_path"] = tls["authority"]
    return found[1:] if tls and tls["only"] else found


def certificates_of(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the certificates of sites as the module tls_certificates takes them."""
    found = []
    for site in filter(wants_tls, sites):
        tls, complete = site["tls"], _complete(site)
        if not boolean(tls.get("examine", True), strict=False):
            continue
        wanted = {
            "name": site["name"],
            "variable": _VARIABLES.get(site["name"], f"apache_wsgi_sites: tls of site '{site['name']}'"),
            "server_name": str(tls.get("name") or "") or bare_name(str(site.get("server_name") or "")),
            "self_signed": complete["self_signed"],
            "ciphers": complete["ciphers"],
        }
        if complete["authority"]:
            wanted["authority"] = complete["authority"]
        for part in _PARTS:
            if tls.get(part) and not complete["self_signed"]:
                wanted[f"{part}_text" if is_text(tls[part]) else part] = str(tls[part])
        found.append(wanted)
    return found


def tls_problems(variable: str, tls: Mapping[str, Any], server_name: object, plain_port: object, name_variable: str) -> Iterator[str]:
    """Yield one message for each mistake in the options of TLS, of which the host need not know."""
    if not tls:
        return
    if not server_name:
        yield f"{variable} is set, but {name_variable} is not; set it to the name in the certificate, such as graphite.example.org."
    given = [part for part in _PARTS if tls.get(part)]
    if is_self_signed(tls):
        if given:
            yield f"{variable} has self_signed as well as {' and '.join(given)}; give one of the two."
    else:
        missing = [part for part in ("certificate", "key") if part not in given]
        if missing:
            yield (
                f"{variable} lacks {' and '.join(missing)}; give paths on the host, such as those of certbot,"
                " /etc/letsencrypt/live/NAME/fullchain.pem and privkey.pem, or the texts themselves, or self_signed: true."
            )
        yield from (problem for part in given for problem in _source_problems(f"{variable}: {part}", part, str(tls[part])))
    if tls.get("port") is not None:
        yield from filter(None, [port_problem(f"{variable}: port", tls["port"])])
    if str(tls.get("port") or DEFAULT_PORT) == str(plain_port) and not is_alone(tls):
        yield f"{variable}: port is {plain_port}, which is the port without TLS as well; give TLS another one, such as {DEFAULT_PORT}."
    for option in ("authority", "acme_directory"):
        if tls.get(option):
            yield from _path_problems(f"{variable}: {option}", str(tls[option]))
    if not re.match(r"\d+\Z", str(tls.get("hsts") or 0)):
        yield f"{variable}: hsts is {tls['hsts']}; give a number of seconds, such as 31536000 for a year, or 0 for none."
    if tls.get("minimum_version") and tls["minimum_version"] not in _PROTOCOLS:
        yield f"{variable}: minimum_version is {tls['minimum_version']}; give one of {', '.join(_PROTOCOLS)}."
    if tls.get("ciphers") and not re.match(r"[\w:+!@=.-]+\Z", str(tls["ciphers"])):
        yield f"{variable}: ciphers is '{tls['ciphers']}'; give names of OpenSSL with ':' between them, such as ECDHE+AESGCM."


def _source_problems(where: str, part: str, value: str) -> Iterator[str]:
    if not is_text(value):
        yield from _path_problems(where, value)
    elif _KINDS[part] not in value:
        # The text may be a key.
        yield f"{where} is a text without '{_KINDS[part]}'; give the {'key' if part == 'key' else 'certificate'} as PEM."


def _path_problems(where: str, path: str) -> Iterator[str]:
    if not path.startswith("/") or _SEPARATOR.search(path):
        shown = "no absolute path" if where.endswith(": key") else f"'{path}'"  # it may be a part of a key
        yield f"{where} is {shown}; give an absolute path on the host without white space and quotes."
