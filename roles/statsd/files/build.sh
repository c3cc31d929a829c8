#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# build.sh SOURCE TARGET: installs what SOURCE/package-lock.json pins and packs it into TARGET (tar.gz), or leaves no TARGET.
set -eu
# The service reads it as a user of its own, whatever the umask of who builds.
umask 022
source=$1
target=$2
mkdir -p "$(dirname "$target")"
work=$(mktemp -d)
part=$(mktemp "$target.XXXXXX") # of its own: another run may build the same
trap 'rm -rf "$work" "$part"' EXIT
trap 'exit 1' HUP INT TERM
cp "$source/package.json" "$source/package-lock.json" "$source"/*.js "$source"/*.py "$work"
cd "$work"
npm ci --ignore-scripts --omit=optional --no-audit --no-fund
touch complete
# The mark comes last: an unpacking that was interrupted has none.
tar --create --gzip --owner=0 --group=0 --file="$part" node_modules package.json ./*.js ./*.py complete
chmod 0644 "$part"
mv "$part" "$target"
