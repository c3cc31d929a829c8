# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Runs ``inside.py`` inside a Django application. This file is private to the collection."""

from __future__ import annotations

import json
import os
import pwd
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite import inside

DJANGO_ARGUMENT_SPEC = {
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "python_path": {"type": "list", "elements": "path", "default": ["/etc/graphite"]},
    "settings": {"type": "str", "default": "graphite.settings"},
    "local_settings": {"type": "str", "default": "local_settings"},
    "user": {"type": "str", "default": "_graphite"},
}


class ApplicationError(Exception):
    """The application could not do what it was asked for.

    ``kind`` is ``not_installed``, ``settings``, ``newer_database``, ``migration``, ``no_schema``, ``database``,
    ``permission``, ``engine``, ``unreachable``, ``pending``, ``content``, ``move`` or ``crash``; ``output`` is what the
    application printed.
    """

    def __init__(self, kind: str, message: str, output: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.output = output


class Application:
    """A Django application, asked in its own Python and as its own user."""

    def __init__(self, module: AnsibleModule) -> None:
        self._parameters = module.params

    def ask(self, action: str, descriptor: int | None = None, **arguments: object) -> dict:
        """Return the reply to ``action``; arguments travel on standard input, where no other process sees them.

        ``descriptor`` is an open file for the application, which may be one that its user could not open.

        Raises ``ApplicationError``.
        """
        request = {"action": action, "local_settings": self._parameters["local_settings"], "descriptor": descriptor, **arguments}
        user = self._parameters["user"]
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise ApplicationError("not_installed", f"there is no user '{user}'") from None

        def become_user() -> None:
            if os.geteuid() != account.pw_uid:
                os.initgroups(account.pw_name, account.pw_gid)
                os.setgid(account.pw_gid)
                os.setuid(account.pw_uid)
            os.umask(0o027)

        try:
            process = subprocess.run(
                [self._parameters["python"], "-c", _child_source()],
                input=json.dumps(request).encode(),
                capture_output=True,
                cwd="/",
                env=self._environment(account.pw_dir),
                pass_fds=[] if descriptor is None else [descriptor],
                preexec_fn=become_user,  # the module has no threads
                check=False,
            )
        except FileNotFoundError as error:
            raise ApplicationError("not_installed", str(error)) from error
        except (PermissionError, subprocess.SubprocessError) as error:
            raise ApplicationError("crash", f"cannot run {self._parameters['python']} as '{user}': {error}") from error
        output = process.stderr.decode("utf-8", "replace")
        try:
            reply = json.loads(process.stdout)
        except ValueError:
            raise ApplicationError("crash", f"the application ended with {process.returncode}: {output[-2000:]}") from None
        if "refusal" in reply:
            raise ApplicationError(reply["refusal"], reply["message"], output)
        return reply

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


def _child_source() -> str:
    # Through the loader: on the host, the file is inside of a ZIP archive.
    spec = inside.__spec__
    assert spec is not None
    assert spec.loader is not None
    return spec.loader.get_source(spec.name)  # type: ignore[attr-defined]
