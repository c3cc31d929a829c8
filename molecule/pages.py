# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The blocks of the documentation's pages that tests run: what a page tells a reader to do, a test does.

The name of a block follows its language: ```console backup. Its commands begin with "$ ", or with the name of a host and "$ " where they
are run on it; the other lines are what they print. A block of YAML that is named like a file is that file.

molecule/pages.py PAGE NAME   prints the commands of a block, as a list in JSON
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"(?ms)^( *)```(\w+)(?: +(\S+))?\n(.*?)^\1```$")
# A line that ends with a backslash goes on with the next one.
COMMAND = re.compile(r"(?m)^([\w.-]*)\$ ((?:.*\\\n)*.*)$")


class Block(NamedTuple):
    language: str
    name: str
    text: str


class Command(NamedTuple):
    host: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page that have a language."""
    found = FENCE.findall((ROOT / page).read_text())
    return [Block(language, name, textwrap.dedent(text)) for _indent, language, name, text in found]


def block(page: str, name: str) -> Block:
    (found,) = [block for block in blocks(page) if block.name == name]
    return found


def variables(page: str, name: str) -> dict:
    """Return what a block of YAML says; Ansible evaluates its templates."""
    return yaml.safe_load(block(page, name).text)


def commands(text: str) -> list[Command]:
    """Return the commands of a block, each with the host that it is for, which is empty for the reader's own."""
    return [Command(*found) for found in COMMAND.findall(text)]


if __name__ == "__main__":
    print(json.dumps([command.text for command in commands(block(*sys.argv[1:]).text)]))
