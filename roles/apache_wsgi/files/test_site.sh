#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# test_site.sh FILE [SITE…]: test the site in FILE beside all enabled sites but those named, which it is going to replace.
set -eu
candidate=$1
shift
config=$(mktemp)
trap 'rm -f "$config"' EXIT
grep -v '^IncludeOptional sites-enabled/' /etc/apache2/apache2.conf > "$config"
for enabled in /etc/apache2/sites-enabled/*.conf; do
  name=$(basename "$enabled" .conf)
  case " $* " in *" $name "*) continue ;; esac
  if [ -e "$enabled" ]; then echo "Include $enabled" >> "$config"; fi
done
# Directives of the site need the module, which is enabled together with the site.
[ -e /etc/apache2/mods-enabled/headers.load ] || echo "Include /etc/apache2/mods-available/headers.load" >> "$config"
echo "Include $candidate" >> "$config"
apache2ctl -t -f "$config"
