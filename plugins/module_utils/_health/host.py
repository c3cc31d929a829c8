# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""All checks of one host, in one pass. This file is private to the collection."""

from __future__ import annotations

import os
import re
import time

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.link import CarbonLink
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import StorageRulesError, read_schemas
from ansible_collections.metricstack.graphite.plugins.module_utils._health.carbon import HISTORY, Instance, read_settings
from ansible_collections.metricstack.graphite.plugins.module_utils._health.certificates import check_certificates
from ansible_collections.metricstack.graphite.plugins.module_utils._health.clock import check_clock
from ansible_collections.metricstack.graphite.plugins.module_utils._health.disk import check_disk
from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import Limits, Report
from ansible_collections.metricstack.graphite.plugins.module_utils._health.history import History
from ansible_collections.metricstack.graphite.plugins.module_utils._health.memcached import check_memcached
from ansible_collections.metricstack.graphite.plugins.module_utils._health.relay import check_relays
from ansible_collections.metricstack.graphite.plugins.module_utils._health.series import Survey
from ansible_collections.metricstack.graphite.plugins.module_utils._health.statsd import check_management, check_series
from ansible_collections.metricstack.graphite.plugins.module_utils._health.udp import check_drops, read_drops
from ansible_collections.metricstack.graphite.plugins.module_utils._health.units import check_jobs, check_services
from ansible_collections.metricstack.graphite.plugins.module_utils._host.services import ServiceError, active_since, is_running, read_states
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import open_tree

# Two looks at the same counter of the kernel are at least this far apart.
_SECONDS_BETWEEN_LOOKS = 1.0


class Examination:
    """The health of one host.

    ``series``, ``statsd`` and ``memcached`` are what was seen on the way; there is nothing of a missing component.
    """

    def __init__(self, parameters: dict) -> None:
        self._parameters = parameters
        self._limits = Limits(
            recent=parameters["recent_hours"] * 3600,
            stopped=parameters["stopped_hours"] * 3600,
            disk_days=parameters["disk_days"],
            certificate_days=parameters["certificate_days"],
            cache_share=parameters["cache_share"],
            clock=parameters["clock_seconds"],
            tree=parameters["tree_seconds"],
        )
        self._now = time.time()
        self._states: dict[str, dict[str, str]] = {}
        self.report = Report()
        self.series: int | None = None
        self.statsd: dict | None = None
        self.memcached: dict[str, dict[str, int]] = {}

    def run(self) -> None:
        """Look at everything. Changes nothing."""
        parameters = self._parameters
        check_clock(self.report, self._limits.clock, self._now, parameters["reference_time"])
        began, drops = time.monotonic(), read_drops(parameters["services"])
        self._check_units()
        if parameters["statsd"]:
            self.statsd = check_management(self.report, self._limits, parameters["statsd"], self._now)
        if parameters["carbon"]:
            self._check_carbon(parameters["carbon"])
        self.memcached = check_memcached(self.report, parameters["memcached"])
        check_certificates(self.report, self._limits, parameters["apache_directory"], self._now, parameters["certificates"])
        if parameters["services"] and os.geteuid() != 0:
            self.report.skip("udp_drops", "root alone sees the sockets of all processes. Let doctor.yml become root.")
        if any(drops.values()):
            time.sleep(max(0.0, began + _SECONDS_BETWEEN_LOOKS - time.monotonic()))
            check_drops(self.report, self._states, drops, read_drops(parameters["services"]))

    def _check_units(self) -> None:
        services, jobs = self._parameters["services"], self._parameters["jobs"]
        try:
            self._states = read_states([*services, *jobs])
        except ServiceError as error:
            self.report.skip("unit_down", str(error))
            return
        check_services(self.report, self._limits, {unit: self._states[unit] for unit in services}, self._now)
        check_jobs(self.report, {unit: self._states[unit] for unit in jobs})

    def _check_carbon(self, carbon: dict) -> None:
        try:
            top = open_tree(carbon["whisper_directory"])
        except OSError as error:
            self.report.critical(
                "whisper_directory",
                None,
                error.strerror or str(error),
                f"{carbon['whisper_directory']} cannot be opened ({error.strerror}), so that carbon stores nothing. Mount or restore"
                " it, and run site.yml.",
            )
            return
        now = int(self._now)
        links = [CarbonLink(carbon["address"], instance["cache_query_port"], timeout=5.0) for instance in carbon["instances"]]
        try:
            history = History(top, links, now)
            instances = self._instances(carbon, history, now)
            for instance in instances:
                instance.check(self.report, self._limits, self._running_since(instance.unit))
            if carbon["relay"]:
                check_relays(self.report, self._limits, carbon["relay"], history, now)
            for statsd in carbon["statsd"]:
                check_series(self.report, self._limits, statsd, history, now)
            survey = self._survey(top, carbon["conf_directory"], now)
            self.series = survey.series
            creates = sorted(point for instance in instances for point in instance.points("creates", HISTORY))
            check_disk(self.report, self._limits, carbon["whisper_directory"], survey.tree, creates, now)
        finally:
            for link in links:
                link.close()
            os.close(top)

    def _instances(self, carbon: dict, history: History, now: int) -> list[Instance]:
        path = f"{carbon['conf_directory']}/carbon.conf"
        names = [instance["name"] for instance in carbon["instances"]]
        try:
            text = _text(path)
            settings = [read_settings(text, name) for name in names]
        except (OSError, ValueError) as error:
            self.report.skip("cache_fills", f"{path} cannot be read: {error}. Run carbon.yml.")
            # What has been lost is in carbon's series, whatever its settings are.
            settings = [read_settings("", name) for name in names]
        return [Instance(name, carbon["metric_prefix"], own, history, now) for name, own in zip(names, settings)]

    def _survey(self, top: int, conf_directory: str, now: int) -> Survey:
        path = f"{conf_directory}/storage-schemas.conf"
        rules: list[dict] = []
        changed_at = float("inf")
        try:
            rules = read_schemas(_text(path))
            changed_at = os.stat(path).st_mtime
            survey = Survey(top, rules, now, self._limits)
        except (OSError, StorageRulesError, re.error) as error:
            self.report.skip("unused_rule", f"{path} cannot be read: {error}. Run carbon.yml.")
            survey = Survey(top, [], now, self._limits)
        survey.run()
        survey.report(self.report, changed_at)
        return survey

    def _running_since(self, unit: str) -> float | None:
        state = self._states.get(unit)
        return active_since(state) if state and is_running(state) else None


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()
