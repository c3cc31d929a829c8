#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: graphite_health_info
short_description: Look for signs that a host loses metrics
version_added: 2.0.0
description:
  - Reads the counters that tell of loss, all of a host in one call, and returns a finding for each sign of loss. They are carbon's and
    StatsD's metrics about themselves in whisper files, StatsD's management interface, memcached's statistics, the kernel's drops of UDP
    packets, restarts of units, the growth of the whisper files, series that have stopped, storage rules that match nothing, the clock,
    and the certificates of Apache's sites.
  - Keeps nothing on the host and changes nothing. What happened when follows from the series that carbon has stored.
  - Reads whisper files without the C(whisper) library.
author:
  - metricstack maintainers (@metricstack)
options:
  services:
    description:
      - Units of systemd that must run. Their UDP sockets are looked at as well.
    type: list
    elements: str
    default: []
  jobs:
    description:
      - Units of systemd that timers start. One that does not exist is passed over.
    type: list
    elements: str
    default: []
  carbon:
    description:
      - Carbon on this host. If left out, there is none, and no series are looked at.
    type: dict
    suboptions:
      instances:
        description: The instances, as the variable C(carbon_cache_instances) of the role carbon_cache has them.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: Name of the instance, which is in the names of its series and of its unit.
            type: str
            required: true
          cache_query_port:
            description: TCP port on which the instance is asked for points that are not on disk yet.
            type: int
            required: true
          line_receiver_port:
            description: TCP port on which the instance receives points. Not used.
            type: int
      address:
        description: Address on which the instances listen, as the host itself reaches them.
        type: str
        default: 127.0.0.1
      whisper_directory:
        description: Top of the whisper tree, whose files are looked at for series that have stopped.
        type: path
        default: /var/lib/graphite/whisper
      conf_directory:
        description: Directory whose C(carbon.conf) and C(storage-schemas.conf) say what carbon limits and stores.
        type: path
        default: /etc/carbon
      metric_prefix:
        description: First part of the names of carbon's metrics about itself, C(CARBON_METRIC_PREFIX).
        type: str
        default: carbon
      relay:
        description: The relay on this host, whose series are in the tree. If left out, there is none.
        type: dict
        suboptions:
          statistics_prefixes:
            description: >-
              How the names of its series begin; C(\.1) stands for the name of the host. With C(.*) at the end, all relays whose series are
              in the tree are looked at, on whatever host they are.
            type: list
            elements: str
            default: ['carbon.relays.\.1']
          queue_size:
            description: Number of points that wait for each destination.
            type: int
            default: 1000000
      statsd:
        description: Each StatsD whose series are in the tree.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: Name of the host that runs this StatsD, which findings say.
            type: str
            required: true
          flush_seconds:
            description: Seconds between two flushes, from which late and missing flushes are told.
            type: int
            required: true
          bad_lines:
            description: Name of the series of its counter C(statsd.bad_lines_seen); empty if it does not flush counts.
            type: str
            default: ""
          timestamp_lag:
            description: Name of the series of its gauge C(statsd.timestamp_lag).
            type: str
            required: true
  statsd:
    description:
      - StatsD on this host. If left out, there is none.
    type: dict
    suboptions:
      management_address:
        description: Address of its management interface, as the host itself reaches it.
        type: str
        default: 127.0.0.1
      management_port:
        description: TCP port on which StatsD is asked for its counters.
        type: int
        default: 8126
      flush_seconds:
        description: Seconds between two flushes, from which late and missing flushes are told.
        type: int
        default: 10
  memcached:
    description:
      - Memcached servers that graphite-web on this host uses, as C(ADDRESS:PORT).
    type: list
    elements: str
    default: []
    version_added: 2.1.0
  apache_directory:
    description:
      - Configuration of Apache, such as C(/etc/apache2), whose enabled sites' certificates are looked at. If left out, none are.
    type: path
  certificates:
    description:
      - Paths of further certificates, by which hosts take points from each other over TLS.
    type: list
    elements: path
    default: []
    version_added: 2.1.0
  reference_time:
    description:
      - Unix time that the clock is compared with, such as the controller's at the start of the task.
    type: float
  recent_hours:
    description:
      - A loss is a finding for this number of hours. It is V(critical) if it still goes on, that is, if the last one is less than
        15 minutes old.
    type: int
    default: 24
  stopped_hours:
    description:
      - Hours without a point after which a steady series has stopped; less than O(recent_hours).
    type: int
    default: 1
  disk_days:
    description:
      - A file system that will be full within this number of days is a finding; V(critical) within three.
    type: int
    default: 30
  certificate_days:
    description:
      - A certificate that ends within this number of days is a finding; V(critical) within three.
    type: int
    default: 14
  cache_share:
    description:
      - Share of C(MAX_CACHE_SIZE) from which a filled cache is a finding, above 0 and up to 1.
    type: float
    default: 0.8
  clock_seconds:
    description:
      - Difference from O(reference_time), and of points from the host's own clock, that is tolerated, in seconds.
    type: int
    default: 60
  tree_seconds:
    description:
      - Time for the walk through the whisper files, in seconds. What is not reached within it is in RV(unexamined).
    type: int
    default: 60
  ignore:
    description:
      - Names of checks whose findings are left out.
    type: list
    elements: str
    default: []
    choices:
      - bad_lines
      - cache_fills
      - cache_overflow
      - carbon_silent
      - certificate
      - clock
      - disk
      - dropped_creates
      - future_points
      - inodes
      - invalid_points
      - job_failed
      - memcached
      - memcached_evictions
      - relay_discards
      - relay_drops
      - relay_queue_fills
      - statsd_dropped
      - statsd_exception
      - statsd_flush
      - statsd_health
      - statsd_holes
      - statsd_lag
      - statsd_management
      - stopped_series
      - udp_drops
      - unit_down
      - unit_restarted
      - unused_rule
      - whisper_directory
      - write_errors
