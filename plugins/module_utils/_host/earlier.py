# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""An installation of Graphite in the layout of its source, such as ``/opt/graphite``. This file is private to the collection.

Source of the layout: ``setup.py``, ``setup.cfg`` and ``webapp/graphite/settings.py`` of graphite-web 0.9.15 to 1.1.10 and carbon 1.1.10.
pip, synthesize, echocat's Puppet module and the image graphiteapp/graphite-statsd all have it.
"""

from __future__ import annotations

import os

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.manual_settings import assignments, database_address
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apache

WHISPER = "storage/whisper"
DATABASE = "storage/graphite.db"
# In the order in which a message lists them.
_FILES = (
    "conf/carbon.conf",
    "conf/storage-schemas.conf",
    "conf/storage-aggregation.conf",
    "conf/relay-rules.conf",
    "conf/aggregation-rules.conf",
    "conf/rewrite-rules.conf",
    "conf/blacklist.conf",
    "conf/whitelist.conf",
    "conf/graphTemplates.conf",
    "conf/dashboard.conf",
    "webapp/graphite/local_settings.py",
)
_SQLITE = "django.db.backends.sqlite3"
# With more of them, a message says so without a count: a walk over a million files takes its time.
_COUNTED = 10000


def describe(directory: str, whisper_directory: str, apache_root: str = apache.ROOT) -> dict:
    """Return what an installation has that the collection would put others in the place of.

    ``whisper_directory`` is the one that carbon is to use; series that are there already are not told. ``series`` is a text, ``database``
    the path of an SQLite file, ``other_database`` the address of another one; each is empty where there is none.
    """
    whisper = os.path.join(directory, WHISPER)
    is_in_use = os.path.realpath(whisper) == os.path.realpath(whisper_directory)
    database, other = _databases(directory)
    return {
        "directory": directory,
        "series": "" if is_in_use else _count(whisper),
        "database": database,
        "other_database": other,
        "files": [path for path in (os.path.join(directory, name) for name in _FILES) if os.path.isfile(path)],
        "sites": _sites(directory, apache_root),
    }


def found(description: dict) -> list[str]:
    """Return what an installation has, in words; nothing if it is none, such as the directories that an installer left empty."""
    words = []
    if description["series"]:
        words.append(f"{description['series']} series in {os.path.join(description['directory'], WHISPER)}")
    if description["database"]:
        words.append(f"users, dashboards and events in {description['database']}")
    if description["other_database"]:
        words.append(f"users, dashboards and events in the database {description['other_database']}")
    words += [f"the site {site} of Apache" for site in description["sites"]]
    return words + ([f"settings in {', '.join(description['files'])}"] if description["files"] and words else [])


def problems(description: dict, variable: str) -> list[str]:
    """Return a message if an installation would be left behind."""
    words = found(description)
    if not words:
        return []
    directory = description["directory"]
    return [
        f"{directory} has an earlier installation of Graphite, whose data would not be in the new one: {'; '.join(words)}. Set"
        f" {variable} to {directory} to go on with these series where they are, with a copy of the database and in place of the site; or"
        " to an empty text to leave all of this alone. docs/migrate.md has what becomes of the settings."
    ]


def adoption_problems(description: dict, variable: str, database: str | None, marker: str) -> list[str]:
    """Return a message for each reason why an installation cannot be adopted.

    ``database`` is the path of the SQLite file that graphite-web is to use, empty for a server, and None on a host without graphite-web.
    ``marker`` is the file that says what has been adopted already.
    """
    directory, source = description["directory"], description["database"]
    if not os.path.isdir(os.path.join(directory, WHISPER)):
        return [f"{variable} is {directory}, in which there is no {WHISPER}. Name the directory that has it."]
    if database is None or is_adopted(marker, source):
        return []
    if description["other_database"] and database:
        return [
            f"{variable} is {directory}, whose graphite-web has its users and dashboards in {description['other_database']}. Describe that"
            " database in graphite_web_database, which can be one of PostgreSQL, or of MySQL with the distribution's packages; it is used"
            " as it is."
        ]
    if source and not database:
        return [
            f"{variable} is {directory}, whose graphite-web has its users and dashboards in {source}, and graphite_web_database names a"
            " server. Run without graphite_web_database first, and then with it: that run moves the content to the server."
        ]
    if source and not same_file(source, database) and os.path.exists(database):
        return [
            f"{variable} is {directory}, but {database} exists already, so that {source} would not be copied there. Move"
            f" {database} away, or name another file in graphite_web_database."
        ]
    return []


def is_adopted(marker: str | None, source: str) -> bool:
    """Tell whether a file says that the content of an SQLite file has been copied."""
    try:
        with open(marker or "", encoding="utf-8") as stream:
            return stream.read() == f"{source}\n"
    except OSError:
        return False


def same_file(one: str, other: str) -> bool:
    """Tell whether two paths lead to the same file."""
    return os.path.realpath(one) == os.path.realpath(other)


def _count(whisper: str) -> str:
    number = 0
    for _path, _directories, names in os.walk(whisper):
        number += sum(name.endswith(".wsp") for name in names)
        if number > _COUNTED:
            return f"more than {_COUNTED}"
    return str(number) if number else ""


def _databases(directory: str) -> tuple[str, str]:
    """Return the path of the SQLite file of an installation, and the address of another database; what is not there is empty."""
    try:
        with open(os.path.join(directory, "webapp/graphite/local_settings.py"), encoding="utf-8") as stream:
            address = database_address(assignments(stream.read()))
    except (OSError, ValueError, SyntaxError):
        address = []
    if address and address[0] != _SQLITE:
        return "", ", ".join(address)
    # The volume of a container has another path in the settings.
    for path in (*address[1:2], os.path.join(directory, DATABASE)):
        if os.path.isfile(path) and os.path.getsize(path):
            return path, ""
    return "", ""


def _sites(directory: str, root: str) -> list[str]:
    """Return the files of Apache that serve an application of an installation."""
    hosts = apache.Configuration(root).hosts
    return sorted({host.path for host in hosts if any(script.startswith(f"{directory}/") for script in host.scripts)})
