#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# What site.yml does at first, as a script that knows one host, one release and no second run: the least time that the job
# takes. script/bench runs it, as root on a bare Debian 13. Nothing is validated, tested before it is replaced, or sandboxed.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
cd /

# As the roles do: lists of the last hour are taken as they are.
[ -n "$(find /var/lib/apt/lists -maxdepth 1 -mmin -60 -name '*Packages*' -print -quit)" ] || apt-get update -qq
# Its service would start at once, on carbon's port.
ln -s /dev/null /etc/systemd/system/carbon-c-relay.service
apt-get install -y -qq --no-install-recommends graphite-web graphite-carbon carbon-c-relay apache2 libapache2-mod-wsgi-py3 memcached \
  python3-pymemcache python3-regex nodejs > /dev/null

# carbon
cat > /etc/carbon/storage-schemas.conf << 'CONF'
[carbon]
pattern = ^carbon\.
retentions = 60s:90d
[stats]
pattern = ^stats\.
retentions = 10s:6h,1m:7d,10m:180d
[default]
pattern = .*
retentions = 60s:1d,5m:30d,1h:3y
CONF
cat > /etc/carbon/storage-aggregation.conf << 'CONF'
[min]
pattern = \.(lower|min)(_\d+)?$
xFilesFactor = 0.1
aggregationMethod = min
[max]
pattern = \.(upper|max)(_\d+)?$
xFilesFactor = 0.1
aggregationMethod = max
[sum]
pattern = \.(count|sum|sum_squares)(_\d+)?$
xFilesFactor = 0
aggregationMethod = sum
CONF
sed -i -e 's/^\([A-Z_]*INTERFACE\) *=.*/\1 = 127.0.0.1/' -e 's/^MAX_CREATES_PER_MINUTE *=.*/MAX_CREATES_PER_MINUTE = inf/' \
  -e '/^\[cache\]/,/^\[relay\]/s/^LINE_RECEIVER_PORT *=.*/LINE_RECEIVER_PORT = 2103/' /etc/carbon/carbon.conf
systemctl enable --quiet carbon-cache
systemctl restart carbon-cache

# The relay in front of carbon
cat > /etc/carbon-relay.conf << 'CONF'
cluster caches fnv1a_ch 127.0.0.1:2103=a;
match * send to caches stop;
listen type linemode 127.0.0.1:2003 proto tcp;
CONF
cat > /etc/systemd/system/carbon-relay.service << 'CONF'
[Unit]
Description=carbon-c-relay
[Service]
User=carbon-c-relay
ExecStart=/usr/bin/carbon-c-relay -f /etc/carbon-relay.conf -q 1000000
Restart=always
[Install]
WantedBy=multi-user.target
CONF
systemctl daemon-reload
systemctl enable --quiet --now carbon-relay

# graphite-web
cat >> /etc/graphite/local_settings.py << CONF
SECRET_KEY = '$(head -c 32 /dev/urandom | base64)'
ALLOWED_HOSTS = ['localhost', '127.0.0.1']
TIME_ZONE = 'UTC'
CACHES = {
    'default': {
        'BACKEND': 'django.core.cache.backends.memcached.PyMemcacheCache',
        'LOCATION': '127.0.0.1:11211',
        'OPTIONS': {'ignore_exc': True},
    }
}
DEFAULT_CACHE_DURATION = 10
CONF
install -d -o _graphite -g _graphite /var/log/graphite
runuser -u _graphite -- graphite-manage migrate --run-syncdb --noinput --verbosity 0
DJANGO_SUPERUSER_PASSWORD=secret runuser -u _graphite -- \
  graphite-manage createsuperuser --noinput --username admin --email admin@localhost.invalid --verbosity 0

# Apache
cp /usr/share/graphite-web/apache2-graphite.conf /etc/apache2/sites-available/graphite.conf
a2dissite -q 000-default > /dev/null
a2ensite -q graphite > /dev/null
systemctl restart apache2

# StatsD, from the registry's archives
useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin statsd
mkdir -p /opt/statsd/node_modules/statsd /opt/statsd/node_modules/generic-pool
python3 - << 'PYTHON'
import base64
import hashlib
import io
import tarfile
import urllib.request

for name, version, integrity in (
    ("statsd", "0.9.0", "DwQDAZ3osm5ZaQshq7Z/C8nxpqWjj7NVBmHkxZLta9lDOYelPZ8vR976OU1TCHRgGA1bSBuB6glOw9cFkxlyzA=="),
    ("generic-pool", "2.2.0", "mPcLSdb8iADPF5Fy5M7AcFQ07QDxhAbz0KvzUIXVhJBYi8ELRHWXweJ8XTy6lyjh9b3nndSsTeOo3ElOOu2FsA=="),
):
    with urllib.request.urlopen(f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz") as answer:
        content = answer.read()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != integrity:
        raise SystemExit(f"{name} is not what was expected")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            member.name = member.name.partition("/")[2]
            archive.extract(member, f"/opt/statsd/node_modules/{name}", filter="data")
PYTHON
echo '{port: 8125, address: "127.0.0.1", mgmt_address: "127.0.0.1", graphiteHost: "127.0.0.1", graphitePort: 2003, graphite: {legacyNamespace: false}}' \
  > /etc/statsd.js
cat > /etc/systemd/system/statsd.service << 'CONF'
[Unit]
Description=StatsD
After=network-online.target
[Service]
User=statsd
WorkingDirectory=/opt/statsd
ExecStart=/usr/bin/node node_modules/statsd/stats.js /etc/statsd.js
Restart=always
[Install]
WantedBy=multi-user.target
CONF
systemctl daemon-reload
systemctl enable --quiet --now statsd

# The first page
python3 - << 'PYTHON'
import urllib.request

with urllib.request.urlopen("http://127.0.0.1/render?target=carbon.agents.*.cpuUsage&format=json", timeout=60) as answer:
    if answer.status != 200:
        raise SystemExit("graphite-web does not answer")
PYTHON
systemctl is-active --quiet carbon-cache carbon-relay memcached statsd apache2
