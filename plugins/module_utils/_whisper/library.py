# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The library ``whisper``, wherever the host has it; ``None`` where it is missing. This file is private to the collection."""

from __future__ import annotations

import sys
import traceback
from importlib import metadata

__all__ = ["WHISPER_ERROR", "version", "whisper"]

# Where the role graphite_venv leads to. The distribution's packages come first.
_SEARCHED = [*sys.path, "/opt/graphite/venv/site-packages"]

WHISPER_ERROR = ""
_path, sys.path = sys.path, _SEARCHED
try:
    import whisper
except ImportError:
    whisper = None
    WHISPER_ERROR = traceback.format_exc()
finally:
    sys.path = _path


def version(name: str) -> str | None:
    """Return the installed version of a distribution package of Python, or ``None``."""
    found = next(iter(metadata.Distribution.discover(name=name, path=_SEARCHED)), None)
    return found.version if found else None
