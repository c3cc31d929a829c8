#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: whisper_retention
short_description: Apply storage rules to existing whisper files
version_added: 1.0.0
description:
  - Carbon applies its storage rules only when it creates a file. This module rewrites existing files according to the first
    rule that matches, as carbon reads the rules, while carbon continues to write.
  - Each file is replaced by one with the same points at the best resolution available, the same owner, group, mode, time
    and sparseness. A point of a finer archive is aggregated where only a coarser one covers its time; a point of a coarser
    archive stands at the beginning of its interval in a finer one. Points that arrive meanwhile are carried over.
  - A change of xFilesFactor or aggregation method alone is written to the file as it is; it applies to points to come.
  - The files are read and written with the C(whisper) library, in parallel. A run that was interrupted leaves every file
    whole, either as it was or as it should be, and the next one goes on.
author:
  - metricstack maintainers (@metricstack)
extends_documentation_fragment:
  - metricstack.graphite.whisper_tree
options:
  conf_directory:
    description:
      - Where C(storage-schemas.conf) and C(storage-aggregation.conf) are, for rules that are not given. Without the latter,
        files get what whisper has built in, an average of at least one half.
    type: path
    default: /etc/carbon
  storage_schemas:
    description:
      - The rules, instead of those of C(storage-schemas.conf); as the role C(carbon_cache) takes them.
    type: list
    elements: dict
    suboptions:
      name: &name
        description: Title of the rule in carbon's file, by which the result means it.
        type: str
        required: true
      pattern: &pattern
        description: Regular expression, searched for in the metric's name.
        type: str
        required: true
      retentions:
        description: Precision and duration of each archive, such as V(10s:6h,1min:6d,10min:1800d).
        type: str
        required: true
  storage_aggregations:
    description:
      - The rules, instead of those of C(storage-aggregation.conf); as the role C(carbon_cache) takes them.
    type: list
    elements: dict
    suboptions:
      name: *name
      pattern: *pattern
      xfilesfactor:
        description: Share of the finer points that must have a value, from 0 to 1; if left out, 0.5.
        type: float
      aggregation_method:
        description: What becomes of the finer points; if left out, V(average).
        type: str
        choices: [average, sum, last, max, min, avg_zero, absmax, absmin]
  set_aside_corrupt:
    description:
      - Whether a file that is no whisper file, such as one that a full disk has left empty, gets another name,
        C(NAME.wsp.corrupt-TIME), so that carbon creates it anew. Carbon cannot write to such a file, for ever.
    type: bool
    default: false
  processes:
    description:
      - How many processes share the work, at most V(64); V(0) is one for each core.
    type: int
    default: 0
  lock_timeout:
    description:
      - Seconds to wait for the end of another run of this module or of M(metricstack.graphite.whisper_prune) on the same
        directory.
    type: int
    default: 300
attributes:
  check_mode:
    description: Reports what differs, for each rule, and the room that the change needs; changes nothing.
    support: full
  diff_mode:
    description: Shows what the series of each rule have and what they will have.
    support: full
notes:
  - Run it as root, or as the user that the files belong to.
  - One file after the other is in memory, in each process, with some twenty times its size.
  - A file with the points of another one in its place needs room for the new ones beside the old ones, for about a second. The
    module does not start if the file system has too little, and ends without loss if it fills up meanwhile.
  - Progress goes to the host's system log every ten seconds.
  - Series that carbon creates during the minute in which it has not read new rules yet are seen by the next run.
"""

EXAMPLES = r"""
- name: List the series that differ from carbon's rules
  metricstack.graphite.whisper_retention:
  check_mode: true
  register: retention

- name: Rewrite the files according to the rules
  metricstack.graphite.whisper_retention:
    set_aside_corrupt: true
"""

RETURN = r"""
series:
  description: Number of series that were looked at.
  returned: success
  type: int
differing:
  description: Number of series whose archives are not those of their rule.
  returned: success
  type: int
relabelling:
  description: Number of series of which only xFilesFactor or aggregation method are not those of their rule.
  returned: success
  type: int
reshaped:
  description: Number of files that were replaced.
  returned: success
  type: int
