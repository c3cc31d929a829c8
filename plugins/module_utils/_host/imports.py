# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What an interpreter cannot import, and what is known to cure it. This file is private to the collection.

The source of this file also runs as a program in the interpreter in question: names of modules as arguments, JSON out.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from unittest.mock import MagicMock

# Modules that Python has dropped and programs of the time before still import, by the package that brings them back; and
# one that packages forgot to depend on. The names are Debian's and Ubuntu's.
CURES = {
    "asynchat": "python3-pyasynchat",
    "asyncore": "python3-pyasyncore",
    "cgi": "python3-legacy-cgi",
    "crypt": "python3-legacycrypt",
    "distutils": "python3-setuptools",
    "imp": "python3-zombie-imp",
    "pkg_resources": "python3-pkg-resources",
    "six": "python3-six",
    "telnetlib": "python3-zombie-telnetlib",
}


def examine(names: list[str]) -> dict:
    """Import the modules; return ``missing``, the curable modules that were not found, and ``error``, what remains."""
    missing: list[str] = []
    for name in names:
        while name not in sys.modules:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                absent = str(error.name)
                top = absent.partition(".")[0]
                if top not in CURES or sys.modules.get(absent):
                    return {"missing": missing, "error": _words()}
                if top not in missing:
                    missing.append(top)
                # Something in its place shows what else is missing.
                sys.modules[absent] = MagicMock(__path__=[], __spec__=None)
            except Exception:
                # It may be too much for what is in place of a missing module.
                return {"missing": missing, "error": "" if missing else _words()}
    return {"missing": missing, "error": ""}


def _words() -> str:
    return traceback.format_exc(limit=-3).strip()


if __name__ == "__main__":
    json.dump(examine(sys.argv[1:]), sys.stdout)
