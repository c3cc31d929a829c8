# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The result of graphite_health_info in words. This file is private to the collection."""

from __future__ import annotations

from collections.abc import Mapping

# The severities that make a host fail.
_FAILING = {"critical": ("critical",), "warning": ("critical", "warning")}


def health_verdict(answer: Mapping, host: str, fail_on: str = "critical") -> list[dict]:
    """Return a ``line`` for each finding, or one for a healthy host, each with ``is_failure``: whether the finding makes the host fail.

    ``answer`` is what graphite_health_info has returned, or the error with which it or the connection has failed.
    """
    findings = answer.get("findings")
    if findings is None:
        findings = [_unexamined(answer)]
    verdict = [{"line": _line(host, finding), "is_failure": finding["severity"] in _FAILING[fail_on]} for finding in findings]
    skipped = [f"{host}: NOT EXAMINED {skipped['check']}: {skipped['reason']}" for skipped in answer.get("unexamined", [])]
    return (verdict or [{"line": _healthy(host, answer), "is_failure": False}]) + [{"line": line, "is_failure": False} for line in skipped]


def _line(host: str, finding: Mapping) -> str:
    since = f" since {finding['since']}" if finding["since"] else ""
    return f"{host}: {finding['severity'].upper()} {finding['check']}{since}: {finding['message']}"


def _healthy(host: str, answer: Mapping) -> str:
    series = answer.get("series")
    return f"{host}: OK, no sign of loss" + ("" if series is None else f", {series} series")


def _unexamined(answer: Mapping) -> dict:
    # What a module or a connection has printed before it ended says more than that it has no result.
    printed = str(answer.get("module_stderr") or "").strip().splitlines()
    reason = " ".join([*str(answer.get("msg") or "no answer").split(), *(["-", printed[-1].strip()] if printed else [])])
    if answer.get("unreachable"):
        check, remedy = "unreachable", "Look whether the host runs, and whether ansible -m ping reaches it."
    else:
        check, remedy = "unexamined", "Run doctor.yml with -vvv for the whole error."
    return {"check": check, "severity": "critical", "since": None, "message": f"{reason.rstrip('.')}. {remedy}"}
