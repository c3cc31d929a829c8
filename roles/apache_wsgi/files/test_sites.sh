#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# test_sites.sh DIRECTORY [SITE…]: test the configuration of Apache with what DIRECTORY holds at its path, and without the sites named.
set -eu
new=$1
shift
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
ln -s /etc/apache2/* "$tree"
# Directories in which something changes; each may be a link to another one.
for name in mods-enabled sites-available sites-enabled; do
  rm -f "$tree/$name"
  mkdir "$tree/$name"
  ln -s "/etc/apache2/$name/"* "$tree/$name"
done
for site in "$@"; do rm -f "$tree/sites-enabled/$site.conf"; done
cp --recursive --no-dereference --remove-destination "$new/etc/apache2/." "$tree"
# An administrator may have written the whole path.
rm "$tree/apache2.conf"
sed "s|/etc/apache2|$tree|g" /etc/apache2/apache2.conf > "$tree/apache2.conf"
if ! answer=$(APACHE_CONFDIR=$tree apache2ctl -t 2>&1); then
  echo "$answer" | sed "s|$tree|/etc/apache2|g" >&2
  exit 1
fi
