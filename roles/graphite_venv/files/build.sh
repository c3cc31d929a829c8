#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# build.sh REQUIREMENTS TARGET: makes a virtual environment at TARGET of what the file pins; its file "complete" comes last.
set -eu
# The services read it as users of their own, whatever the umask of who builds.
umask 022
requirements=$1
target=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$target"
/usr/bin/python3 -m venv "$target"

install() {
  "$target/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes "$@"
}

# What builds the others comes first, and from the same list: by itself, pip would fetch it without asking for a hash.
awk '/^[a-z]/ {builds = /^(setuptools|wheel|packaging)==/} builds' "$requirements" > "$work/builds.txt"
install --requirement "$work/builds.txt"
# Without this, carbon and graphite-web put themselves into /opt/graphite, beside any environment.
GRAPHITE_NO_PREFIX=True install --no-build-isolation --requirement "$requirements"

site_packages=$("$target/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# A place that does not depend on the version of Python.
ln -s "$site_packages" "$target/site-packages"
# Twisted looks for its plugins, and would write down what it finds where the services may not write.
"$target/bin/twistd" --help > /dev/null
# Graphite-web looks for its style sheets and scripts beside its package, where an installation does not put them.
cat > "$work/build_settings.py" <<SETTINGS
from graphite.app_settings import *
SECRET_KEY = "for this build only"
DATABASES = {}
LOG_FILE_INFO = LOG_FILE_EXCEPTION = LOG_FILE_CACHE = LOG_FILE_RENDERING = "-"
STATIC_ROOT = "$target/static"
SETTINGS
ln -s "$target/webapp/content" "$site_packages/content"
DJANGO_SETTINGS_MODULE=graphite.settings GRAPHITE_SETTINGS_MODULE=build_settings PYTHONPATH=$work \
  "$target/bin/django-admin" collectstatic --no-input --verbosity 0
touch "$target/complete"
