# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The files that graphite-web is configured with, as they are and as they are wanted. This file is private to the collection."""

from __future__ import annotations

import secrets
import string

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite import manual_settings

SETTINGS_ARGUMENT_SPEC: dict = {
    "path": {"type": "path", "default": "/etc/graphite/local_settings.py"},
    "imports": {"type": "list", "elements": "str", "default": []},
    "content": {"type": "str", "required": True, "no_log": True},
    "secret_key": {"type": "str", "no_log": True},
    "secret_key_file": {"type": "path", "default": "/etc/graphite/secret_key", "no_log": False},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        "required_if": [("state", "present", ["content"])],
    },
    "wsgi_script": {"type": "path"},
}


def read(path: str) -> str | None:
    """Return the content of a file, or ``None``."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


class SettingsFiles:
    """The settings, the secret key, and the files beside them."""

    def __init__(self, module: AnsibleModule) -> None:
        parameters = module.params
        self.path: str = parameters["path"]
        self.key_path: str = parameters["secret_key_file"]
        self.current = read(self.path)
        self.manual = manual_settings.examine(self.path, self.current or "", parameters["content"], parameters["python"])
        # The content of a file that is not to be there is None.
        self.sources: dict[str, str | None] = {
            item["path"]: item["content"] if item["state"] == "present" else None for item in parameters["files"]
        }
        self.sources[self.path] = parameters["content"]
        self.key_origin, self.key = self._wanted_key(parameters["secret_key"])

    def _wanted_key(self, given: str | None) -> tuple[str, str | None]:
        """Return where the key comes from, and a key that is not in its file yet."""
        stored = (read(self.key_path) or "").strip()
        if given is not None:
            return "given", None if stored == given.strip() else given.strip()
        if stored:
            return "kept", None
        if self.manual.secret_key is not None:
            return "adopted", self.manual.secret_key
        return "generated", "".join(secrets.choice(string.ascii_letters + string.digits) for _position in range(64))

    @property
    def differing(self) -> dict[str, str | None]:
        """The sources that are not in their files yet, by path; the settings are the last."""
        return {path: content for path, content in self.sources.items() if read(path) != content}

    @property
    def candidate(self) -> dict:
        """Arguments that let an ``Application`` load what is wanted instead of what is in the files."""
        secret_key = None if self.key is None else {"path": self.key_path, "content": self.key}
        sources = {path: content for path, content in self.differing.items() if content is not None}
        return {"sources": sources, "secret_key": secret_key}

    @property
    def is_complete(self) -> bool:
        """Whether every file has its content."""
        return self.key is None and not self.differing
