# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Runs Ansible's commands, each in a process of its own, forked from one that has loaded Ansible's code: that takes half of a short run.

Each line of standard input is a list in JSON: the command with its arguments, environment variables, and the file for all that the
command prints. The answer is its exit status.
"""

from __future__ import annotations

import json
import os
import sys

from ansible.cli import adhoc, playbook

COMMANDS = {"ansible": adhoc.main, "ansible-playbook": playbook.main}


def run(command: list[str], environment: dict[str, str], printed: str) -> None:
    """Become the command; it ends the process."""
    os.environ.update(environment)
    for path, flags, descriptors in ((os.devnull, os.O_RDONLY, (0,)), (printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, (1, 2))):
        opened = os.open(path, flags)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
    COMMANDS[command[0]](command)


for line in sys.stdin:
    process = os.fork()
    if not process:
        run(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
