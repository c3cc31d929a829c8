#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# Carbon and graphite-web from their sources on PyPI, into /opt/graphite, as upstream's documentation and the installers that follow it do.
# Their setup.py puts files there when it is run as such; today's pip builds wheels, which go elsewhere.
set -eux
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends apache2 libapache2-mod-wsgi-py3 python3-pip python3-setuptools python3-django \
  python3-django-tagging python3-cairocffi python3-pyparsing python3-tz python3-six python3-urllib3 python3-twisted python3-cachetools \
  python3-whisper libjs-jquery
mkdir -p /root/src
cd /root/src
pip download --quiet --no-deps --no-binary :all: --no-build-isolation carbon==1.1.10 graphite-web==1.1.10
for archive in *.tar.gz; do
  tar -xf "$archive"
  # Debian's setuptools knows options that the distutils of Debian's Python alone has.
  (cd "${archive%.tar.gz}" && SETUPTOOLS_USE_DISTUTILS=stdlib python3 setup.py -q install)
done

cd /opt/graphite
for file in carbon.conf storage-schemas.conf storage-aggregation.conf graphite.wsgi dashboard.conf; do
  cp "conf/$file.example" "conf/$file"
done
sed -i 's/^USER =.*/USER = carbon/' conf/carbon.conf
# At the beginning: the first match wins.
sed -i '1i [stats]\npattern = ^stats\\.\nretentions = 10s:1d\n' conf/storage-schemas.conf
cp /root/local_settings.py webapp/graphite/local_settings.py
export PYTHONPATH=/opt/graphite/webapp DJANGO_SETTINGS_MODULE=graphite.settings
django-admin migrate --noinput --run-syncdb > /dev/null
django-admin collectstatic --noinput > /dev/null
django-admin shell < /root/content.py
useradd --system --shell /bin/false carbon
chown -R carbon storage/whisper storage/lists storage/log
chown -R www-data storage/log/webapp
chown www-data storage storage/graphite.db

cp /root/carbon-cache.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now carbon-cache
a2dissite 000-default
# As the file asks its readers to.
sed 's,^WSGISocketPrefix .*,WSGISocketPrefix /var/run/apache2/wsgi,' examples/example-graphite-vhost.conf > /etc/apache2/sites-available/upstream.conf
a2ensite upstream
systemctl restart apache2