relabelled:
  description: Number of files whose xFilesFactor or aggregation method was changed.
  returned: success
  type: int
set_aside:
  description: Number of corrupt files that were renamed.
  returned: success
  type: int
carried_over:
  description: Number of points that arrived in a file while it was being replaced and were written to its successor.
  returned: success
  type: int
rules:
  description: What was found, for each rule that has series; C((none)) stands for carbon's own default.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Title of the rule in carbon's file, by which the result means it.
      type: str
    series:
      description: Number of its series.
      type: int
    differing:
      description: Number of those whose archives differ.
      type: int
    relabelling:
      description: Number of those whose xFilesFactor or aggregation method alone differ.
      type: int
    bytes:
      description: Size of its files.
      type: int
    bytes_after:
      description: Size of its files once they follow the rule.
      type: int
    found:
      description: The retentions of those that differ, the ten most frequent, and how many have them.
      type: dict
bytes_needed:
  description: Room that the change needs on the file system, in bytes; with several file systems, on the one with least to spare.
  returned: success
  type: int
bytes_available:
  description: Room that this file system has, in bytes.
  returned: success
  type: int
corrupt:
  description: Number of files that are no whisper files.
  returned: success
  type: int
corrupt_files:
  description: The first hundred of them.
  returned: success
  type: list
  elements: dict
  contains: &named
    path:
      description: Path in the tree.
      type: str
    reason:
      description: What is wrong with it.
      type: str
links:
  description: Number of symbolic links in the tree, which are not followed.
  returned: success
  type: int
unnamed:
  description: Number of files that were skipped because their name is a hash, from which the name of the metric cannot be derived.
  returned: success
  type: int
vanished:
  description: Number of files that went away during the run.
  returned: success
  type: int
in_creation:
  description: Number of files that were left alone because they are less than a minute old and not whole yet.
  returned: success
  type: int
unreadable:
  description: Number of files and directories that could not be read, or whose name is too long to be given a second one.
  returned: success
  type: int
unreadable_files:
  description: The first hundred of them.
  returned: success
  type: list
  elements: dict
  contains: *named
recovered:
  description: Number of files that an interrupted run had begun with and this one has finished; in check mode, would finish.
  returned: success
  type: int
failures:
  description: The first hundred files that could not be rewritten according to the rules.
  returned: failure, if there are such files
  type: list
  elements: dict
  contains: *named
