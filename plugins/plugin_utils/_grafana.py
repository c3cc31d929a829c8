# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What Grafana has to know of graphite-web: the data source, and dashboards. This file is private to the collection.

Source of the formats: Grafana 13.2, ``public/app/plugins/datasource/graphite`` and ``packages/grafana-schema``. A data source has the same
keys in Grafana's API and in its files for provisioning.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import meaning, wanted_state
from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import is_self_signed

# The newest that Grafana knows, and the oldest with tags and /functions; this collection installs graphite-web 1.1.8 to 1.2.1.
_GRAPHITE_VERSION = "1.1"
# That of Grafana 9.0; later ones bring it up to date when they load it.
_SCHEMA_VERSION = 36
_PANEL_WIDTH, _PANEL_HEIGHT, _GRID_WIDTH = 12, 8, 24
# A variable of each dashboard, with which its reader chooses a data source. Unlike an input, it needs nobody who imports the dashboard.
_VARIABLE = "DS_GRAPHITE"
_DATA_SOURCE = {"type": "graphite", "uid": f"${{{_VARIABLE}}}"}
_BLUE = "rgba(0, 211, 255, 1)"
# How units of the render API begin, and what Grafana calls them. Longer beginnings come first.
_UNITS = (("mon", "M"), ("min", "m"), ("s", "s"), ("h", "h"), ("d", "d"), ("w", "w"), ("y", "y"))
_REFRESH_UNITS = ((3600, "h"), (60, "m"), (1, "s"))


class GrafanaError(ValueError):
    """What is described is not enough for Grafana; the message says what to do."""


