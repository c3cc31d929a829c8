# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which modules an interpreter cannot import, and which packages have them. This file is private to the collection.

The source of this file also runs as a program in the interpreter in question: names of modules as arguments, JSON out.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import traceback
import types

# Modules that Python has dropped and programs of the time before still import, by the package that has them; and one that
# packages forgot to depend on. The names are Debian's and Ubuntu's.
PROVIDERS = {
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


class _Placeholder(types.ModuleType):
    """Stands for a missing module, and for whatever is read from it, called or inherited."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package, for modules are imported from it

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *_arguments, **_keywords: None})


def examine(names: list[str]) -> dict:
    """Import the modules; return ``missing``, the modules that a package has, and ``error``, what no package provides."""
    missing: list[str] = []
    for name in names:
        while name not in sys.modules:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                absent = str(error.name)
                top = absent.partition(".")[0]
                if top not in PROVIDERS or sys.modules.get(absent):
                    return {"missing": missing, "error": _traceback()}
                if top not in missing:
                    missing.append(top)
                # A placeholder, so that the import goes on and shows which others are missing.
                sys.modules[absent] = _Placeholder(absent)
            except Exception:
                # The placeholder of a missing module may not be enough.
                return {"missing": missing, "error": "" if missing else _traceback()}
    return {"missing": missing, "error": ""}


def ask(python: str, names: list[str]) -> dict:
    """Run :func:`examine` in the interpreter ``python``; a program that fails is an ``error``."""
    # Through the loader: on the host, the file is inside a ZIP archive.
    source = __spec__.loader.get_source(__name__)  # type: ignore[union-attr]
    # From the root directory: the interpreter would import from the current one.
    command = [python, "-B", "-c", source, *names]
    process = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if process.returncode != 0:
        return {"missing": [], "error": f"it ended with status {process.returncode}: {process.stderr.strip()[-2000:]}"}
    # What the modules print comes before.
    return json.loads(process.stdout.splitlines()[-1])


def _traceback() -> str:
    return traceback.format_exc(limit=-3).strip()


if __name__ == "__main__":
    json.dump(examine(sys.argv[1:]), sys.stdout)