"""

import contextlib
import os
import time
import traceback
import zlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import (
    AGGREGATION_METHODS,
    StorageRules,
    StorageRulesError,
    read_aggregations,
    read_schemas,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.interpreter import require_library
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import WHISPER_ERROR
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.parallel import (
    StoppedError,
    Worker,
    WorkerError,
    in_parallel,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.retention import (
    PENDING_BYTES,
    NoRoomError,
    Report,
    Reshaper,
    Surveyor,
    Work,
    series_path,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import (
    TREE_ARGUMENT_SPEC,
    Entry,
    LeaseError,
    TreeBusyError,
    locked,
    open_tree,
    walk,
)


class Retention:
    """One run of the module."""

    def __init__(self, module: AnsibleModule, rules: StorageRules, top: int) -> None:
        parameters = module.params
        self._module = module
        self._top = top
        self._processes = parameters["processes"] or len(os.sched_getaffinity(0))
        set_aside = time.strftime(".corrupt-%Y%m%dT%H%M%S") if parameters["set_aside_corrupt"] else None
        self._work = Work(rules, parameters["carbon_stopped"], set_aside)

    def survey(self) -> Report:
        """Return a report of the current state."""

        def work(worker: Worker) -> dict:
            report = Report()
            surveyor = Surveyor(self._work, report)
            for entry in self._share(worker, report):
                surveyor.survey(entry)
                worker.count()
            return report.as_data()

        return self._sum(in_parallel(self._processes, work, lambda done: self._module.log(f"looked at {done} names")))

    def rewrite(self, found: Report) -> tuple[Report, list[str]]:
        """Rewrite the tree according to the rules; return a report, and the reasons for giving up, if any."""

        # What frees room comes first.
        passes = (False, True) if found.counts["growing"] else (False,)

        def work(worker: Worker) -> dict:
            report = Report()
            reshaper = Reshaper(self._work, report)
            reason = None
            try:
                for growing in passes:
                    for entry in self._share(worker, report):
                        reshaper.rewrite(entry, growing)
                        worker.count()
            except StoppedError:
                pass
            except (NoRoomError, LeaseError) as error:
                reason = str(error)
            try:
                reshaper.settle()
            except NoRoomError as error:
                reason = str(error)
            if reason:
                worker.stop_all()
            return {**report.as_data(), "reason": reason}

        total = found.counts["names"] * len(passes)
        answers = in_parallel(self._processes, work, lambda done: self._module.log(f"{done} of {total} names done"))
        return self._sum(answers), sorted({answer["reason"] for answer in answers if answer["reason"]})

    def room(self, report: Report) -> tuple[int, int]:
        """Return the room that the change needs and the room that there is, where the latter is scarcest."""
        rooms = []
        for device in report.devices.values():
            # What is replaced stays for a second beside what replaces it.
            meanwhile = min(device["new"], self._processes * (PENDING_BYTES + device["largest"]))
            rooms.append((max(device["growth"], 0) + meanwhile, device["available"]))
        top = os.fstatvfs(self._top)
        return max(rooms, key=lambda room: room[0] - room[1], default=(0, top.f_bavail * top.f_frsize))

    def _share(self, worker: Worker, report: Report):
        def unreadable(directory: Entry) -> None:
            if worker.index == 0:
                report.name("unreadable", directory.path, "a directory that cannot be read, or that is too deep")

        for entry in walk(self._top, unreadable=unreadable):
            if zlib.crc32(os.fsencode(series_path(entry))) % worker.processes == worker.index:
                yield entry

    def _sum(self, answers: list[dict]) -> Report:
        report = Report()
        for answer in answers:
            report.add(answer)
        return report


def load_rules(module: AnsibleModule) -> StorageRules:
    """Return the rules that the parameters or carbon's files give; fail with the file's name and the reason."""

    def given(parameter: str, name: str, read, required: bool) -> list[dict]:
        if module.params[parameter] is not None:
            return module.params[parameter]
        path = os.path.join(module.params["conf_directory"], name)
        if not required and not os.path.exists(path):
            return []
        try:
            with open(path, encoding="utf-8") as stream:
                return read(stream.read())
        except (OSError, UnicodeDecodeError, StorageRulesError) as error:
            return module.fail_json(msg=f"{path} cannot be read as carbon's storage rules: {error}. Nothing was changed.")

    schemas = given("storage_schemas", "storage-schemas.conf", read_schemas, required=True)
    aggregations = given("storage_aggregations", "storage-aggregation.conf", read_aggregations, required=False)
    try:
        return StorageRules(schemas, aggregations)
    except StorageRulesError as error:
        return module.fail_json(msg=f"The storage rules are not those of a carbon that starts. Nothing was changed.\n{error}")


def as_result(found: Report) -> dict:
    """Return what was found as the module's result."""
    return {
        "series": sum(rule["series"] for rule in found.rules.values()),
        "differing": sum(rule["reshape"] for rule in found.rules.values()),
        "relabelling": sum(rule["relabel"] for rule in found.rules.values()),
        "reshaped": 0,
        "carried_over": 0,
        "rules": [
            {
                "name": name,
                "series": rule["series"],
                "differing": rule["reshape"],
                "relabelling": rule["relabel"],
                "bytes": rule["bytes"],
                "bytes_after": rule["bytes_after"],
                "found": dict(found.found[name].most_common(10)) if name in found.found else {},
            }
            for name, rule in sorted(found.rules.items())
        ],
        "relabelled": 0,
        "set_aside": 0,
        "corrupt_files": found.names.get("corrupt", []),
        "unreadable_files": found.names.get("unreadable", []),
        **{name: found.counts[name] for name in ("corrupt", "links", "unnamed", "vanished", "in_creation", "unreadable")},
        "recovered": found.counts["interrupted"],
    }


