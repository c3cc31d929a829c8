#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# screenshot.sh URL TARGET: takes a screenshot of the page at URL with headless Chromium, and writes it to TARGET (PNG).
set -eu
rm -f "$2"
python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=30)' "$1" 2> /dev/null || {
  echo "The controller does not reach $1; set go_benchmark_browser_url to the address of graphite-web as the controller sees it." >&2
  exit 3
}
browser=$(command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome) || {
  echo "There is no Chromium on the controller (Debian: apt-get install chromium)." >&2
  exit 3
}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
trap 'exit 1' HUP INT TERM
sandbox=
[ "$(id -u)" != 0 ] || sandbox=--no-sandbox
# Graphs are drawn after the page has loaded; the time is the page's own, which passes while nothing is to be waited for.
timeout --foreground 120 "$browser" --headless $sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile" --window-size=1280,1760 \
  --virtual-time-budget=20000 --screenshot="$2" "$1"
[ -s "$2" ]
