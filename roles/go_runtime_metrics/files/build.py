# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Run build.sh on a machine with nothing but Python: a JSON object of its sources by their paths is on standard input, in base64."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as directory:
    for name, content in json.loads(base64.b64decode(sys.stdin.read())).items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(content)
    sys.exit(subprocess.run(["sh", os.path.join(directory, "build.sh"), *sys.argv[1:]], check=False).returncode)
