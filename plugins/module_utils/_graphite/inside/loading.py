# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Load the application with the settings of the host, or with a candidate of them."""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.util
import os
import runpy
import sys
import traceback

from . import schema
from .protocol import Kind, RefusalError


class Candidates(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import modules from sources that are not in their files yet.

    ``sources`` are by path. ``secret_key`` is read wherever a source has the path in ``secret_key["path"]``.
    """

    def __init__(self, sources: dict[str, str], secret_key: dict | None) -> None:
        self._sources = sources
        self._names = {os.path.basename(path)[: -len(".py")]: path for path in sources if path.endswith(".py")}
        self._key_path: str | None = None
        self._key_file = ""
        if secret_key is not None:
            # A file without a name, which belongs to this process alone.
            descriptor = os.memfd_create("secret_key")
            os.write(descriptor, secret_key["content"].encode())
            self._key_path, self._key_file = secret_key["path"], f"/proc/self/fd/{descriptor}"

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self._names:
            return None
        return importlib.util.spec_from_file_location(fullname, self._names[fullname], loader=self)

    def exec_module(self, module) -> None:
        exec(self.compiled(module.__spec__.origin), module.__dict__)

    def compiled(self, path: str):
        """Return the code of a source."""
        tree = ast.parse(self._sources[path], path)
        for node in ast.walk(tree):
            if self._key_path is not None and isinstance(node, ast.Constant) and node.value == self._key_path:
                node.value = self._key_file
        return compile(tree, path, "exec")

    def run(self, path: str) -> None:
        """Run a script from its source, or from its file where there is no other source."""
        if path in self._sources:
            exec(self.compiled(path), {"__name__": "<run_path>", "__file__": path})
        else:
            runpy.run_path(path)


_candidates = Candidates({}, None)


def load_application(
    local_settings: str, imports: list[str], target: dict | None, sources: dict[str, str], secret_key: dict | None
) -> dict:
    """Load Django with the application's settings, and with nothing less than ``local_settings``.

    ``imports`` are modules without which the application is not installed; ``target`` is a database besides those of the settings;
    ``sources`` and ``secret_key`` are candidates, see :class:`Candidates`.
    """
    global _candidates  # noqa: PLW0603  # a process loads one application, once
    try:
        import django
        from django.conf import settings
    except ImportError as error:
        raise RefusalError(Kind.NOT_INSTALLED, f"Django cannot be imported: {error}") from error
    try:
        importlib.import_module(os.environ["DJANGO_SETTINGS_MODULE"].partition(".")[0])
        for name in imports:
            importlib.import_module(name)
    except ImportError as error:
        raise RefusalError(Kind.NOT_INSTALLED, f"the application cannot be imported: {error}") from error
    _candidates = Candidates(sources, secret_key)
    sys.meta_path.insert(0, _candidates)
    try:
        settings.DATABASES  # noqa: B018  # the access imports the settings
        # Graphite-web only prints a line when they cannot be imported, and goes on with the wrong database.
        importlib.import_module(local_settings)
        if target is not None:
            settings.DATABASES["target"] = target
        django.setup()
    except Exception as error:
        raise _settings_refusal(error) from error
    return {}


def check_site(connection, wsgi_script: str | None, ask_database: bool) -> dict:
    """Load all that a web server would load, and ask the database for its state.

    Refuses a database that does not answer or is newer than the application, and what does not load.
    """
    if ask_database:
        schema.pending_migrations(connection)
    try:
        if wsgi_script is not None:
            _candidates.run(wsgi_script)
        from django.apps import apps
        from django.contrib.auth import get_backends
        from django.urls import get_resolver

        get_resolver().url_patterns  # noqa: B018  # the access imports them
        # Otherwise loaded when somebody logs in.
        if apps.is_installed("django.contrib.auth"):
            get_backends()
    except Exception as error:
        raise _settings_refusal(error) from error
    return {}


def _settings_refusal(error: Exception) -> RefusalError:
    # As Django says that a database's driver is missing.
    if type(error).__name__ == "ImproperlyConfigured" and str(error).startswith("Error loading"):
        return RefusalError(Kind.NOT_INSTALLED, str(error).partition("\n")[0])
    return RefusalError(Kind.SETTINGS, f"the settings do not import: {type(error).__name__}: {error}. {_innermost(error)}".rstrip())


def _innermost(error: BaseException) -> str:
    """Return the location of an error in the files of the host."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"See {error.filename}, line {error.lineno}."
    directories = tuple(os.path.join(path, "") for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(directories)]
    return f"See {frames[-1].filename}, line {frames[-1].lineno}." if directories and frames else ""