def data_source(web: Mapping[str, Any], variables: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return graphite-web as a data source of Grafana.

    ``web`` is that of the topology, ``variables`` are the role's without the prefix ``graphite_web_``, and ``options`` are those of the
    filter. Raises ``GrafanaError``.
    """
    found: dict[str, Any] = {
        "name": options["name"],
        "uid": options["uid"],
        "type": "graphite",
        "access": "proxy",
        "url": web["public_url"],
        "jsonData": {"graphiteVersion": _GRAPHITE_VERSION, "graphiteType": "default"},
        "secureJsonData": {},
    }
    _add_authority(found, variables.get("tls") or {}, options["ca_certificate"])
    _add_login(found, variables, options["login"])
    return _literal(found) if options["provisioning"] else found


def _literal(value: Any) -> Any:
    """Return a value for a file in which Grafana takes what follows a dollar for the name of a variable."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return value.replace("$", "$$") if isinstance(value, str) else value


def _add_authority(found: dict[str, Any], tls: Mapping[str, Any], certificate: str) -> None:
    if certificate:
        found["jsonData"]["tlsAuthWithCACert"] = True
        found["secureJsonData"]["tlsCACert"] = certificate
    elif found["url"].startswith("https:") and is_self_signed(tls):
        raise GrafanaError(
            "graphite_web_tls has self_signed, and Grafana does not know that certificate; give its text as ca_certificate, or give"
            " graphite_web_tls a certificate that Grafana's host trusts."
        )


def _add_login(found: dict[str, Any], variables: Mapping[str, Any], login: str) -> None:
    guests = {str(guest["name"]): guest for guest in variables.get("access_without_login") or []}
    users = {str(user["name"]): user for user in variables.get("users") or []}
    if not login:
        if (variables.get("access") or {}).get("read", "everybody") != "everybody":
            raise GrafanaError(
                "graphite_web_access does not let everybody read; give the name of an element of graphite_web_access_without_login or of"
                " graphite_web_users as login."
            )
    elif login in guests:
        _add_guest(found, guests[login])
    elif login in users:
        password = users[login].get("password")
        if not password:
            raise GrafanaError(f"user '{login}' of graphite_web_users has no password here, which Grafana has to send; give another login.")
        found.update(basicAuth=True, basicAuthUser=login)
        found["secureJsonData"]["basicAuthPassword"] = str(password)
    else:
        raise GrafanaError(
            f"login is '{login}', which is neither in graphite_web_access_without_login nor in graphite_web_users; give one of"
            f" {', '.join([*guests, *users]) or 'these a name first'}."
        )


def _add_guest(found: dict[str, Any], guest: Mapping[str, Any]) -> None:
    where = f"graphite_web_access_without_login: '{guest['name']}'"
    if "read" not in guest["areas"]:
        raise GrafanaError(f"{where} may not read; add read to its areas.")
    if guest.get("token"):
        found["jsonData"]["httpHeaderName1"] = "Authorization"
        found["secureJsonData"]["httpHeaderValue1"] = f"Bearer {guest['token']}"
    elif not boolean(guest.get("forwards") or False, strict=False):
        raise GrafanaError(
            f"{where} has networks without forwards, and Grafana passes on what browsers ask; give it a token or forwards: true."
        )


def dashboard(described: Mapping[str, Any], event_tags: Iterable[str]) -> dict[str, Any]:
    """Return an element of ``graphite_web_dashboards`` as Grafana stores a dashboard. Raises ``DashboardError``."""
    shown = meaning(wanted_state(dict(described)))
    return {
        "uid": _uid(shown["name"]),
        "title": shown["name"],
        "tags": ["graphite"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": _SCHEMA_VERSION,
        "time": {"from": _time(shown["from"], "now-2h"), "to": _time(shown["until"], "now")},
        "refresh": _refresh(shown["refresh"]),
        "templating": {"list": [{"type": "datasource", "name": _VARIABLE, "label": "Graphite", "query": "graphite", "refresh": 1}]},
        "annotations": {"list": [_events(event_tags)]},
        "panels": [_panel(number, graph) for number, graph in enumerate(shown["graphs"])],
    }


def _uid(name: str) -> str:
    """Return what the address of a dashboard holds. Names may be in any script, and differ in what is left out."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:20]
    return "-".join(filter(None, ["graphite", plain.strip("-"), hashlib.sha256(name.encode()).hexdigest()[:8]]))


def _time(text: str, otherwise: str) -> str:
    found = re.match(r"-(\d+)([a-z]+)\Z", text)
    unit = next((unit for beginning, unit in _UNITS if found and found[2].startswith(beginning)), None)
    return f"now-{found[1]}{unit}" if found and unit else otherwise


def _refresh(seconds: int) -> str:
    return next((f"{seconds // length}{unit}" for length, unit in _REFRESH_UNITS if seconds and seconds % length == 0), "")


def _events(tags: Iterable[str]) -> dict[str, Any]:
    return {
        "name": "Events",
        "datasource": _DATA_SOURCE,
        "enable": True,
        "iconColor": _BLUE,
        "target": {"refId": "Events", "fromAnnotations": True, "queryType": "tags", "tags": [str(tag) for tag in tags]},
    }


def _panel(number: int, graph: Mapping[str, Any]) -> dict[str, Any]:
    options = graph["options"]
    defaults: dict[str, Any] = {
        "unit": "bytes" if options.get("yUnitSystem") == "binary" else "sishort",
        "custom": {"axisLabel": options.get("vtitle", ""), "lineWidth": 1, "fillOpacity": 0},
    }
    for name, bound in (("min", options.get("yMin")), ("max", options.get("yMax"))):
        if bound is not None and re.match(r"-?\d+(\.\d+)?\Z", bound):
            defaults[name] = float(bound)
    row, column = divmod(number, _GRID_WIDTH // _PANEL_WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": graph.get("title", ""),
        "datasource": _DATA_SOURCE,
        "gridPos": {"x": column * _PANEL_WIDTH, "y": row * _PANEL_HEIGHT, "w": _PANEL_WIDTH, "h": _PANEL_HEIGHT},
        "targets": [
            {"refId": _reference(position), "datasource": _DATA_SOURCE, "target": target, "textEditor": True}
            for position, target in enumerate(graph["targets"])
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"showLegend": options.get("hideLegend") != "true", "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
    }


def _reference(position: int) -> str:
    """Return how other targets name this one: A to Z, then A1 to Z1."""
    rounds, letter = divmod(position, 26)
    return chr(ord("A") + letter) + (str(rounds) if rounds else "")
