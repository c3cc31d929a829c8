#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: service_current
short_description: Run services with their current configuration
version_added: 2.0.0
description:
  - Starts the units that do not run, restarts or reloads those that are older than the files that they have read, waits until each
    listens on its sockets, and checks that each stays up.
  - Compares times, instead of relying on changes that an earlier task reports, so that the next run restarts the service if a run
    ended between writing a file and restarting the service. A unit that uses an executable or a library that has been replaced
    on disk since is restarted as well.
  - Reloads the unit files in systemd if one of them has changed.
author:
  - metricstack maintainers (@metricstack)
options:
  units:
    description:
      - Units of systemd that run, and are restarted or reloaded if what they read is newer than they are.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the unit, with its suffix, such as C(carbon-cache@a.service) or C(carbon-cache-prune.timer).
        type: str
        required: true
      started:
        description:
          - Path of a file or directory whose time of modification is that of the start of the unit, or of its last reload, such
            as a file with the id of its process. If left out, or while there is no such path, the time at which systemd took the
            unit for active.
        type: path
      files:
        description:
          - What the unit reads when it starts or reloads, as absolute paths or globs of the shell. A link counts by its own age and
            by that of its target, a directory by its own, which changes when an entry comes or goes.
          - The file of the unit itself belongs here as well.
        type: list
        elements: str
        default: []
      restart_files:
        description:
          - What the unit reads when it starts and not when it reloads. When one of them is newer than the start of the unit, it is
            restarted whatever O(units[].on_change) says.
        type: list
        elements: str
        default: []
      sockets:
        description:
          - The sockets that the unit opens. They are looked for by unit, for another process on the port would answer, too.
        type: list
        elements: dict
        default: []
        suboptions:
          protocol:
            description:
              - Protocol of the socket. V(any) is either.
            type: str
            choices: [tcp, udp, any]
            default: tcp
          port:
            description:
              - Number of the port that the unit has to listen on before the module returns.
            type: int
            required: true
      enabled:
        description:
          - Whether systemd starts the unit at each boot.
        type: bool
        default: true
      on_change:
        description:
          - What to do when the unit is older than O(units[].files). An executable or a library that has been replaced always means
            V(restart).
          - A unit that does not listen on its sockets after a reload is restarted.
        type: str
        choices: [restart, reload]
        default: restart
      test:
        description:
          - Command with its arguments that ends with 0 if the configuration is good. It is run before the unit is started, restarted
            or reloaded; if it fails, the unit that runs is left alone. Not run in check mode, in which the configuration is not
            written.
        type: list
        elements: str
        default: []
  unwanted:
    description:
      - Globs of units to stop and disable, such as C(carbon-cache@*.service). Those in O(units) are never among them.
    type: list
    elements: str
    default: []
  unwanted_processes:
    description:
      - Numbers of processes to end before anything is started, with the signal TERM, such as a process that was started manually.
      - One that does not run any of O(unwanted_programs) is left alone, for its number may be another process's by now.
    type: list
    elements: int
    default: []
  unwanted_programs:
    description:
      - Names of the executables that O(unwanted_processes) run, without directories.
    type: list
    elements: str
    default: []
  changed_paths:
    description:
      - Paths that an earlier task has changed, as M(metricstack.graphite.config_files) returns them. They count as newer than the
        units, which lets check mode report what files would cause that it has not written.
    type: list
    elements: path
    default: []
  timeout:
    description:
      - Seconds in which all units must listen on their sockets and stay up.
    type: int
    default: 30
attributes:
  check_mode:
    description: Reports what would be done, also where the files of units are not there yet; does nothing.
    support: full
  diff_mode:
    description: Shows the units that are started, restarted, reloaded and stopped, with the reason.
    support: full
notes:
  - Sockets are looked for with C(ss) from the package iproute2, in a control group; without root's rights, processes are not seen.
seealso:
  - module: metricstack.graphite.config_files
  - module: ansible.builtin.systemd_service
"""

EXAMPLES = r"""
- name: Run one carbon-cache, and no other
  metricstack.graphite.service_current:
    units:
      - name: carbon-cache@a.service
        started: /run/carbon-cache-a/carbon-cache.pid
        files:
          - /etc/carbon/carbon.conf
          - /etc/systemd/system/carbon-cache@.service
          - /var/lib/dpkg/info/python3*-minimal.list
        sockets:
          - port: 2003
          - port: 7002
    unwanted: [carbon-cache.service, "carbon-cache@*.service"]

