# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Starts a process inside graphite-web and sends it requests. This file is private to the collection."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import tempfile
from contextlib import suppress
from typing import Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside import (
    accounts,
    caches,
    copies,
    dashboards,
    loading,
    move,
    postgresql,
    program,
    protocol,
    schema,
    sqlite,
    targets,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind

DJANGO_ARGUMENT_SPEC = {
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "python_path": {"type": "list", "elements": "path", "default": ["/etc/graphite"]},
    "settings": {"type": "str", "default": "graphite.settings"},
    "local_settings": {"type": "str", "default": "local_settings"},
    "run_as": {"type": "str", "default": "_graphite"},
}
# An entry of Django's setting DATABASES.
DATABASE_ARGUMENT_SPEC = {
    "ENGINE": {"type": "str", "required": True},
    "NAME": {"type": "str", "required": True},
    "USER": {"type": "str", "default": ""},
    "PASSWORD": {"type": "str", "default": "", "no_log": True},
    "HOST": {"type": "str", "default": ""},
    "PORT": {"type": "str", "default": ""},
    "OPTIONS": {"type": "dict", "default": {}},
}
# Each after the ones that it imports.
_PACKAGE = (protocol, sqlite, schema, postgresql, copies, accounts, caches, targets, dashboards, move, loading, program)
_LOADER = """
import json, sys, types
first = json.loads(sys.stdin.readline())
package = sys.modules["inside"] = types.ModuleType("inside")
package.__path__ = []
for name, source in first.pop("package").items():
    module = sys.modules["inside." + name] = types.ModuleType("inside." + name)
    module.__package__ = "inside"
    setattr(package, name, module)
    exec(compile(source, "inside/" + name + ".py", "exec"), module.__dict__)
package.program.serve(first)
"""


class ApplicationError(Exception):
    """The application could not do what it was asked for; ``output`` is what it printed."""

    def __init__(self, kind: Kind, message: str, output: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.output = output

    @property
    def details(self) -> dict[str, str]:
        """What a module that fails returns besides its message."""
        return {"kind": self.kind.value, "stderr": self.output}


def become(account: pwd.struct_passwd) -> Callable[[], None]:
    """Return what makes a process that is about to start one of the user's."""

    def become_user() -> None:
        if os.geteuid() != account.pw_uid:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        os.umask(0o027)

    return become_user


class Application:
    """A process of a Django application in its own Python and as its own user; a context manager.

    The process starts with the first request and answers as many as there are. ``imports`` are modules without which the
    application is not installed. ``target`` is a database besides those of the
    settings. ``sources`` are contents, by path, that are used instead of the files; ``secret_key``, with ``path`` and
    ``content``, is used instead of that file. ``descriptor`` is an open file for the application, which may be one that its user
    could not open.
    """

    def __init__(
        self,
        module: AnsibleModule,
        *,
        imports: list[str] | None = None,
        target: dict | None = None,
        sources: dict[str, str] | None = None,
        secret_key: dict | None = None,
        descriptor: int | None = None,
    ) -> None:
        self._parameters = module.params
        self._first = {
            "package": {source.__name__.rpartition(".")[2]: source_of(source) for source in _PACKAGE},
            "local_settings": module.params["local_settings"],
            "imports": imports or [],
            "target": target,
            "sources": sources or {},
            "secret_key": secret_key,
        }
        self._descriptor = descriptor
        self._process: subprocess.Popen | None = None
        self._failure: ApplicationError | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process is not None:
            with suppress(BrokenPipeError):
                self._process.communicate()
        self._output.close()

    def ask(self, action: str, database: str = "default", **arguments: object) -> dict:
        """Return the reply to ``action``; arguments travel on standard input, where no other process sees them.

        Raises ``ApplicationError``.
        """
        if self._failure is not None:
            raise self._failure
        try:
            if self._process is None:
                self._process = self._start()
                self._exchange(self._process, self._first)
        except ApplicationError as error:
            self._failure = error
            raise
        return self._exchange(self._process, {"action": action, "database": database, "arguments": arguments})

    def _exchange(self, process: subprocess.Popen, message: dict) -> dict:
        with suppress(BrokenPipeError):  # the reason is in the output
            process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        line = process.stdout.readline()  # type: ignore[union-attr]
        try:
            reply = json.loads(line)
        except ValueError:
            status = process.wait()
            raise ApplicationError(Kind.CRASH, f"the application ended with {status}: {self._read_output()[-2000:]}") from None
        if "refusal" in reply:
            raise ApplicationError(Kind(reply["refusal"]), reply["message"], self._read_output())
        return reply["reply"]

    def _read_output(self) -> str:
        self._output.seek(0)
        return self._output.read().decode("utf-8", "replace")

    def _start(self) -> subprocess.Popen:
        user = self._parameters["run_as"]
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise ApplicationError(Kind.NOT_INSTALLED, f"there is no user '{user}'") from None

        try:
            return subprocess.Popen(
                [self._parameters["python"], "-c", _LOADER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._output,
                cwd="/",
                env=self._environment(account.pw_dir),
                pass_fds=[] if self._descriptor is None else [self._descriptor],
                preexec_fn=become(account),  # noqa: PLW1509  # the module has no threads
            )
        except FileNotFoundError as error:
            raise ApplicationError(Kind.NOT_INSTALLED, str(error)) from error
        except (PermissionError, subprocess.SubprocessError) as error:
            raise ApplicationError(Kind.CRASH, f"cannot run {self._parameters['python']} as '{user}': {error}") from error

    def _environment(self, home: str) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": self._parameters["settings"],
            "GRAPHITE_SETTINGS_MODULE": self._parameters["local_settings"],
            "HOME": home,
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(self._parameters["python_path"]),
        }


def source_of(module) -> str:
    """Return the source of a module of the collection."""
    # Through the loader: on the host, the file is inside a ZIP archive. Ansible's own loader, on the controller, returns bytes.
    source = module.__spec__.loader.get_source(module.__spec__.name)
    return source.decode() if isinstance(source, bytes) else source
