#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: whisper_rebalance
short_description: Move whisper files to the stores that are their homes
version_added: 2.1.0
description:
  - Does one phase of C(rebalance.yml) on one store. A store is a host of carbon; the homes of a series are the stores to which
    the relays send it, and carbon-c-relay itself is asked for them.
  - A pass has the phases V(scan), V(plan), V(pull) and V(remove), each on all stores before the next. V(serve) comes before the first
    pass and V(end) after the last one.
  - Files travel through rsync. Each is merged into the file of the series under a lease, while carbon continues to write; where both have
    a value for the same time, that of the home stays. A copy on a store that is no home is removed once all homes have recorded that
    they merged exactly this state of the file.
  - A run that was interrupted at any moment loses nothing, and the next one goes on; what it finds at work, it ends first.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.carbon_ring
options:
  phase:
    description:
      - V(serve) starts an rsync daemon, which gives the tree and the lists of this store to the other stores, read-only, in the transient
        unit C(graphite-rebalance.service).
      - V(scan) finds the series that have other homes and, with O(until), compares the times of the points of shared series.
      - V(plan) fetches the lists that the other stores have written for this one, and fails if the disk is too small for them.
      - V(pull) copies and merges what is planned.
      - V(remove) removes the copies that all of their homes have merged.
      - V(end) stops the daemon and removes everything but the record of what was merged.
    type: str
    choices: [serve, scan, plan, pull, remove, end]
    required: true
  directory:
    description: Top of the tree whose whisper files are listed, copied to, merged and removed.
    type: path
    default: /var/lib/graphite/whisper
  pass_id:
    description: Name of the pass, the same on all stores; needed for V(scan), V(plan), V(pull) and V(remove).
    type: str
  until:
    description:
      - Time in seconds since 1970. With it, series that this store shares with other homes are compared, and each gets the points before
        this time that only the other has. Without it, only series with other homes move.
    type: int
  own_prefixes:
    description: >-
      What the names of the series begin with that each store writes about itself, past the ring. They stay where they are; the other
      stores get them from a store that leaves.
    type: list
    elements: str
    default: [carbon.agents.]
  tags_url:
    description: >-
      Address of graphite-web, which knows the names of series with tags, for V(scan). Carbon names their files by a hash. A file of
      which the name is unknown stays where it is; from a store that leaves, it goes to all others.
    type: str
    default: ''
  tags_authority:
    description: Path of the certificates by which O(tags_url) is trusted, if it has C(https://). If left out, those of the system.
    type: path
  password:
    description: With which the daemons of all stores are asked; needed for V(serve), V(plan), V(pull) and V(remove).
    type: str
  port:
    description: TCP port on which the stores serve their files to each other by rsync.
    type: int
    default: 8730
  bandwidth:
    description: How much this store receives at most, in KiB/s; V(0) is no limit.
    type: int
    default: 0
  processes:
    description: How many processes share the work; V(0) is one for each core.
    type: int
    default: 0
  serve_seconds:
    description: Seconds after which the daemon of V(serve) ends by itself.
    type: int
    default: 604800
  state_directory:
    description: Where lists and the record of what was merged are.
    type: path
    default: /var/lib/graphite-rebalance
  run_directory:
    description: Where the module tells how far it is.
    type: path
    default: /run/graphite-rebalance
  relay:
    description: Path of the program carbon-c-relay, which is asked for the homes of series.
    type: path
    default: /usr/bin/carbon-c-relay
attributes:
  check_mode:
    description: V(scan) looks, and writes no lists. The other phases do nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
notes:
  - Run it as root.
  - Phases that take long are for C(async). M(metricstack.graphite.whisper_rebalance_info) tells how far they are.
requirements:
  - whisper (Python library, package python3-whisper), for the host's Python or in C(/opt/graphite/venv)
  - carbon-c-relay
  - rsync 3.1.3 or later
seealso:
  - module: metricstack.graphite.carbon_ring_info
"""

EXAMPLES = r"""
- name: Count the series that have other homes
  metricstack.graphite.whisper_rebalance:
    phase: scan
    store: a
    cluster: "{{ stack.cluster }}"
    pass_id: look
  check_mode: true
  register: scan

- name: Remove the copies that are at home elsewhere
  metricstack.graphite.whisper_rebalance:
    phase: remove
    store: a
    cluster: "{{ stack.cluster }}"
    pass_id: "{{ pass_id }}"
    password: "{{ password }}"
"""

RETURN = r"""
counts:
  description: >-
    Figures of V(scan): C(series), and of them C(home), C(stray) and C(own), which the store writes about itself, C(unnamed), C(shared),
    which are compared with other homes, C(unreadable); C(strays) that are to go, with C(stray_bytes), and C(unsettled), which are being
    written to.
  returned: success, for V(scan)
  type: dict
to:
  description: For each other store, how many C(series) it is to get and their C(bytes).
  returned: success, for V(scan)
  type: dict
  sample: {b: {bytes: 3145728, series: 1}}
unreadable:
  description: The first hundred files that could not be read, with C(path) and C(reason). They stay where they are.
  returned: success, for V(scan)
  type: list
  elements: dict
series:
  description: Number of files to copy.
  returned: success, for V(plan)
  type: int
needed:
  description: Bytes that the files need here.
  returned: success or failure, for V(plan)
  type: int
available:
  description: Bytes that are free.
  returned: success or failure, for V(plan)
  type: int
created:
  description: Number of series that are new here.
  returned: success, for V(pull)
  type: int
merged:
  description: Number of files that were merged into series that were here.
  returned: success, for V(pull)
  type: int
points:
  description: Number of points that these series have got.
  returned: success, for V(pull)
  type: int
failures:
  description: The first hundred files that could not be merged, with C(path) and C(reason).
  returned: success, for V(pull)
  type: list
  elements: dict
removed:
  description: Number of copies that were removed.
  returned: success, for V(remove)
  type: int
stayed:
  description: Number of copies that have changed since they were merged.
  returned: success, for V(remove)
  type: int
unconfirmed:
  description: Number of copies that not all homes have merged yet.
  returned: success, for V(remove)
  type: int
"""

import contextlib
import os
import traceback

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import RING_ARGUMENT_SPEC, Ring, RingError
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.tag_names import TagNames, TagNamesError
from ansible_collections.metricstack.graphite.plugins.module_utils._host.interpreter import require_library
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.pull import Pull, remove_staging
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.scan import Names, Scan, Survey
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.state import RUN_DIRECTORY, Progress, RebalanceError, State
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.strays import Strays
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.transfer import Link, Peer, Server, Transfer, stop_server
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import WHISPER_ERROR
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.parallel import WorkerError
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import TreeBusyError, locked, open_tree

AGAIN = "Nothing is lost; run rebalance.yml again, and it goes on where this run has ended."


class Rebalance:
    """One phase on one store."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._parameters = module.params
        self._ring = Ring.of(module.params["cluster"])
        stores = module.params["cluster"]["stores"]
        self._store = module.params["store"]
        self._peers = [Peer(store["name"], store["address"]) for store in stores if store["name"] != self._store]
        own = next((store["address"] for store in stores if store["name"] == self._store), "")
        self._link = Link(own, module.params["port"], module.params["password"] or "", module.params["bandwidth"])
        self._state = State(module.params["state_directory"])
        self._progress = Progress(module.params["phase"], module.params["run_directory"])
        self._processes = module.params["processes"] or len(os.sched_getaffinity(0))
        self._directory = module.params["directory"]
        # A store that has had no point yet has no tree.
        self._top = open_tree(self._directory)

    def run(self) -> dict:
        """Return the result of the phase."""
        phase = getattr(self, self._parameters["phase"])
        if self._module.check_mode:
            return self._scan(write=False) if self._parameters["phase"] == "scan" else {"changed": False}
        if self._parameters["phase"] == "serve":
            return self.serve()
        with self._state.locked():
            try:
                return phase()
            finally:
                self._progress.tell("", done=True)

    def serve(self) -> dict:
        with self._state.locked():
            self._state.renew("out")
        lists = self._state.path("out")
        Server(self._directory, lists, self._link, self._peers, self._parameters["serve_seconds"]).start()
        return {"changed": True}

    def scan(self) -> dict:
        # Neither a rewriting nor a pruning is at work meanwhile, for removals that were killed are finished here.
        with locked(self._top, timeout=600):
            return self._scan(write=True)

    def _scan(self, write: bool) -> dict:
        survey = Survey(self._ring, self._store, tuple(self._parameters["own_prefixes"]), self._parameters["relay"])
        names, missing = self._names()
        scan = Scan(self._top, survey, self._state, names)
        result = scan.run(self._processes, self._parameters["pass_id"], self._parameters["until"], write, self._progress.tell)
        for key in ("series", "home", "stray", "own", "unnamed", "shared", "strays", "stray_bytes", "unsettled", "unreadable", "recovered"):
            result["counts"].setdefault(key, 0)
        if result["counts"]["unnamed"] and missing:
            self._module.warn(f"{result['counts']['unnamed']} series with tags stay where they are, for their names are unknown: {missing}")
        return {"changed": result["counts"]["recovered"] > 0, **result}

    def _names(self):
        url = self._parameters["tags_url"]
        if not url or not os.path.isdir(os.path.join(self._directory, "_tagged")):
            return Names, "tags_url is not set"
        if self._module.check_mode:
            return Names, "check mode does not ask for them"
        self._state.make()
        table = TagNames(self._state.path("names.sqlite"))
        try:
            table.learn(url, self._parameters["tags_authority"])
        except TagNamesError as error:
            return Names, str(error)
        return lambda: Names(table.finder()), f"{url} does not have them"

    @property
    def _is_leaving(self) -> bool:
        return self._store not in self._ring.names

    def plan(self) -> dict:
        if self._is_leaving:
            return {"changed": False, "series": 0, "needed": 0, "available": 0}
        with self._pull() as pull:
            result = pull.plan(self._store, self._parameters["pass_id"], self._progress.tell)
        if result["needed"] > result["available"]:
            missing = result["needed"] - result["available"]
            self._module.fail_json(
                msg=f"{result['new']} series that are to come to {self._store} need {bytes_to_human(result['needed'])} in"
                f" {self._directory}, where {bytes_to_human(result['available'])} are free: {bytes_to_human(missing)} are missing. Nothing"
                " was copied. Make room, or add a store.",
                **result,
            )
        return {"changed": False, **result}

    def pull(self) -> dict:
        result: dict = {"failures": []}
        with contextlib.nullcontext() if self._is_leaving else self._pull() as pull:
            if pull is not None:
                result = pull.run(self._parameters["pass_id"], self._processes, self._parameters["until"], self._progress.tell)
        figures = {key: result.get(key, 0) for key in ("created", "merged", "points", "changing", "gone", "overwritten", "failed")}
        return {"changed": figures["created"] + figures["points"] > 0, "failures": result["failures"], **figures}

    @contextlib.contextmanager
    def _pull(self):
        pull = Pull(self._top, self._directory, self._state, self._peers, Transfer(self._link))
        try:
            yield pull
        finally:
            pull.close()

    def remove(self) -> dict:
        homes = [peer for peer in self._peers if peer.name in self._ring.names]
        strays = Strays(self._top, self._state, homes, Transfer(self._link))
        result = strays.run(self._store, self._parameters["pass_id"], self._processes, self._progress.tell)
        return {"changed": result["removed"] > 0, **{key: result.get(key, 0) for key in ("removed", "stayed", "vanished", "unconfirmed")}}

    def end(self) -> dict:
        was_there = stop_server()
        self._state.clear()
        remove_staging(self._directory)
        return {"changed": was_there}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["serve", "scan", "plan", "pull", "remove", "end"], "required": True},
            "directory": {"type": "path", "default": "/var/lib/graphite/whisper"},
            **RING_ARGUMENT_SPEC,
            "pass_id": {"type": "str", "no_log": False},
            "until": {"type": "int"},
            "own_prefixes": {"type": "list", "elements": "str", "default": ["carbon.agents."]},
            "tags_url": {"type": "str", "default": ""},
            "tags_authority": {"type": "path"},
            "password": {"type": "str", "no_log": True},
            "port": {"type": "int", "default": 8730},
            "bandwidth": {"type": "int", "default": 0},
            "processes": {"type": "int", "default": 0},
            "serve_seconds": {"type": "int", "default": 604800},
            "state_directory": {"type": "path", "default": "/var/lib/graphite-rebalance"},
            "run_directory": {"type": "path", "default": RUN_DIRECTORY},
            "relay": {"type": "path", "default": "/usr/bin/carbon-c-relay"},
        },
        required_if=[
            ("phase", "serve", ["password"]),
            ("phase", "scan", ["pass_id"]),
            *(("phase", phase, ["pass_id", "password"]) for phase in ("plan", "pull", "remove")),
        ],
        supports_check_mode=True,
    )
    require_library(module, "whisper", WHISPER_ERROR)
    try:
        result = Rebalance(module).run()
    except TreeBusyError:
        module.fail_json(msg=f"Another run is at work on {module.params['directory']}; wait for its end.")
    except (RebalanceError, RingError) as error:
        module.fail_json(msg=f"{error}. {AGAIN}")
    except (OSError, WorkerError) as error:
        module.fail_json(msg=f"{module.params['directory']}: {error}. {AGAIN}", exception=traceback.format_exc())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
