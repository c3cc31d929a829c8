# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The certificates of Apache's sites, and of TLS between hosts. This file is private to the collection.

Source of the format: openssl-x509(1), ``-enddate``.
"""

from __future__ import annotations

import ssl
from typing import Iterable

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import (
    DAY,
    WEEKEND_DAYS,
    Limits,
    Report,
    counted,
    iso_time,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.apache import Configuration
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run

_OF_A_SITE = (
    "Apache does not start with it; replace it.",
    "Renew it, reload Apache, and see why the automatic renewal, such as certbot.timer, has not done so.",
)
_BETWEEN_HOSTS = (
    "No host takes or gets points over TLS with it; replace it, and run site.yml.",
    "Renew it, and run site.yml; if site.yml has made it, remove it and its key first.",
)


def check_certificates(report: Report, limits: Limits, directory: str | None, now: float, between_hosts: Iterable[str] = ()) -> None:
    """Report certificates of enabled sites, and at the paths ``between_hosts``, that have ended, will end soon, or cannot be read."""
    wanted = {path: (site, *_OF_A_SITE) for path, site in (Configuration(directory).certificates if directory else {}).items()}
    # A store shows its certificate to fronts as well.
    wanted.update(dict.fromkeys(between_hosts, ("TLS between hosts", *_BETWEEN_HOSTS)))
    for path, (user, replacement, remedy) in wanted.items():
        process = run(["openssl", "x509", "-noout", "-enddate", "-in", path])
        if process.returncode == 127:
            report.skip("certificate", "the command openssl, which reads certificates, is missing. Install the package openssl.")
            return
        where = f"The certificate {path} of {user}"
        if process.returncode != 0:
            reason = (process.stderr.strip().splitlines() or [""])[0]
            report.critical("certificate", None, "unreadable", f"{where} cannot be read: {reason}. {replacement}")
            continue
        ends = ssl.cert_time_to_seconds(process.stdout.partition("=")[2].strip())
        days = (ends - now) / DAY
        if days < 0:
            report.critical("certificate", ends, round(days, 1), f"{where} has ended at {iso_time(ends)}. {remedy}")
        elif days < limits.certificate_days:
            add = report.critical if days < WEEKEND_DAYS else report.warn
            add("certificate", None, round(days, 1), f"{where} ends in {counted(days, 'day')}, at {iso_time(ends)}. {remedy}")
