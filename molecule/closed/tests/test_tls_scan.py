# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""TLS as scanners see it from another host: sslscan, testssl.sh, and OpenSSL itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from xml.etree import ElementTree

import pytest

NAME = "graphite.test.example"
PEER = os.environ.get("MOLECULE_HOST", "metricstack-closed") + "-peer"
AUTHORITY = "/etc/test-authority/root.pem"


def on_peer(*command, text=""):
    result = subprocess.run(["docker", "exec", "-i", PEER, *command], input=text, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def s_client(*options, text=""):
    return on_peer("openssl", "s_client", "-connect", f"{NAME}:443", "-servername", NAME, "-CAfile", AUTHORITY, *options, text=text)


@pytest.fixture(scope="module")
def sslscan():
    return ElementTree.fromstring(on_peer("sslscan", "--no-colour", "--xml=-", f"--sni-name={NAME}", f"{NAME}:443")).find("ssltest")


@pytest.fixture(scope="module")
def testssl():
    """Return what testssl.sh has found, by its name for it."""
    script = (
        "rm -f /tmp/testssl.json; testssl --quiet --color 0 --warnings batch --protocols --server-defaults --vulnerable --forward-secrecy"
        " --add-ca /etc/test-authority/root.pem --jsonfile /tmp/testssl.json https://$0 > /dev/null 2>&1; cat /tmp/testssl.json"
    )
    return {found["id"].split(" ")[0]: found for found in json.loads(on_peer("sh", "-c", script, NAME))}


def test_only_tls_1_2_and_1_3_are_offered(sslscan):
    offered = {f"{one.get('type')}{one.get('version')}" for one in sslscan.findall("protocol") if one.get("enabled") == "1"}
    assert offered == {"tls1.2", "tls1.3"}


def test_every_cipher_is_strong_and_has_forward_secrecy(sslscan):
    ciphers = [(one.get("sslversion"), one.get("cipher"), int(one.get("bits"))) for one in sslscan.findall("cipher")]
    assert {version for version, _name, _bits in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for version, name, bits in ciphers:
        assert bits >= 128
        assert re.search("GCM|CHACHA20|CCM", name), name
        assert version == "TLSv1.3" or name.startswith("ECDHE-"), name


def test_neither_compression_nor_renegotiation_of_clients_nor_heartbleed(sslscan):
    assert sslscan.find("compression").get("supported") == "0"
    assert all(one.get("vulnerable") == "0" for one in sslscan.findall("heartbleed"))
    # The client asks to negotiate anew; the server refuses or ends the connection.
    answer = s_client("-tls1_2", "-legacy_renegotiation", text="R\n")
    assert "RENEGOTIATING" in answer
    assert re.search("no renegotiation|unexpected eof|alert|handshake failure", answer), answer[-2000:]


@pytest.mark.parametrize(
    "options",
    [
        ("-tls1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        *(("-tls1_2", "-cipher", f"{name}:@SECLEVEL=0") for name in ("AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "aNULL")),
        ("-tls1_2", "-cipher", "ALL:!ECDHE:@SECLEVEL=0"),
    ],
    ids=" ".join,
)
def test_what_is_weak_is_not_agreed_on(options):
    answer = s_client(*options)
    # The server's word, not OpenSSL's of the peer.
    assert re.search("alert (protocol version|handshake failure)|SSL alert number", answer), answer
    assert "Cipher is (NONE)" in answer


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_the_chain_is_complete_and_for_the_name(version):
    answer = s_client(version, "-verify_return_error", "-verify_hostname", NAME, "-showcerts")
    assert "Verify return code: 0 (ok)" in answer
    # The root, which clients have, is not sent.
    assert answer.count("-----BEGIN CERTIFICATE-----") == 2
    assert "Compression: NONE" in answer


def test_another_name_gets_no_other_certificate():
    for name in ("evil.example", "localhost"):
        answer = on_peer("openssl", "s_client", "-connect", f"{NAME}:443", "-servername", name, "-CAfile", AUTHORITY)
        assert "unrecognized name" in answer or f"CN={NAME}" in answer.replace(" ", "")


def test_no_answer_of_an_authority_is_stapled():
    """The documentation promises none: an authority of one's own may have no such service, and public ones are ending theirs."""
    assert "OCSP response: no response sent" in s_client("-status")


def test_testssl_finds_no_vulnerability(testssl):
    assert testssl, "testssl.sh has said nothing"
    bad = {name: found["finding"] for name, found in testssl.items() if found["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")}
    # The authority of the tests has no service for what it has taken back.
    assert bad in ({}, {"cert_revocation": "Neither CRL nor OCSP URI provided"})


def test_testssl_agrees_about_the_versions(testssl):
    assert {name: testssl[name]["finding"].split()[0] for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1")} == dict.fromkeys(
        ("SSLv2", "SSLv3", "TLS1", "TLS1_1"), "not"
    )
    assert testssl["FS"]["severity"] == "OK"
