# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Where playbooks reach the host over SSH: it is what its suite says, and its user becomes root as docs/releases.md says."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml
from conftest import ROOT, SSH

# Starts a command on a terminal, gives it a password, and reads what it prints later than it could. Prints how many letters "x" came.
ON_A_TERMINAL = """
import os, pty, sys, time
password, *command = sys.argv[1:]
process, terminal = pty.fork()
if not process:
    os.execvp(command[0], command)
output = b""
while b"assword" not in output:
    output += os.read(terminal, 4096)
time.sleep(0.5)  # until it listens
os.write(terminal, password.encode() + b"\\n")
time.sleep(2)
while True:
    try:
        output += os.read(terminal, 4096)
    except OSError:  # it has ended
        break
print(output.count(b"x"))
"""

pytestmark = pytest.mark.skipif(not SSH, reason="playbooks reach this host through the container engine")


@pytest.fixture
def as_user(run_ansible):
    """Run a command on the host as the user who logs in, or as root with the options of Ansible for that."""

    def run(command, *options, **variables):
        return run_ansible("ansible", os.environ["MOLECULE_HOST"], "-m", "ansible.builtin.command", "-a", command, *options, **variables)

    return run


def test_the_commands_are_those_of_ubuntu(as_user):
    for command, words in {"ls": "uutils", "sha256sum": "uutils", "cp": "GNU", "sudo": "sudo-rs", "sudo.ws": "Sudo version 1"}.items():
        status, output, errors = as_user(f"{command} --version")
        assert status == 0, errors
        assert words in output
    assert as_user("sudo --non-interactive true")[0] != 0
    assert as_user("id --user --name", "--become")[1].splitlines()[-1] == "root"


def test_ansibles_own_plugin_needs_the_other_sudo(as_user):
    """When the first half fails, ansible-core can do it: molecule/shared/become and the page's advice can go."""
    own = {"ANSIBLE_BECOME_PLUGINS": "", "ANSIBLE_TIMEOUT": "2"}
    status, output, errors = as_user("true", "--become", **own)
    assert status != 0
    assert "waiting for" in output + errors
    (advice,) = [line for line in (ROOT / "docs" / "releases.md").read_text().splitlines() if "sudo.ws" in line]
    option = "ansible_become_exe=sudo.ws"
    assert option in advice
    status, output, errors = as_user("id --user --name", "--become", "-e", option, **own)
    assert status == 0, output + errors
    assert output.splitlines()[-1] == "root"


def test_on_a_terminal_sudo_rs_drops_the_end_of_an_output(host):
    """When this fails, modules without pipelining work with sudo-rs: the page's advice is for those whom it asks for a password."""
    given = yaml.safe_load((ROOT / "molecule" / "shared" / "ssh" / "group_vars" / "all.yml").read_text())
    command = ["docker", "exec", "--user", given["ansible_user"], host.backend.get_hostname(), "python3", "-c", ON_A_TERMINAL]

    def printed(sudo):
        program = [sudo, "python3", "-c", "print('x' * 16000)"]
        arguments = [*command, given["ansible_become_password"], *program]
        return int(subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert printed("sudo.ws") == 16000
    assert printed("sudo") < 16000
