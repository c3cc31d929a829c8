# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The rules for the variables of each role, beyond the types in its argument specification."""

RULES: dict = {}
