# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The names of plays, blocks and tasks are imperatives with an object: in a log, a name is all that one sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for pattern in ("roles/*/tasks/**/*.yml", "roles/*/handlers/*.yml", "playbooks/**/*.yml", "molecule/**/*.yml")
    for path in ROOT.glob(pattern)
    if "vars" not in path.parts and "inventory" not in path.parts
)
# The latter four may stand before a noun ("this host"), and not before the end of a part of the sentence or a word that is none.
PRONOUN = re.compile(
    r"\b(?:it|itself|they|them|themselves|what|whatever|everything)\b"
    r"|\b(?:this|that|these|those)"
    r"(?=$|[,.;:]| (?:is|are|was|were|be|has|had|have|may|can|could|will|would|and|or|to|by|from|in|on|of|for|with|that|which|who)\b)",
    re.IGNORECASE,
)
# "that" after its noun is a relative clause, and has an object: "Remove packages that no role needs".
RELATIVE = re.compile(r"\b(\w+) that (?:is|are|was|were|has|had|have|may|can|could|will|would)\b")
DETERMINERS = {"see", "say", "tell", "check", "know", "ensure", "find", "show", "assert", "verify", "whether", "and", "or", "of", "to"}
# Verbs of the project's names. A new one is added here, so that a name that begins with something else is noticed.
VERBS = frozenset(
    re.findall(
        r"\w+",
        """
    Accept Activate Add Adjust Adopt Allow Answer Append Apply Archive Ask Assert Assign Await Back Begin Benchmark Bind Boot
    Bootstrap Break Build Cache Calculate Cancel Change Check Choose Clean Clear Clone Close Collect Combine Commit Compare Compile
    Compress Compute Configure Connect Convert Copy Count Create Deactivate Decide Define Delete Deploy Describe Detect Determine
    Disable Display Download Drain Draw Drop Edit Empty Enable Encrypt End Ensure Examine Exclude Execute Expire Export Extract Fail
    Fence Fetch Fill Find Finish Follow Force Forget Format Gather Generate Get Give Grant Group Hand Identify Ignore Import
    Include Increase Index Infer Initialize Insert Inspect Install Keep Kill Learn Leave Limit Link List Load Lock Log Look Make
    Map Mark Mask Measure Mention Merge Migrate Mirror Mount Move Name Note Obtain Open Optimize Order Own Pack Parse Pass Pause
    Pin Ping Plan Plot Poll Populate Post Prepare Print Probe Prove Provide Prune Publish Pull Purge Push Put Query Reach Read
    Rebalance Reboot Rebuild Receive Recognise Recognize Record Reduce Refresh Refuse Register Reject Reload Remember Remove
    Rename Render Repair Replace Report Request Require Reserve Reset Reshape Resolve Restart Restore Resume Retrieve Retry
    Return Revert Revoke Roll Rotate Run Sample Save Say Scale Scan See Select Send Serve Set Show Sign Simulate Sort Split
    Stage Start Stop Store Strip Survey Suspend Switch Sync Synchronize Take Tell Terminate Test Transfer Trust Try Tune Turn
    Unlink Unload Unlock Unmask Unmount Unpack Update Upgrade Upload Use Validate Verify View Wait Warn Watch Wipe Write
    """,
    )
)


class Loader(yaml.SafeLoader):
    """Knows Ansible's tags."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def named(node: object):
    """Give the names of plays, blocks and tasks; the keyword stands beside a play's hosts or beside an action."""
    if isinstance(node, list):
        for item in node:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                yield item["name"]
            yield from named(item)
    elif isinstance(node, dict):
        for keyword in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from named(node.get(keyword))


def problem(name: str) -> str:
    if not name.startswith("{{") and re.match(r"\w*", name)[0] not in VERBS:
        return "does not begin with an imperative in upper case (VERBS of this file has those that are known)"
    text = RELATIVE.sub(lambda match: match[0] if match[1].lower() in DETERMINERS else f"{match[1]} which", name)
    found = PRONOUN.search(re.sub(r"\{\{.*?\}\}", "X", text))
    return f"leans on '{found[0]}'; name the object" if found else ""


@pytest.mark.parametrize(
    "name",
    [
        "Remove them",
        "See whether that was all",
        "Let it be found",
        "Say what would take the data",
        "Make sure of that",
        "Tell that it is there",
        "Remember what cures it, for the role's way out",
        "Carbon's variables",
        "install carbon",
        "For carbon",
        "Name those that are there",
        "Validate everything",
    ],
)
def test_riddles_are_refused(name):
    assert problem(name)


@pytest.mark.parametrize(
    "name",
    [
        "Install carbon",
        "Restart carbon-cache instances that are older than their configuration",
        "Remove packages that no role needs",
        "Read the port that StatsD listens on",
        "Stop units that were started by hand",
        "Start {{ item.name }} on this host",
    ],
)
def test_plain_names_are_not_refused(name):
    assert problem(name) == ""


def test_every_task_is_named_in_plain_english():
    offenders = []
    for path in FILES:
        for name in named(yaml.load(path.read_text(), Loader)):
            if problem(name):
                offenders.append(f"{path.relative_to(ROOT)}: {name!r} {problem(name)}")
    assert offenders == [], "\n" + "\n".join(offenders)
