# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The sandbox of this collection's services. This file is private to the collection.

Source of the settings: systemd.exec(5) of systemd 252 and 257; all of them exist since 247. PrivateUsers= is not among them: where an
administrator forbids user namespaces (user.max_user_namespaces=0), a service that has it does not start.
"""

from __future__ import annotations

import posixpath

_ADDRESS_FAMILIES = ("AF_UNIX", "AF_INET", "AF_INET6")
# ProtectHome hides these; what a service uses of them is mounted into it, alone.
_HOMES = ("/home", "/root", "/run/user")


def unit_sandbox(options: dict) -> str:
    """Return the lines of the section ``[Service]`` that take from a service what it does not need.

    ``writable`` and ``readable`` are the paths that the service writes to and reads from; those that every service sees
    need not be named under ``readable``. ``address_families`` are those of its sockets, by default local and Internet
    ones. ``memory_deny_write_execute`` is false for programs that compile at run time, such as Node.js. ``capabilities`` are
    those of root that the service keeps, by default none.
    """
    unknown = set(options) - {"writable", "readable", "address_families", "memory_deny_write_execute", "capabilities"}
    if unknown:
        raise ValueError(f"unit_sandbox knows no {', '.join(sorted(unknown))}")
    writable = [posixpath.normpath(path) for path in options.get("writable") or []]
    readable = [posixpath.normpath(path) for path in options.get("readable") or [] if _is_in_home(path)]
    bound = [path for path in writable if _is_in_home(path)]
    plain = [path for path in writable if path not in bound]
    settings = {
        "CapabilityBoundingSet": " ".join(options.get("capabilities") or []),
        "LockPersonality": "true",
        "MemoryDenyWriteExecute": "true" if options.get("memory_deny_write_execute", True) else None,
        "NoNewPrivileges": "true",
        "PrivateDevices": "true",
        # The rest implies it, which the older systemd-analyze does not know.
        "PrivateMounts": "true",
        "PrivateTmp": "true",
        "ProcSubset": "pid",
        "ProtectClock": "true",
        "ProtectControlGroups": "true",
        "ProtectHome": "tmpfs" if bound or readable else "true",
        "ProtectHostname": "true",
        "ProtectKernelLogs": "true",
        "ProtectKernelModules": "true",
        "ProtectKernelTunables": "true",
        "ProtectProc": "invisible",
        "ProtectSystem": "strict",
        "BindPaths": " ".join(bound) or None,
        "BindReadOnlyPaths": " ".join(path for path in readable if path not in bound) or None,
        "ReadWritePaths": " ".join(plain) or None,
        "RemoveIPC": "true",
        "RestrictAddressFamilies": " ".join(options.get("address_families") or _ADDRESS_FAMILIES),
        "RestrictNamespaces": "true",
        "RestrictRealtime": "true",
        "RestrictSUIDSGID": "true",
        "SystemCallArchitectures": "native",
        "UMask": "0027",
    }
    lines = [f"{name}={value}" for name, value in settings.items() if value is not None]
    # The second line takes away from the first.
    lines += ["SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources", "SystemCallErrorNumber=EPERM"]
    return "\n".join(lines)


def _is_in_home(path: str) -> bool:
    return any(posixpath.commonpath([home, posixpath.normpath(path)]) == home for home in _HOMES)