attributes:
  check_mode:
    description: Changes nothing, in either mode.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: N/A
seealso:
  - module: metricstack.graphite.statsd_info
  - module: metricstack.graphite.whisper_prune
"""

EXAMPLES = r"""
- name: Look for signs of loss on a host with StatsD and carbon
  metricstack.graphite.graphite_health_info:
    services: [carbon-cache@a.service, statsd.service]
    statsd: {}
    carbon:
      instances: "{{ carbon_cache_instances }}"
      statsd:
        - host: "{{ inventory_hostname }}"
          flush_seconds: 10
          bad_lines: stats.counters.statsd.bad_lines_seen.count
          timestamp_lag: stats.gauges.statsd.timestamp_lag
  register: health

- name: Reject a host that loses metrics
  ansible.builtin.assert:
    that: health.findings | selectattr('severity', 'equalto', 'critical') | length == 0
    fail_msg: "{{ health.findings | map(attribute='message') | join('\n') }}"

- name: Look at the certificates of Apache and at the clock only
  metricstack.graphite.graphite_health_info:
    apache_directory: /etc/apache2
    certificate_days: 30
    reference_time: "{{ (now(utc=true) - ('1970-01-01' | to_datetime('%Y-%m-%d'))).total_seconds() }}"
"""

RETURN = r"""
findings:
  description: Signs of loss, the critical ones first. A healthy host has none.
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description: Name of the check; one of the choices of O(ignore).
      type: str
      sample: dropped_creates
    severity:
      description: V(warning), or V(critical) for what is being lost now or will be within days.
      type: str
      sample: critical
    since:
      description: When it began, in UTC as ISO 8601 writes it; null if that is not recorded.
      type: str
      sample: "2026-11-28T03:10:00Z"
    value:
      description: What was measured; a number, or a state.
      type: raw
      sample: 412
    message:
      description: What is wrong, by how much, and what to do.
      type: str
      sample: carbon-cache@a.service dropped the points of new series 412 times, because more series than MAX_CREATES_PER_MINUTE were new
unexamined:
  description: What could not be looked at, such as the rest of a tree that is too large for O(tree_seconds).
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description: Name of the check, or of its part.
      type: str
      sample: disk_growth
    reason:
      description: Why it could not be looked at.
      type: str
      sample: carbon has recorded new series for less than three hours; there is no growth to extrapolate yet.
series:
  description: Number of series that were looked at; null without O(carbon).
  returned: success
  type: int
  sample: 10240
statsd:
  description: Statistics of StatsD, as M(metricstack.graphite.statsd_info) returns them; null without an answer.
  returned: success
  type: dict
  sample: {uptime: 4711, graphite: {last_flush: 4, flush_time: 1, flush_length: 1432, unsent_flushes: 0, dropped_flushes: 0}}
memcached:
  description: Statistics of each memcached that has answered, by its address and port.
  returned: success
  type: dict
  version_added: 2.1.0
  contains:
    uptime:
      description: Seconds since its start, from which on it counts.
      type: int
    get_hits:
      description: Number of answers that were found.
      type: int
    get_misses:
      description: Number of answers that were not found.
      type: int
    evictions:
      description: Number of answers that were removed before their time, for want of memory.
      type: int
    cmd_set:
      description: Number of answers that were stored.
      type: int
    bytes:
      description: Memory in use, in bytes.
      type: int
    limit_maxbytes:
      description: Memory that it may use, in bytes.
      type: int
  sample:
    "127.0.0.1:11211": {uptime: 4711, get_hits: 811, get_misses: 90, evictions: 0, cmd_set: 90, bytes: 812345, limit_maxbytes: 67108864}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._health.host import Examination

