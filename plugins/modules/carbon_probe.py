#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: carbon_probe
short_description: Send a probe point to each carbon-cache instance
version_added: 2.0.0
description:
  - Makes a small whisper file for each instance, sends one point to the instance by the line protocol, and checks that the instance
    has taken the point. graphite-web shows the point at once, from the cache or from the file.
  - The same for a relay in front of them, of whose point one of the instances must take care.
  - Without O(instances), sends one point to the relay only, which passes the point to other hosts. There, O(relayed) makes the files.
  - With V(absent), waits until each instance has written its point, fails if one takes points and does not store them, and removes
    the files. A busy instance may hold the point for longer than O(timeout); then its file stays for the next run, with a warning.
author:
  - metricstack maintainers (@metricstack)
options:
  instances:
    description:
      - The instances, as the variable C(carbon_cache_instances) of the role carbon_cache has them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the instance, which is the last part of its probe's series.
        type: str
        required: true
      line_receiver_port:
        description: TCP port on which the instance receives points.
        type: int
        required: true
      cache_query_port:
        description: TCP port on which the instance answers graphite-web.
        type: int
        required: true
  address:
    description:
      - Address on which the instances listen, as the host itself reaches them.
    type: str
    default: 127.0.0.1
  line_receiver_address:
    description:
      - Address on which the instances receive points, if it is another one.
    type: str
  relay:
    description:
      - The relay that sends to the instances. If left out, there is none.
    type: dict
    suboptions:
      address:
        description: Address on which it receives points, as the host itself reaches it.
        type: str
        required: true
      port:
        description: TCP port to which a point is sent that the relay has to pass on.
        type: int
        required: true
      unit:
        description: Unit of systemd that messages name if the relay does not answer.
        type: str
        default: carbon-relay
        version_added: 2.1.0
  relayed:
    description:
      - Names that relays on other hosts send here, as their O(prefix) and C(carbon_relay). Their files are made and removed as well.
    type: list
    elements: str
    default: []
    version_added: 2.1.0
  prefix:
    description:
      - Begins the names of the series below O(name). Where several hosts share their series, give each a prefix of its own.
    type: str
    default: ""
    version_added: 2.1.0
  directory:
    description:
      - Top of the whisper tree, in which the probe's files are made and looked for.
    type: path
    default: /var/lib/graphite/whisper
  name:
    description:
      - Directory of the probe in the tree, and first part of the names of its series. Choose one that nothing else uses.
    type: str
    default: metricstack_probe
  user:
    description:
      - System account that carbon runs as, and that gets the probe's files.
    type: str
    default: _graphite
  timeout:
    description:
      - Time to wait for each instance, in seconds.
    type: int
    default: 10
  state:
    description:
      - Whether the probe is sent, or what it has left is removed.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Sends nothing and removes nothing.
    support: partial
    details: What an instance does with a point is not known before the point is sent.
  diff_mode:
    description: A probe has no state to compare.
    support: N/A
seealso:
  - module: metricstack.graphite.graphite_render_info
  - module: metricstack.graphite.statsd_probe
"""

EXAMPLES = r"""
- name: Send a point to each instance
  metricstack.graphite.carbon_probe:
    instances: "{{ carbon_cache_instances }}"
  register: probe

- name: Read the points through graphite-web
  metricstack.graphite.graphite_render_info:
    targets: "{{ probe.series }}"
  register: answer
  until: answer.series | default([]) | map(attribute='last') | select('equalto', probe.value) | length == probe.series | length
  retries: 5
  delay: 1

- name: Remove the probe
  metricstack.graphite.carbon_probe:
    instances: "{{ carbon_cache_instances }}"
    state: absent
"""

RETURN = r"""
series:
  description: Names of the series, one for each instance, and one for the relay.
  returned: success
  type: list
  elements: str
  sample: [metricstack_probe.a]
points:
  description: The value of the point of each series.
  returned: O(state=present)
  type: dict
  sample: {metricstack_probe.a: 47.11}
  version_added: 2.1.0
value:
  description: Value of the point, which differs from run to run.
  returned: O(state=present)
  type: float
  sample: 47.11
