# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Runs programs in Python, each in a process of its own, forked from one that has loaded what they import: that takes half of a short run.

The arguments name the Python modules to load. Each line of standard input is a list in JSON: the program with its arguments,
environment variables, and the files that are its standard input, output and error. The answer is its exit status. A program is one of
Ansible's commands, or a path.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys

COMMANDS = {"ansible": "ansible.cli.adhoc", "ansible-playbook": "ansible.cli.playbook"}


def run(command: list[str], environment: dict[str, str], *files: str) -> None:
    """Become the program; it ends the process."""
    os.environ.update(environment)
    for descriptor, path in enumerate(files):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[:] = command
    if command[0] in COMMANDS:
        importlib.import_module(COMMANDS[command[0]]).main(command)
    else:
        runpy.run_path(command[0], run_name="__main__")
    sys.exit()


for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()
for line in sys.stdin:
    process = os.fork()
    if not process:
        run(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
