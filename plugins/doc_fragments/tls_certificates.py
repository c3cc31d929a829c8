# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that know the certificates of sites."""

    DOCUMENTATION = r"""
options:
  certificates:
    description:
      - The certificates, one for each site. The filter P(metricstack.graphite.apache_wsgi_certificates#filter) makes the list.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the site, and of the files that are made for it in O(directory).
        type: str
        required: true
      variable:
        description: What messages call the certificate.
        type: str
        required: true
      server_name:
        description: Host name or address that clients ask for, which the certificate has to be valid for.
        type: str
        required: true
      certificate:
        description: Path of the certificate, with those of its issuers below it. Either this or O(certificates[].certificate_text).
        type: path
      certificate_text:
        description: Text of the certificate as PEM, which is written to a file in O(directory).
        type: str
      key:
        description: Path of the private key. Either this or O(certificates[].key_text).
        type: path
      key_text:
        description: Text of the private key as PEM, which is written to a file in O(directory) that root alone can read.
        type: str
      chain:
        description: Path of the certificates of the issuers, if they are not in that of the certificate.
        type: path
      chain_text:
        description: Text of the certificates of the issuers as PEM, if they are not in that of the certificate.
        type: str
      self_signed:
        description: Whether the host makes key and certificate by itself, in place of the options above.
        type: bool
        default: false
      days:
        description: Days for which a self-signed certificate is valid.
        type: int
        default: 365
      authority:
        description: Path of the certificates by which clients on the host trust the certificate. If left out, those of the system.
        type: path
      ciphers:
        description: Cipher suites of TLS 1.2, as OpenSSL names them.
        type: str
  directory:
    description: Directory of the files that are made from texts.
    type: path
    default: /etc/apache-wsgi
"""
