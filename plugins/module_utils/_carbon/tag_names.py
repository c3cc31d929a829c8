# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Names of the series with tags that graphite-web knows, by the hashes that carbon names their files by.

A file's hash cannot be turned back, but graphite-web's database of tags has every name that carbon has told it. Source of the answers:
``tagList``, ``tagDetails`` and ``findSeries`` of ``webapp/graphite/tags/views.py``, graphite-web 1.1.10. This file is private to the
collection.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

# Every series has this tag.
_NAME_TAG = "name"


class TagNamesError(Exception):
    """graphite-web does not tell the names; the message says why."""


class TagNames:
    """Names by hashes, in a file, so that memory does not grow with their number."""

    def __init__(self, path: str) -> None:
        self._path = path

    def learn(self, url: str, authority: str | None = None, timeout: float = 60.0) -> int:
        """Read all names from graphite-web at ``url``, whose certificate is trusted by the file ``authority``, or by the system.

        Returns how many there are. Raises ``TagNamesError``.
        """
        connection = self._open()
        count = 0
        try:
            with connection:
                connection.execute("DELETE FROM names")
                for name in _names(url, authority, timeout):
                    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
                    connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (digest, json.dumps(name)))
                    count += 1
        finally:
            connection.close()
        return count

    def finder(self):
        """Return a function that returns the name of a hash, or ``None``. It belongs to the process that it is made in."""
        connection = self._open()

        def find(digest: str) -> str | None:
            row = connection.execute("SELECT name FROM names WHERE digest = ?", (digest,)).fetchone()
            return json.loads(row[0]) if row else None

        return find

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=60)
        connection.execute("CREATE TABLE IF NOT EXISTS names (digest TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID")
        return connection


def _names(url: str, authority: str | None, timeout: float) -> Iterator[str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *_https(url, authority))
    details = _get(opener, f"{url}/tags/{_NAME_TAG}", timeout)
    values = [item["value"] for item in (details or {}).get("values", [])]
    # One value at a time, so that no answer has all series.
    for value in values:
        expression = urllib.parse.quote(f"{_NAME_TAG}={value}", safe="")
        yield from _get(opener, f"{url}/tags/findSeries?expr={expression}", timeout) or []


def _https(url: str, authority: str | None) -> list[urllib.request.BaseHandler]:
    if not url.startswith("https:"):
        return []
    try:
        return [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authority))]
    except OSError as error:
        raise TagNamesError(f"{authority or 'the certificates of the system'} cannot be read: {error}") from error


def _get(opener: urllib.request.OpenerDirector, url: str, timeout: float):
    try:
        with opener.open(url, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None  # no series has a tag
        raise TagNamesError(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise TagNamesError(f"{url}: {error}") from error