CHECKS = [
    "bad_lines",
    "cache_fills",
    "cache_overflow",
    "carbon_silent",
    "certificate",
    "clock",
    "disk",
    "dropped_creates",
    "future_points",
    "inodes",
    "invalid_points",
    "job_failed",
    "memcached",
    "memcached_evictions",
    "relay_discards",
    "relay_drops",
    "relay_queue_fills",
    "statsd_dropped",
    "statsd_exception",
    "statsd_flush",
    "statsd_health",
    "statsd_holes",
    "statsd_lag",
    "statsd_management",
    "stopped_series",
    "udp_drops",
    "unit_down",
    "unit_restarted",
    "unused_rule",
    "whisper_directory",
    "write_errors",
]
NAMES = {"type": "list", "elements": "str", "default": []}
INSTANCE = {
    "name": {"type": "str", "required": True},
    "cache_query_port": {"type": "int", "required": True},
    "line_receiver_port": {"type": "int"},
}
STATSD_SERIES = {
    "host": {"type": "str", "required": True},
    "flush_seconds": {"type": "int", "required": True},
    "bad_lines": {"type": "str", "default": ""},
    "timestamp_lag": {"type": "str", "required": True},
}
CARBON = {
    "instances": {"type": "list", "elements": "dict", "required": True, "options": INSTANCE},
    "address": {"type": "str", "default": "127.0.0.1"},
    "whisper_directory": {"type": "path", "default": "/var/lib/graphite/whisper"},
    "conf_directory": {"type": "path", "default": "/etc/carbon"},
    "metric_prefix": {"type": "str", "default": "carbon"},
    "relay": {
        "type": "dict",
        "options": {
            "statistics_prefixes": {"type": "list", "elements": "str", "default": [r"carbon.relays.\.1"]},
            "queue_size": {"type": "int", "default": 1000000},
        },
    },
    "statsd": {"type": "list", "elements": "dict", "default": [], "options": STATSD_SERIES},
}
STATSD = {
    "management_address": {"type": "str", "default": "127.0.0.1"},
    "management_port": {"type": "int", "default": 8126},
    "flush_seconds": {"type": "int", "default": 10},
}
COUNTS = {"recent_hours": 24, "stopped_hours": 1, "disk_days": 30, "certificate_days": 14, "clock_seconds": 60, "tree_seconds": 60}


def limit_problems(parameters: dict) -> list[str]:
    """Return one sentence for each limit by which nothing could be judged."""
    problems = [f"{name} is {parameters[name]}; give a whole number of at least 1." for name in COUNTS if parameters[name] < 1]
    if not 0 < parameters["cache_share"] <= 1:
        problems.append(f"cache_share is {parameters['cache_share']}; give a share above 0 and up to 1, such as 0.8.")
    if parameters["stopped_hours"] >= parameters["recent_hours"]:
        problems.append(
            f"stopped_hours is {parameters['stopped_hours']} and recent_hours {parameters['recent_hours']}; make stopped_hours less than"
            " recent_hours, or no stopped series can be found."
        )
    return problems


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "services": NAMES,
            "jobs": NAMES,
            "carbon": {"type": "dict", "options": CARBON},
            "statsd": {"type": "dict", "options": STATSD},
            "memcached": NAMES,
            "apache_directory": {"type": "path"},
            "certificates": {"type": "list", "elements": "path", "default": []},
            "reference_time": {"type": "float"},
            "cache_share": {"type": "float", "default": 0.8},
            "ignore": {**NAMES, "choices": CHECKS},
            **{name: {"type": "int", "default": default} for name, default in COUNTS.items()},
        },
        supports_check_mode=True,
    )
    problems = limit_problems(module.params)
    if problems:
        module.fail_json(msg=" ".join(problems))
    examination = Examination(module.params)
    examination.run()
    findings = [finding for finding in examination.report.findings if finding.check not in module.params["ignore"]]
    module.exit_json(
        changed=False,
        findings=[finding.as_data() for finding in sorted(findings, key=lambda finding: finding.severity)],
        unexamined=examination.report.skipped,
        series=examination.series,
        statsd=examination.statsd,
        memcached=examination.memcached,
    )


if __name__ == "__main__":
    main()
