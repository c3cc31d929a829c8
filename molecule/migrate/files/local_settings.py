# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
SECRET_KEY = "of-an-installation-below-opt-graphite-with-fifty-chars"
TIME_ZONE = "Europe/Berlin"
