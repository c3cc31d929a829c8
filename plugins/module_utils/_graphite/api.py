# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Asking graphite-web over HTTP: what the modules of its API have in common. This file is private to the collection."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Callable, TypeVar
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.metricstack.graphite.plugins.module_utils._host.identity import own_addresses
from ansible_collections.metricstack.graphite.plugins.module_utils._host.resolver import resolved

Result = TypeVar("Result")

# Described in the documentation fragment web_api.
WEB_API_ARGUMENT_SPEC: dict = {
    "url": {"type": "str", "default": "http://127.0.0.1"},
    "timeout": {"type": "int", "default": 30},
    # These and validate_certs are names that fetch_url reads from the module's parameters.
    "host_header": {"type": "str"},
    "connect_address": {"type": "str"},
    "ca_path": {"type": "path"},
    "secret_key_file": {"type": "path", "default": "/etc/graphite/secret_key"},
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "force_basic_auth": {"type": "bool", "default": False},
    "use_proxy": {"type": "bool", "default": True},
    "validate_certs": {"type": "bool", "default": True},
}

# A long list of targets does not fit into an address; it is posted as a form.
FORM = "application/x-www-form-urlencoded"


class WebApi:
    """The graphite-web that a module's parameters name; the module fails, with graphite-web's message, if it refuses."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module

    def ask(self, path: str, data: str | None = None, content_type: str | None = None) -> bytes:
        """Return what ``path`` answers; ``data`` is posted if it is given."""
        headers = {"Content-Type": content_type, "Host": self._module.params["host_header"], "Authorization": self._authorization()}
        with resolved(self._host, self._module.params["connect_address"]):
            response, info = fetch_url(
                self._module,
                self._module.params["url"].rstrip("/") + path,
                data=data,
                method="GET" if data is None else "POST",
                headers={name: value for name, value in headers.items() if value is not None},
                timeout=self._module.params["timeout"],
                use_proxy=self._module.params["use_proxy"] and not self._module.params["connect_address"],
                ca_path=self._module.params["ca_path"],
            )
        if info["status"] != 200:
            body = info.get("body") or b""
            self._module.fail_json(
                msg=f"{self._address(path)} answered {info['status']}: {info['msg']}",
                status=info["status"],
                # What went wrong stands at the end of graphite-web's pages.
                body=(body.decode("utf-8", "replace") if isinstance(body, bytes) else body)[-2000:],
            )
        return response.read()

    def read(self, understand: Callable[[object], Result], path: str, data: str | None = None, content_type: str | None = None) -> Result:
        """Return what ``understand`` makes of a decoded JSON answer; it raises ``ValueError`` if it does not."""
        answer = self.ask(path, data, content_type)
        try:
            return understand(json.loads(answer))
        except ValueError as error:
            self.refuse(path, str(error))
            raise  # not reached: it ends the module

    def refuse(self, path: str, reason: str) -> None:
        """Fail, because ``path`` has answered what graphite-web does not."""
        self._module.fail_json(msg=f"{self._address(path)} did not answer as graphite-web does: {reason}")

    @property
    def _host(self) -> str:
        return urlsplit(self._module.params["url"]).hostname or ""

    def _authorization(self) -> str | None:
        """Return a token that graphite_access.py of the role graphite_web takes, unless there is a user to log in."""
        host = self._module.params["connect_address"] or self._host
        is_own = host in ("localhost", "127.0.0.1", "::1") or host in own_addresses()
        if self._module.params["url_username"] or not is_own:
            return None
        try:
            with open(self._module.params["secret_key_file"], encoding="utf-8") as stream:
                key = stream.read().strip()
        except OSError:  # graphite-web is not the role's, or the module does not run as root
            return None
        now = str(int(time.time()))
        return f"Bearer {now}.{hmac.new(key.encode(), f'graphite_access {now}'.encode(), hashlib.sha256).hexdigest()}"

    def _address(self, path: str) -> str:
        return self._module.params["url"].rstrip("/") + path.partition("?")[0]