"""

import contextlib
import os
import pwd
import random
import re
import socket
import struct
import time
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.link import CarbonLink, CarbonLinkError

STEP = 60
POINTS = 60
# The header of whisper.py: aggregation method (average), longest retention, xFilesFactor, number of archives; then the archive.
HEADER = struct.pack("!2LfL", 1, STEP * POINTS, 0.5, 1) + struct.pack("!3L", 28, STEP, POINTS)


class ProbeError(Exception):
    """The probe has not reached an instance."""


class LateError(ProbeError):
    """An instance that answers has not done what it was asked for in time."""


class Receiver(NamedTuple):
    """What a point is sent to: an instance, or the relay, whose points any instance may have."""

    name: str
    unit: str
    address: tuple[str, int]
    # Of the instances that are asked for the point. Without any, other hosts have the point.
    query_ports: tuple[int, ...]


def receivers_of(parameters: dict) -> list[Receiver]:
    """Return everything that a point is sent to."""
    instances, relay, prefix = parameters["instances"], parameters["relay"], parameters["prefix"]
    address = parameters["line_receiver_address"] or parameters["address"]
    receivers = [
        Receiver(
            prefix + instance["name"],
            f"carbon-cache@{instance['name']}",
            (address, instance["line_receiver_port"]),
            (instance["cache_query_port"],),
        )
        for instance in instances
    ]
    if relay:
        ports = tuple(instance["cache_query_port"] for instance in instances)
        receivers.append(Receiver(f"{prefix}carbon_relay", relay["unit"], (relay["address"], relay["port"]), ports))
    return receivers


class Probe:
    """The probe's series on one host. Links in the tree are not followed."""

    def __init__(self, parameters: dict) -> None:
        self._parameters = parameters
        self.receivers = receivers_of(parameters)
        self.warnings: list[str] = []

    def metric(self, receiver: Receiver) -> str:
        return f"{self._parameters['name']}.{receiver.name}"

    def send(self, value: float) -> None:
        if not self._parameters["instances"]:
            for receiver in self.receivers:
                self._send_point(receiver, value)
            return
        account = pwd.getpwnam(self._parameters["user"])
        with self._directory(make_for=account) as directory:
            for name in self._parameters["relayed"]:
                self._make_file(directory, name, account)
            for receiver in self.receivers:
                self._make_file(directory, receiver.name, account)
                self._send_point(receiver, value)
                self._wait(receiver, lambda cached, file=receiver: bool(cached) or self._is_stored(directory, file, value), "has not taken")

    def _make_file(self, directory: int, name: str, account) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(f"{name}.wsp", flags, 0o640, dir_fd=directory), "wb") as stream:
            os.fchown(stream.fileno(), account.pw_uid, account.pw_gid)
            stream.write(HEADER + bytes(12 * POINTS))

    def remove(self) -> list[str]:
        """Remove the files, and return a message for each instance that has not stored its point."""
        problems: list[str] = []
        if not self._parameters["instances"]:
            return problems
        try:
            with self._directory() as directory:
                for receiver in self.receivers:
                    try:
                        problems += self._remove_file(directory, receiver)
                    except ProbeError as error:
                        problems.append(str(error))
                        # An instance that does not answer would not make the file anew either.
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(f"{receiver.name}.wsp", dir_fd=directory)
                for name in self._parameters["relayed"]:
                    self._remove_relayed(directory, name)
        except FileNotFoundError:
            return []
        with contextlib.suppress(OSError):  # other files may be in the directory
            os.rmdir(self._path)
        return problems

    def _remove_relayed(self, directory: int, name: str) -> None:
        """Remove a file to which another host has sent a point, or to a store that is no home of the series, has not."""
        ports = tuple(instance["cache_query_port"] for instance in self._parameters["instances"])
        receiver = Receiver(name, "carbon-cache@*", ("", 0), ports)
        try:
            self._wait(receiver, lambda cached: not cached, "has not written")
        except ProbeError as error:
            self.warnings.append(f"{error}. The file stays until the next run.")
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{name}.wsp", dir_fd=directory)

    def _remove_file(self, directory: int, receiver: Receiver) -> list[str]:
        is_cached = True
        problems = []

        def is_over(cached: dict) -> bool:
            nonlocal is_cached
            is_cached = bool(cached)
            return not is_cached and self._is_stored(directory, receiver)

        try:
            self._wait(receiver, is_over, "has not written")
        except LateError as error:
            if is_cached:
                self.warnings.append(f"{error}. The file stays until the next run, because {receiver.unit} would make it anew.")
                return []
            problems = [
                f"The point of {self.metric(receiver)} that {receiver.unit} was sent is neither in its cache nor in"
                f" {self._path}/{receiver.name}.wsp: points are lost. Check that the unit sees {self._parameters['directory']}"
                f" (carbon_cache_whisper_directory) and may write there; see journalctl --unit {receiver.unit}."
            ]
        except FileNotFoundError:
            return []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{receiver.name}.wsp", dir_fd=directory)
        return problems

    @property
    def _path(self) -> str:
        return os.path.join(self._parameters["directory"], self._parameters["name"])

    @contextlib.contextmanager
    def _directory(self, make_for=None):
        flags = os.O_RDONLY | os.O_DIRECTORY
        top = os.open(self._parameters["directory"], flags)
        try:
            if make_for is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._parameters["name"], 0o750, dir_fd=top)
            directory = os.open(self._parameters["name"], flags | os.O_NOFOLLOW, dir_fd=top)
            try:
                if make_for is not None:
                    os.fchown(directory, make_for.pw_uid, make_for.pw_gid)
                yield directory
            finally:
                os.close(directory)
        finally:
            os.close(top)

    def _send_point(self, receiver: Receiver, value: float) -> None:
        host, port = receiver.address
        try:
            with socket.create_connection(receiver.address, timeout=self._parameters["timeout"]) as connection:
                connection.sendall(f"{self.metric(receiver)} {value} {int(time.time())}\n".encode())
        except OSError as error:
            raise ProbeError(f"{receiver.unit} does not receive points on TCP port {port} of {host}: {error}") from error

    def _is_stored(self, directory: int, receiver: Receiver, value: float | None = None) -> bool:
        """Tell whether the file has a point with ``value``, or any point."""
        with os.fdopen(os.open(f"{receiver.name}.wsp", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb") as stream:
            stream.seek(len(HEADER))
            return any(stored == value or (value is None and time) for time, stored in struct.iter_unpack("!Ld", stream.read(12 * POINTS)))

    def _wait(self, receiver: Receiver, is_over, complaint: str) -> None:
        timeout, metric = self._parameters["timeout"], self.metric(receiver)
        links = [CarbonLink(self._parameters["address"], port, timeout) for port in receiver.query_ports]
        deadline = time.monotonic() + timeout
        try:
            while not is_over({key: points for link in links for key, points in link.cached([metric]).items()}):
                if time.monotonic() > deadline:
                    raise LateError(
                        f"{receiver.unit} {complaint} the point of {metric} after {timeout} s. See journalctl --unit {receiver.unit}"
                    )
                time.sleep(0.1)
        except CarbonLinkError as error:
            raise ProbeError(f"{receiver.unit} does not answer on its cache query port: {error}") from error
        finally:
            for link in links:
                link.close()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "instances": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "line_receiver_port": {"type": "int", "required": True},
                    "cache_query_port": {"type": "int", "required": True},
                },
            },
            "address": {"type": "str", "default": "127.0.0.1"},
            "line_receiver_address": {"type": "str"},
            "relay": {
                "type": "dict",
                "options": {
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "unit": {"type": "str", "default": "carbon-relay"},
                },
            },
            "relayed": {"type": "list", "elements": "str", "default": []},
            "prefix": {"type": "str", "default": ""},
            "directory": {"type": "path", "default": "/var/lib/graphite/whisper"},
            "name": {"type": "str", "default": "metricstack_probe"},
            "user": {"type": "str", "default": "_graphite"},
            "timeout": {"type": "int", "default": 10},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    if not re.match(r"[A-Za-z0-9_-]+\Z", module.params["name"]):
        module.fail_json(msg=f"name is '{module.params['name']}'; use letters, digits, '_' and '-'.")
    for name in [module.params["prefix"] or "a", *module.params["relayed"]]:
        if not re.match(r"[A-Za-z0-9_-]+\Z", name):
            module.fail_json(msg=f"'{name}' cannot be part of the name of a series; use letters, digits, '_' and '-'.")
    probe = Probe(module.params)
    value = random.randrange(1, 10**6) / 100
    try:
        if not module.check_mode and module.params["state"] == "present":
            probe.send(value)
        elif not module.check_mode:
            problems = probe.remove()
            if problems:
                module.fail_json(msg="\n".join(problems))
    except ProbeError as error:
        module.fail_json(msg=str(error))
    except KeyError:
        module.fail_json(msg=f"user is '{module.params['user']}', which the host does not have.")
    except OSError as error:
        module.fail_json(msg=f"The probe cannot be written to {module.params['directory']} (carbon_cache_whisper_directory): {error}")
    for warning in probe.warnings:
        module.warn(warning)
    series = [probe.metric(receiver) for receiver in probe.receivers]
    sent = {"value": value, "points": dict.fromkeys(series, value)} if module.params["state"] == "present" else {}
    module.exit_json(changed=False, series=series, **sent)


if __name__ == "__main__":
    main()
