# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""carbon.conf and the variables of the role carbon_cache.

Source of the format: ``carbon/conf.py`` of carbon 1.1.10 (Python's ``ConfigParser`` with interpolation). This file is
private to the collection.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from pathlib import Path

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon import retention
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import RetentionError, parse_duration
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import (
    aggregation_problems,
    expected_series_problems,
    schema_problems,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import header, library, prune, tree
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import (
    address_problem,
    directory_problem,
    plain_path_problem,
    port_problem,
)

# carbon_cache_instances and carbon_cache_bind_address own these; a second source would contradict them in silence.
OWNED_SETTINGS = (
    "LINE_RECEIVER_INTERFACE",
    "LINE_RECEIVER_PORT",
    "CACHE_QUERY_INTERFACE",
    "CACHE_QUERY_PORT",
    "LOCAL_DATA_DIR",
    "PICKLE_RECEIVER_INTERFACE",
    "PROTOBUF_RECEIVER_INTERFACE",
    "UDP_RECEIVER_INTERFACE",
)

# Of a, b, ..., aa, ...: names whose 100 places each on the ring of fnv1a_ch are all different, as tests/unit/test_carbon_instances.py
# computes. Where two instances share a place, carbon and graphite-web move one of them, and carbon-c-relay does not.
_NAMES = "a b c d f i w ae ah ai am ao ar bd bl bq bt b6 cb ct c7 dh fa hd hi ir i0 o9 rq tq y2 abc"
INSTANCE_NAMES = tuple(_NAMES.split(" "))
_INSTANCE_PORTS = ("line_receiver_port", "cache_query_port")
# Behind a relay, which has the port of carbon.
FIRST_LINE_PORT, FIRST_LINE_PORT_BEHIND_RELAY, FIRST_QUERY_PORT, PORT_STEP = 2003, 2103, 7002, 100

_DATA_DIRECTORY = "/var/lib/graphite"
TCP_RECEIVERS = ("PICKLE_RECEIVER_PORT", "PROTOBUF_RECEIVER_PORT")


def config_value(value: object) -> str:
    """Return ``value`` as the text that carbon reads back as the same value."""
    return str(value).replace("%", "%%")


def carbon_instances(instances: object, processors: int, is_behind_relay: bool = False) -> list[dict]:
    """Return the carbon-cache instances of a host as a list, from a valid value of ``carbon_cache_instances``.

    ``processors`` is their number where the value is ``auto``. A list is returned as it is.
    """
    if isinstance(instances, (list, tuple)):
        return list(instances)
    number = min(processors, len(INSTANCE_NAMES)) if instances == "auto" else int(str(instances))
    first = FIRST_LINE_PORT_BEHIND_RELAY if is_behind_relay else FIRST_LINE_PORT
    return [
        {"name": name, "line_receiver_port": first + step, "cache_query_port": FIRST_QUERY_PORT + step}
        for name, step in zip(INSTANCE_NAMES[:number], range(0, PORT_STEP * number, PORT_STEP))
    ]


def prune_program(directory: str) -> list[dict]:
    """Return the files of the program that prunes, a Python package at ``directory``, as the module config_files takes them.

    It is the module whisper_prune's own code, of which Python needs no more.
    """
    owned = {"owner": "root", "group": "root"}
    files = [{"path": directory, "state": "directory", "mode": "0755", **owned}]
    for module in (retention, header, library, prune, tree):
        package, name = module.__name__.split(".")[-2:]
        if f"{directory}/{package}" not in [item["path"] for item in files]:
            files.append({"path": f"{directory}/{package}", "state": "directory", "mode": "0755", **owned})
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        files.append({"path": f"{directory}/{package}/{name}.py", "state": "file", "content": source, "mode": "0644", **owned})
    return files


def carbon_cache_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``carbon_cache_``."""
    whisper_directory = variables["whisper_directory"]
    if variables.get("state") == "absent":
        return list(filter(None, [directory_problem("carbon_cache_whisper_directory", whisper_directory)]))
    problems = instance_problems(variables["instances"])
    # What follows from instances that are refused would be wrong as well.
    instances = [] if problems else carbon_instances(variables["instances"], 2, bool(variables.get("is_behind_relay")))
    return [
        *problems,
        *filter(None, [address_problem("carbon_cache_bind_address", variables["bind_address"])]),
        *_line_receiver_problems(variables["line_receiver_address"]),
        *filter(None, [_whisper_problem("carbon_cache_whisper_directory", whisper_directory)]),
        *schema_problems("carbon_cache_storage_schemas", variables["storage_schemas"]),
        *expected_series_problems(
            "carbon_cache_expected_series", variables["expected_series"], "carbon_cache_storage_schemas", variables["storage_schemas"]
        ),
        *aggregation_problems("carbon_cache_storage_aggregations", variables["storage_aggregations"]),
        *_settings_problems(variables["settings"]),
        *_tags_problems(variables["tags_url"], str(variables.get("tags_authority") or "")),
        *_port_problems(instances, variables["settings"]),
        *_receiver_problems(variables["settings"], instances),
        *_prune_problems(variables["prune"], whisper_directory),
    ]


def instance_problems(instances: object) -> list[str]:
    """Return one sentence for each mistake in ``carbon_cache_instances``."""
    if isinstance(instances, (list, tuple)):
        return _listed_instance_problems(list(instances))
    number = str(instances)
    if number == "auto" or (not isinstance(instances, bool) and re.match(r"\d+\Z", number) and 0 < int(number) <= len(INSTANCE_NAMES)):
        return []
    shown = "a dictionary" if isinstance(instances, dict) else f"'{instances}'"
    return [
        f"carbon_cache_instances is {shown}; give a number from 1 to {len(INSTANCE_NAMES)}, auto for as many as the host has processors,"
        " or a list of instances."
    ]


def _listed_instance_problems(instances: list) -> list[str]:
    problems = []
    if not instances:
        problems.append("carbon_cache_instances is empty; carbon needs at least one instance to receive metrics.")
    keys = ("name", *_INSTANCE_PORTS)
    if not all(isinstance(instance, dict) and set(instance) == set(keys) for instance in instances):
        return [f"Each element of carbon_cache_instances is a dictionary with the keys {', '.join(keys)}, and no others."]
    for instance in instances:
        if not re.match(r"[A-Za-z0-9_-]+\Z", str(instance["name"])):
            problems.append(f"carbon_cache_instances: '{instance['name']}' cannot name a unit; use letters, digits, '_' and '-'.")
    for name, count in Counter(instance["name"] for instance in instances).items():
        if count > 1:
            problems.append(f"carbon_cache_instances has {count} instances '{name}'; give each a name of its own.")
    return problems


def _line_receiver_problems(address: object) -> list[str]:
    # By default, that of the other ports.
    problem = address_problem("carbon_cache_line_receiver_address", address) if address else None
    return [problem] if problem else []


def _settings_problems(settings: dict) -> list[str]:
    problems = []
    for name, value in settings.items():
        if name.upper() in OWNED_SETTINGS:
            problems.append(
                f"carbon_cache_settings has {name}, which carbon_cache_instances, carbon_cache_bind_address or"
                " carbon_cache_whisper_directory decides; set it there."
            )
        if not re.match(r"[A-Z][A-Z0-9_]*\Z", name) or isinstance(value, (dict, list)) or "\n" in str(value):
            problems.append(f"carbon_cache_settings has {name}: {value}; give an upper-case name and a value on one line.")
    return problems


def _tags_problems(url: object, authority: str) -> list[str]:
    if authority:
        problem = plain_path_problem("carbon_cache_tags_authority", authority)
        if problem or not authority.startswith("/"):
            return [problem or f"carbon_cache_tags_authority is '{authority}'; give an absolute path on the host."]
    if not url or re.match(r"https?://[^\s/]+(/\S*)?\Z", str(url)):
        return []
    return [f"carbon_cache_tags_url is '{url}'; give the URL of graphite-web, such as http://127.0.0.1:80, or an empty text for no tags."]


def _port_problems(instances: list[dict], settings: dict) -> list[str]:
    """Refuse what is no port, and a port that several listeners would open: carbon would end at each start."""
    listeners = [
        (f"{key} of instance '{instance['name']}' in carbon_cache_instances", "TCP", instance[key])
        for instance in instances
        for key in _INSTANCE_PORTS
    ]
    listeners += [(f"{name} in carbon_cache_settings", "TCP", settings[name]) for name in TCP_RECEIVERS if _is_open(settings, name)]
    if boolean(settings.get("ENABLE_UDP_LISTENER", False), strict=False):
        listeners.append(("UDP_RECEIVER_PORT in carbon_cache_settings", "UDP", settings.get("UDP_RECEIVER_PORT", 2003)))
    problems = []
    names: dict[tuple[str, int], list[str]] = {}
    for name, protocol, port in listeners:
        problem = port_problem(name, port)
        if problem:
            problems.append(problem)
        else:
            names.setdefault((protocol, int(port)), []).append(name)
    problems += [
        f"{' and '.join(users)} are {protocol} port {port}; give each listener a port of its own."
        for (protocol, port), users in names.items()
        if len(users) > 1
    ]
    return problems


def _is_open(settings: dict, name: str) -> bool:
    return str(settings.get(name, 0)) not in ("0", "")


def _receiver_problems(settings: dict, instances: list[dict]) -> list[str]:
    """Refuse receivers that all instances would open on the same port: a series would land in any of their caches."""
    if len(instances) < 2:
        return []
    shared = [name for name in TCP_RECEIVERS if _is_open(settings, name)]
    shared += [name for name in ("ENABLE_UDP_LISTENER",) if boolean(settings.get(name, False), strict=False)]
    return [
        f"carbon_cache_settings has {name}: {settings[name]}, and carbon_cache_instances has {len(instances)} instances, which would share"
        " the port; leave the setting out, or keep one instance."
        for name in shared
    ]


def _prune_problems(prune: dict, whisper_directory: str) -> list[str]:
    if not prune:
        return []
    problems: list[str | None] = []
    if prune.get("unused_for") is None:
        problems.append("carbon_cache_prune lacks unused_for; give the time without a point after which a series goes, such as 90d.")
    else:
        try:
            parse_duration(prune["unused_for"])
        except RetentionError as error:
            problems.append(f"carbon_cache_prune: unused_for: {error}.")
    if prune.get("archive_directory") is not None:
        problems.append(_archive_problem("carbon_cache_prune: archive_directory", prune["archive_directory"], whisper_directory))
    if not re.match(r"[^\s].*\Z", str(prune.get("schedule", "daily"))):
        problems.append(
            f"carbon_cache_prune: schedule is '{prune['schedule']}'; give one line as OnCalendar of systemd.timer takes it, such as daily."
        )
    share = str(prune.get("max_share", 0.5))
    if not re.match(r"\d*\.?\d+\Z", share) or not 0 < float(share) <= 1:
        problems.append(f"carbon_cache_prune: max_share is {share}; give a share of all series, more than 0 and at most 1.")
    return [problem for problem in problems if problem]


def _whisper_problem(name: str, value: object) -> str | None:
    problem = directory_problem(name, value) or plain_path_problem(name, value)
    if problem:
        return problem
    # A restoration renames the whisper directory; a series named search_index.x would be a directory in place of the index.
    if str(value) == _DATA_DIRECTORY:
        return f"{name} is '{value}', which has the database and the search index of graphite-web; give {value}/whisper, for example."
    return None


def _archive_problem(name: str, value: object, whisper_directory: str) -> str | None:
    problem = directory_problem(name, value, example="/var/lib/graphite-archive") or plain_path_problem(name, value)
    if problem:
        return problem
    paths = [posixpath.normpath(str(value)), posixpath.normpath(str(whisper_directory))]
    if posixpath.isabs(paths[1]) and posixpath.commonpath(paths) in paths:
        return f"{name} is '{value}', which overlaps with carbon_cache_whisper_directory; give a directory beside it."
    return None