- name: Reload Apache if its sites have changed, and the test of its configuration succeeds
  metricstack.graphite.service_current:
    units:
      - name: apache2.service
        started: /run/apache2/apache2.pid
        files: [/etc/apache2/sites-enabled, /etc/apache2/sites-available/*.conf]
        restart_files: [/etc/apache2/envvars]
        on_change: reload
        test: [apache2ctl, configtest]
        sockets:
          - port: 80

- name: Start a timer, and restart it when its description has changed
  metricstack.graphite.service_current:
    units:
      - name: carbon-cache-prune.timer
        files: [/etc/systemd/system/carbon-cache-prune.timer]
"""

RETURN = r"""
started:
  description: Units that did not run and were started (in check mode, would be).
  returned: success
  type: list
  elements: str
  sample: [carbon-cache@a.service]
restarted:
  description: Units that were restarted.
  returned: success
  type: list
  elements: str
  sample: [statsd.service]
reloaded:
  description: Units that were reloaded.
  returned: success
  type: list
  elements: str
  sample: [apache2.service]
stopped:
  description: Unwanted units that ran and were stopped.
  returned: success
  type: list
  elements: str
  sample: [carbon-cache.service]
enabled:
  description: Units that were enabled.
  returned: success
  type: list
  elements: str
  sample: [carbon-cache@a.service]
disabled:
  description: Unwanted units that were disabled.
  returned: success
  type: list
  elements: str
  sample: [carbon-cache@b.service]
ended_processes:
  description: Unwanted processes that were ended.
  returned: success
  type: list
  elements: int
  sample: [4711]
reasons:
  description: Why a unit was started, restarted or reloaded, by its name.
  returned: success
  type: dict
  sample: {statsd.service: /etc/statsd/config.js is newer}
"""

import os
import signal
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import services
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import read_sockets

UNIT_SPEC = {
    "name": {"type": "str", "required": True},
    "started": {"type": "path"},
    "files": {"type": "list", "elements": "str", "default": []},
    "restart_files": {"type": "list", "elements": "str", "default": []},
    "sockets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "protocol": {"type": "str", "choices": ["tcp", "udp", "any"], "default": "tcp"},
            "port": {"type": "int", "required": True},
        },
    },
    "enabled": {"type": "bool", "default": True},
    "on_change": {"type": "str", "choices": ["restart", "reload"], "default": "restart"},
    "test": {"type": "list", "elements": "str", "default": []},
}
# A service that ends because of one of its sockets does so within a few milliseconds after it has opened the others.
SETTLED = 1.0
# A port may be held for a moment; a service that still ends after this many restarts will not get over it.
MOST_RESTARTS = 5
# Seconds after which a reload has opened what it opens: carbon-c-relay cannot always bind a port again that it has just closed.
RELOADED = 6.0
PAST = {"start": "started", "restart": "restarted", "reload": "reloaded"}


def planned_action(unit: dict, state: dict, changed_paths: list[str]) -> tuple[str, str] | None:
    """Return what to do with the unit (``start``, ``restart`` or ``reload``) and why, or ``None`` if it is current."""
    if not services.is_running(state):
        return "start", f"it was {state['SubState'] or state['ActiveState']}"
    active_since = services.active_since(state) or 0.0
    started = active_since
    if unit["started"] and os.path.exists(unit["started"]):
        started = os.stat(unit["started"]).st_mtime
    newer = services.newer_path(unit["restart_files"], active_since) or services.touched_path(unit["restart_files"], changed_paths)
    if newer:
        return "restart", f"{newer} is newer"
    for pid in services.processes_of(unit["name"]):
        replaced = services.replaced_file(pid)
        if replaced:
            return "restart", f"{replaced} has been replaced"
    newer = services.newer_path(unit["files"], started) or services.touched_path(unit["files"], changed_paths)
    return (unit["on_change"], f"{newer} is newer") if newer else None


class Services:
    """The units of one call."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._units: dict[str, dict] = {unit["name"]: unit for unit in module.params["units"]}
        self.actions: dict[str, tuple[str, str]] = {}
        self.result: dict[str, list] = {
            key: [] for key in ("started", "restarted", "reloaded", "stopped", "enabled", "disabled", "ended_processes")
        }

    def apply(self) -> None:
        """Do everything that the call asks for; nothing in check mode."""
        states = self._current_states()
        for name, unit in self._units.items():
            action = planned_action(unit, states[name], self._module.params["changed_paths"])
            if action:
                self.actions[name] = action
                self.result[PAST[action[0]]].append(name)
        self._test()
        self._stop_unwanted()
        self._end_processes()
        self._enable(states)
        if not self._module.check_mode:
            self._act(states)
            self._wait()

    def _current_states(self) -> dict[str, dict]:
        names = list(self._units)
        states = services.read_states(names)
        outdated = [state for state in states.values() if state["NeedDaemonReload"] == "yes" or state["LoadState"] == "not-found"]
        if outdated and not self._module.check_mode:
            services.systemctl("daemon-reload")
            states = services.read_states(names)
        for name, state in states.items():
            if state["LoadState"] == "not-found" and not self._module.check_mode:
                self._module.fail_json(msg=f"There is no unit {name}; describe it in /etc/systemd/system first.")
            if state["LoadState"] == "masked":
                self._module.fail_json(msg=f"{name} is masked, so that it cannot start; run systemctl unmask {name}.")
        return states

    def _test(self) -> None:
        for name in self.actions:
            command = self._units[name]["test"]
            if not command or self._module.check_mode:
                continue
            process = run(command)
            if process.returncode != 0:
                output = "\n".join(filter(None, (process.stdout.strip(), process.stderr.strip())))
                self._module.fail_json(
                    msg=f"{name} was left as it is: {' '.join(command)} refuses its configuration.\n{output}",
                    rc=process.returncode,
                    stdout=process.stdout,
                    stderr=process.stderr,
                )

    def _stop_unwanted(self) -> None:
        names = [name for name in services.matching_units(self._module.params["unwanted"]) if name not in self._units]
        states = services.read_states(names)
        # A unit that waits for its next restart would come back as well; systemd 254 and later call it failed for a moment
        # (failed-before-auto-restart).
        stop = [
            name
            for name in names
            if states[name]["ActiveState"] not in ("inactive", "failed") or "auto-restart" in states[name]["SubState"]
        ]
        # A masked unit does not start with the next boot, whoever wants it.
        unmasked = [name for name in names if states[name]["LoadState"] != "masked"]
        disable = [name for name in unmasked if states[name].get("UnitFileState") == "enabled" or services.boot_links(name)]
        self.result["stopped"], self.result["disabled"] = stop, disable
        if self._module.check_mode:
            return
        if stop:
            services.systemctl("stop", "--", *stop)
        for name in disable:
            services.disable(name, states[name])

    def _end_processes(self) -> None:
        for pid in self._module.params["unwanted_processes"]:
            try:
                executable = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if os.path.basename(executable.replace(" (deleted)", "")) not in self._module.params["unwanted_programs"]:
                continue
            self.result["ended_processes"].append(pid)
            if not self._module.check_mode:
                self._end(pid)

    def _end(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}"):
            if time.monotonic() > deadline:
                self._module.fail_json(msg=f"Process {pid} has not ended 10 s after the signal TERM; end this process manually.")
            time.sleep(0.1)

    def _enable(self, states: dict[str, dict]) -> None:
        names = [name for name, unit in self._units.items() if unit["enabled"] and not services.is_enabled(states[name])]
        self.result["enabled"] = names
        if names and not self._module.check_mode:
            services.systemctl("enable", "--", *names)

    def _act(self, states: dict[str, dict]) -> None:
        failed = [name for name in self.actions if states[name]["ActiveState"] == "failed"]
        if failed:
            services.systemctl("reset-failed", "--", *failed)
        # One after the other, so that not all instances of a service are down at once.
        for name, (action, _reason) in self.actions.items():
            try:
                services.systemctl(action, "--", name)
            except services.ServiceError as error:
                self._fail(name, f"{error}")

    def _wait(self) -> None:
        """Wait until all units are up, and fail if one of them is not in time or does not stay."""
        begun = time.monotonic()
        deadline = begun + self._module.params["timeout"]
        states = services.read_states(list(self._units))
        first = {name: int(state.get("NRestarts") or 0) for name, state in states.items()}
        while True:
            problem = self._first_problem(states)
            if not problem:
                if not self._is_young(states):
                    return
                before = states
                time.sleep(SETTLED)
                states = services.read_states(list(self._units))
                problem = self._first_problem(states) or self._unsteady(before, states)
                if not problem:
                    return
            name, reason = problem
            if name in self.result["reloaded"] and services.is_running(states[name]) and time.monotonic() > begun + RELOADED:
                self._restart_reloaded(name, reason)
                deadline = time.monotonic() + self._module.params["timeout"]
            restarts = int(states[name].get("NRestarts") or 0) - first[name]
            if states[name]["ActiveState"] in ("failed", "inactive") or restarts >= MOST_RESTARTS or time.monotonic() > deadline:
                # What is missing between two restarts is a consequence of them.
                loop = f"{name} does not stay up: systemd has restarted it {restarts} times. Last finding: " if restarts else ""
                self._fail(name, loop + reason)
            time.sleep(0.2)
            states = services.read_states(list(self._units))

    def _restart_reloaded(self, name: str, reason: str) -> None:
        """Restart a unit that does not listen where it should after a reload."""
        self.actions[name] = "restart", reason
        self.result["reloaded"].remove(name)
        self.result["restarted"].append(name)
        try:
            services.systemctl("restart", "--", name)
        except services.ServiceError as error:
            self._fail(name, f"{error}")

    def _is_young(self, states: dict[str, dict]) -> bool:
        """Return whether a service has just started, by this call or because it is in a restart loop."""
        now = time.time()
        return any(
            name.endswith(".service")
            and (name in self.actions or (int(state.get("NRestarts") or 0) > 0 and now - (services.active_since(state) or 0) < 5))
            for name, state in states.items()
        )

    def _first_problem(self, states: dict[str, dict]) -> tuple[str, str] | None:
        for name, state in states.items():
            if not services.is_running(state):
                return name, f"{name} does not stay up: it is {state['ActiveState']} ({state['SubState']})"
        if not any(unit["sockets"] for unit in self._units.values()):
            return None
        sockets = read_sockets()
        for name, unit in self._units.items():
            missing = services.missing_sockets(name, unit["sockets"], sockets, [])
            if missing and sockets:
                missing = services.missing_sockets(name, unit["sockets"], sockets, services.processes_of(name))
            if missing:
                return name, f"{name} does not listen on {' and '.join(missing)}{self._held_by(name, unit, sockets)}"
        return None

    @staticmethod
    def _held_by(name: str, unit: dict, sockets: list) -> str:
        wanted = {(item["protocol"], item["port"]) for item in unit["sockets"]}
        others = [
            item for item in sockets if wanted & {(item.protocol, item.port), ("any", item.port)} and name not in item.group.split("/")
        ]
        return "".join(f"; {other.owner} holds {other.local} ({other.protocol})" for other in others)

    @staticmethod
    def _unsteady(before: dict[str, dict], after: dict[str, dict]) -> tuple[str, str] | None:
        for name, state in after.items():
            if [state.get(key) for key in ("MainPID", "NRestarts")] != [before[name].get(key) for key in ("MainPID", "NRestarts")]:
                return name, f"{name} does not stay up: it was restarted by systemd"
        return None

    def _fail(self, name: str, reason: str) -> None:
        self._module.fail_json(msg=f"{reason}. The last lines of its journal:\n{services.last_lines(name)}", unit=name)


def shown_diff(actions: dict[str, tuple[str, str]], result: dict[str, list]) -> dict[str, str]:
    """Return what ``--diff`` shows."""
    after = [f"{name}: {PAST[action]}, because {reason}\n" for name, (action, reason) in actions.items()]
    after += [f"{name}: {key}\n" for key in ("enabled", "stopped", "disabled") for name in result[key]]
    after += [f"process {pid}: ended\n" for pid in result["ended_processes"]]
    return {"before": "", "after": "".join(after), "before_header": "units", "after_header": "units"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "default": [], "options": UNIT_SPEC},
            "unwanted": {"type": "list", "elements": "str", "default": []},
            "unwanted_processes": {"type": "list", "elements": "int", "default": []},
            "unwanted_programs": {"type": "list", "elements": "str", "default": []},
            "changed_paths": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    current = Services(module)
    try:
        current.apply()
    except services.ServiceError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=any(current.result.values()),
        reasons={name: reason for name, (_action, reason) in current.actions.items()},
        diff=shown_diff(current.actions, current.result),
        **current.result,
    )


if __name__ == "__main__":
    main()
