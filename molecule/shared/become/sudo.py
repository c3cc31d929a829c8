# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Ansible's own plugin of this name, which also sees the prompt of sudo-rs.

sudo-rs writes a prompt of its own, of which that of the caller is a part: "[sudo: PROMPT] Password: ". ansible-core up to 2.21 waits for a
line that begins with its prompt, and gives up. docs/releases.md says what users do; molecule/default/tests/test_become.py, whether they
still have to.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from ansible.plugins import become

# Those of the options that the tests need.
DOCUMENTATION = """
name: sudo
short_description: sudo, or sudo-rs
description: Ansible's own plugin of this name, which also sees the prompt of sudo-rs.
author: metricstack maintainers
options:
  become_user:
    description: User to become.
    default: root
    keyword: [{name: become_user}]
    vars: [{name: ansible_become_user}]
  become_exe:
    description: Program to call.
    default: sudo
    keyword: [{name: become_exe}]
    vars: [{name: ansible_become_exe}]
  become_flags:
    description: Options of that program.
    default: -H -S -n
    keyword: [{name: become_flags}]
    vars: [{name: ansible_become_flags}]
  become_pass:
    description: What it asks for.
    vars: [{name: ansible_become_password}]
  sudo_chdir:
    description: Directory to change to before.
    vars: [{name: ansible_sudo_chdir}]
"""


# By its path, because Ansible gives this file the name of that module.
specification = spec_from_file_location("own_sudo", Path(become.__file__).with_name("sudo.py"))
own = module_from_spec(specification)
specification.loader.exec_module(own)


class BecomeModule(own.BecomeModule):
    fail = (*own.BecomeModule.fail, "Authentication failed, try again.")

    def check_password_prompt(self, b_output):
        return super().check_password_prompt(b_output.replace(b"[sudo: ", b"", 1))
