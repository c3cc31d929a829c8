# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What holds for every source file: that its lines can be read. Its licence is the business of ``reuse lint``."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# As long as ruff lets Python's lines be.
LONGEST_LINE = 140


def tracked(*patterns: str) -> list[Path]:
    """Return the files that Git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(ROOT / name for name in set(names) if name and (ROOT / name).is_file())


def test_no_line_is_too_long_to_read():
    offenders = []
    for path in tracked("roles/**.yml", "playbooks/**.yml", "*.j2"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > LONGEST_LINE:
                offenders.append(f"{path.relative_to(ROOT)}:{number}: {len(line)} columns")
    assert offenders == [], "\n" + "\n".join(offenders)
