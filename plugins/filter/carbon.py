# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Carbon's configuration as data. Each filter is documented beside this file."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import (
    RetentionError,
    format_retentions,
    parse_retentions,
    whisper_size,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import relay_string
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import (
    carbon_instances,
    config_value,
    prune_program,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_relay import relay_command, relay_listeners


def carbon_instances_of(instances: object, processors: int, is_behind_relay: bool = False) -> list[dict]:
    if instances == "auto" and processors < 1:
        raise AnsibleFilterError(
            "carbon_cache_instances is auto, and the number of processors is not known. Let the play gather the facts of the host, or"
            " give a number."
        )
    return carbon_instances(instances, processors, is_behind_relay)


def carbon_retentions(text: str) -> str:
    try:
        return format_retentions(parse_retentions(text))
    except RetentionError as error:
        raise AnsibleFilterError(str(error)) from error


def whisper_size_of(text: str) -> dict[str, int]:
    try:
        archives = parse_retentions(text)
    except RetentionError as error:
        raise AnsibleFilterError(str(error)) from error
    return {"points": sum(archive.points for archive in archives), "bytes": whisper_size(archives)}


def whisper_retention_report(result: dict) -> str:
    parts = []
    for rule in result["rules"]:
        if rule["differing"]:
            parts.append(f"{rule['differing']} of rule {rule['name']} have {' or '.join(rule['found'])}")
        if rule["relabelling"]:
            parts.append(f"{rule['relabelling']} of rule {rule['name']} have another aggregation")
    lines = []
    if parts:
        lines.append(
            f"{result['differing'] + result['relabelling']} of {result['series']} series do not have what carbon_cache_storage_schemas and"
            f" carbon_cache_storage_aggregations give them: {', '.join(parts)}. Carbon applies rules to new series only. Set"
            " carbon_cache_existing_data to reshape to rewrite these files and keep their points;"
            f" that needs {bytes_to_human(result['bytes_needed'])} of the {bytes_to_human(result['bytes_available'])} that are free."
        )
    if result["corrupt"]:
        first = result["corrupt_files"][0]
        lines.append(
            f"{result['corrupt']} files are no whisper files, such as {first['path']} ({first['reason']}), and carbon cannot write"
            " to them. The module whisper_retention renames them with set_aside_corrupt."
        )
    return " ".join(lines)


class FilterModule:
    def filters(self) -> dict:
        return {
            "carbon_config_value": config_value,
            "carbon_instances": carbon_instances_of,
            "carbon_relay_command": relay_command,
            "carbon_relay_listeners": relay_listeners,
            "carbon_relay_string": relay_string,
            "carbon_retentions": carbon_retentions,
            "whisper_prune_program": prune_program,
            "whisper_retention_report": whisper_retention_report,
            "whisper_size": whisper_size_of,
        }
