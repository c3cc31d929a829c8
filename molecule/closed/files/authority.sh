#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# authority.sh DIRECTORY NAME…: a root, an authority below it, and a certificate of that for each name, whose file has the chain in it.
set -eu
mkdir -p "$1"
cd "$1"
shift

# make NAME SUBJECT EXTENSIONS [ISSUER]
make() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr"
  printf '%b' "$3" > "$1.ext"
  if [ -n "${4-}" ]; then
    openssl x509 -req -in "$1.csr" -CA "$4.pem" -CAkey "$4.key" -CAcreateserial -days 90 -extfile "$1.ext" -out "$1.pem"
  else
    openssl x509 -req -in "$1.csr" -key "$1.key" -days 90 -extfile "$1.ext" -out "$1.pem"
  fi
  rm "$1.csr" "$1.ext"
}

authority='basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'
make root "/CN=Root of the tests" "$authority"
make issuer "/CN=Issuer of the tests" "$authority" root
for name; do
  make "$name" "/CN=$name" \
    "subjectAltName=DNS:$name\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n" issuer
  cat issuer.pem >> "$name.pem"
done
