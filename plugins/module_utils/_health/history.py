# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What carbon has stored of single series, and what its caches have not written yet. This file is private to the collection."""

from __future__ import annotations

import os

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.link import CarbonLink, CarbonLinkError
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import NotWhisperError, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.points import read_points
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import SUFFIX, LeaseError, open_series


class History:
    """The series of one host."""

    def __init__(self, top: int, links: list[CarbonLink], now: int) -> None:
        self._top = top
        self._links = list(links)  # those that answer
        self._now = now

    def names_below(self, node: str) -> list[str]:
        """Return the names of the nodes below a node, such as those of the relays below ``carbon.relays``."""
        try:
            descriptor = os.open(node.replace(".", "/"), os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._top)
        except OSError:
            return []
        try:
            return sorted(entry.name for entry in os.scandir(descriptor) if entry.is_dir())
        finally:
            os.close(descriptor)

    def points(self, metric: str, begin: int) -> list[tuple[int, float]]:
        """Return the points of a series since ``begin``, oldest first; none if there is no such series, or none that can be read."""
        try:
            descriptor = open_series(self._top, metric.replace(".", "/") + SUFFIX)
        except (OSError, LeaseError):
            return []
        try:
            header = read_header(descriptor)
            found = dict(read_points(descriptor, header, begin, self._now))
        except (OSError, NotWhisperError):
            return []
        finally:
            os.close(descriptor)
        step = header.archives[0].seconds_per_point
        for link in list(self._links):
            try:
                cached = link.cached([metric]).get(metric, [])
            except CarbonLinkError:
                self._links.remove(link)  # the finding unit_down tells why
                continue
            found.update({when - when % step: value for when, value in cached if begin <= when <= self._now})
        return sorted(found.items())
