# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Events of graphite-web: marks in time that graphs can show.

Source of the format: ``events/views.py`` and ``events/models.py`` of graphite-web 1.1.8 and 1.1.10, and ``tagging`` below
them. An event is a dict with ``what``, ``tags`` (a list), ``data`` and ``when`` (Unix time). This file is private to the
collection.
"""

from __future__ import annotations

from urllib.parse import urlencode

# Columns of graphite-web's database; some engines cut off, others fail.
_LONGEST_TEXT = 255
_LONGEST_TAG = 50
# A time before it has eight digits and is read as YYYYMMDD; one after it is in milliseconds.
_EARLIEST, _LATEST = 10**8, 10**10


def event_problems(event: dict, within: int) -> list[str]:
    """Return one sentence for each mistake in an event that is wanted, and in the window that it is looked for in."""
    problems = []
    if not 0 < len(event["what"]) <= _LONGEST_TEXT:
        problems.append(
            f"what is {event['what'][:60]!r}, {len(event['what'])} characters; give 1 to {_LONGEST_TEXT}, and the rest in data."
        )
    for tag in event["tags"]:
        if not 0 < len(tag) <= _LONGEST_TAG or any(character.isspace() or character in ',"' for character in tag):
            problems.append(
                f"tags has {tag!r}; give each tag as an item of its own, of up to {_LONGEST_TAG} characters, without space, comma or"
                " double quote."
            )
    if len(" ".join(event["tags"])) > _LONGEST_TEXT:
        problems.append(f"tags has {len(' '.join(event['tags']))} characters; graphite-web keeps {_LONGEST_TEXT} of an event.")
    if not _EARLIEST <= event["when"] < _LATEST:
        problems.append(f"when is {event['when']}; give a Unix time in seconds.")
    if within < 0:
        problems.append(f"within is {within}; give a number of seconds, or 0.")
    return problems


def events_query(event: dict, within: int) -> str:
    """Return the query string that finds ``event`` if it is there, at its time or up to ``within`` seconds before."""
    query = {"from": max(event["when"] - within, _EARLIEST), "until": event["when"]}
    if event["tags"]:
        query["tags"] = " ".join(event["tags"])
    return urlencode(query)


def newest_like(answer: object, event: dict) -> dict | None:
    """Return the newest event of a decoded answer that says what ``event`` says, or ``None``.

    graphite-web leaves tags that it has never seen out of the query, so that its answer can hold others. Raises
    ``ValueError`` if the answer is not a list of events.
    """
    if not isinstance(answer, list) or not all(isinstance(one, dict) and {"what", "tags", "data", "when"} <= one.keys() for one in answer):
        raise ValueError("the answer is JSON, but not a list of events")
    alike = [one for one in answer if _meaning(one) == _meaning(event)]
    return max(alike, key=lambda one: one["when"]) if alike else None


def _meaning(event: dict) -> tuple:
    return event["what"], sorted(set(event["tags"])), event["data"]
