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
work=$(mktemp -d)
trap 'rm -rf "$work" "$target.part"' EXIT
cp "$source/package.json" "$source/package-lock.json" "$source/preload.js" "$work"
cd "$work"
npm ci --ignore-scripts --omit=optional --no-audit --no-fund
touch complete
mkdir -p "$(dirname "$target")"
# The mark comes last: an unpacking that was interrupted has none.
tar --create --gzip --owner=0 --group=0 --file="$target.part" node_modules package.json preload.js complete
mv "$target.part" "$target"