def as_diff(found: Report, rules: dict) -> dict:
    """Return what the series of each rule have and what they will have, as text."""
    before, after = [], []
    for name, shapes in sorted(found.found.items()):
        before += [f"{name}: {count} series {shape}\n" for shape, count in shapes.most_common(10)]
        after.append(f"{name}: {sum(shapes.values())} series {rules[name]}\n")
    for name, rule in sorted(found.rules.items()):
        if rule["relabel"]:
            before.append(f"{name}: {rule['relabel']} series with another aggregation\n")
            after.append(f"{name}: {rule['relabel']} series with the rules' aggregation\n")
    return {"before": "".join(before), "after": "".join(after)}


def main() -> None:
    rule_spec = {"name": {"type": "str", "required": True}, "pattern": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            **TREE_ARGUMENT_SPEC,
            "conf_directory": {"type": "path", "default": "/etc/carbon"},
            "storage_schemas": {
                "type": "list",
                "elements": "dict",
                "options": {**rule_spec, "retentions": {"type": "str", "required": True}},
            },
            "storage_aggregations": {
                "type": "list",
                "elements": "dict",
                "options": {
                    **rule_spec,
                    "xfilesfactor": {"type": "float"},
                    "aggregation_method": {"type": "str", "choices": list(AGGREGATION_METHODS)},
                },
            },
            "set_aside_corrupt": {"type": "bool", "default": False},
            "processes": {"type": "int", "default": 0},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    require_library(module, "whisper", WHISPER_ERROR)
    if not 0 <= module.params["processes"] <= 64:
        module.fail_json(msg=f"processes is {module.params['processes']}; give a number from 1 to 64, or 0 for one for each core.")
    rules = load_rules(module)
    directory = module.params["directory"]
    try:
        top = open_tree(directory)
        with contextlib.nullcontext() if module.check_mode else locked(top, module.params["lock_timeout"]):
            run(module, rules, top)
    except TreeBusyError:
        module.fail_json(msg=f"Another run is at work on {directory}; wait for its end.")
    except (OSError, WorkerError) as error:
        module.fail_json(msg=f"{directory}: {error}", exception=traceback.format_exc())


def run(module: AnsibleModule, rules: StorageRules, top: int) -> None:
    """Do what the module is for, and end it."""
    retention = Retention(module, rules, top)
    found = retention.survey()
    needed, available = retention.room(found)
    result = {**as_result(found), "bytes_needed": needed, "bytes_available": available, "diff": as_diff(found, rules.retentions)}
    todo = result["differing"] + result["relabelling"] + found.counts["interrupted"]
    todo += found.counts["corrupt"] if module.params["set_aside_corrupt"] else 0
    if needed > available:
        text = f"The change needs {needed} bytes, and the file system has {available}. Make room, or let the rules keep less."
        if not module.check_mode:
            module.fail_json(msg=f"{text} Nothing was changed.", **result)
        module.warn(text)
    if module.check_mode or not todo:
        module.exit_json(changed=todo > 0, **result)
    done, reasons = retention.rewrite(found)
    result.update({name: done.counts[name] for name in ("reshaped", "relabelled", "recovered", "carried_over", "set_aside")})
    failures = done.names.get("failed", []) + done.names.get("unsettled", [])
    changed = any(done.counts[name] for name in ("reshaped", "relabelled", "recovered", "set_aside"))
    if reasons:
        advice = "Make room and run again: it goes on where this one ended."
        if any("lease" in reason for reason in reasons):
            advice = "Stop carbon and set carbon_stopped."
        module.fail_json(
            msg=f"Ended after {done.counts['reshaped']} of {result['differing']} files: {', '.join(reasons)}. Nothing is lost. {advice}",
            failures=failures,
            **{**result, "changed": changed},
        )
    if failures:
        count = done.counts["failed"] + done.counts["unsettled"]
        module.fail_json(
            msg=f"{count} files could not be rewritten according to the rules, {failures[0]['path']} because of: {failures[0]['reason']}.",
            failures=failures,
            **{**result, "changed": changed},
        )
    module.exit_json(changed=changed, **result)


if __name__ == "__main__":
    main()
