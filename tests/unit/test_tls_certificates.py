# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What is wrong with a certificate is told before the first change; on real keys and certificates of OpenSSL."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.tag_names import TagNames, TagNamesError
from ansible_collections.metricstack.graphite.plugins.module_utils._host import tls
from ansible_collections.metricstack.graphite.plugins.module_utils._host.resolver import resolved

ROOT = Path(__file__).resolve().parents[2]
NAME = "graphite.example.org"
DAY = 86400


class Authority:
    """A certificate authority with an intermediate one, and what they have signed: files NAME.pem and NAME.key in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.make("root", ca=True)
        self.make("intermediate", issuer="root", ca=True)
        self.make("site", issuer="intermediate", names=f"DNS:{NAME},DNS:*.wild.example.org,IP:192.0.2.7")
        self.make("elder", issuer="intermediate", names=f"DNS:{NAME}", days=-1)
        self.make("other", issuer="intermediate", names="DNS:other.example.org")
        self.make("weak", issuer="intermediate", names=f"DNS:{NAME}", bits=1024)
        self.make("alone", names=f"DNS:{NAME}")
        # Of another authority with the same name.
        (directory / "impostor").mkdir()
        self.make("impostor/root", subject="root", ca=True)
        self.make("impostor/intermediate", issuer="impostor/root", subject="intermediate", ca=True)
        self.write("full", "site", "intermediate")
        self._openssl("pkey", "-in", "site.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
        # Given as a key by a test, which is not about who can read it: others of the suite open the directories above.
        (directory / "root.pem").chmod(0o600)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._directory, check=True, capture_output=True)

    def make(self, name, issuer=None, subject="", names="", ca=False, days=30, bits=2048) -> None:
        extensions = f"[ext]\nbasicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}\nsubjectKeyIdentifier=hash\n"
        extensions += "authorityKeyIdentifier=keyid\n" if issuer else ""
        extensions += f"subjectAltName={names}\n" if names else ""
        (self._directory / "extensions").write_text(extensions)
        self._openssl("req", "-new", "-newkey", f"rsa:{bits}", "-nodes", "-subj", f"/O=Test/CN={subject or name}", *self._out(name))
        signer = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial"] if issuer else ["-signkey", f"{name}.key"]
        files = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "extensions", "-extensions", "ext"]
        self._openssl("x509", "-req", "-days", str(days), "-sha256", *files, *signer)

    @staticmethod
    def _out(name: str) -> list[str]:
        return ["-keyout", f"{name}.key", "-out", f"{name}.csr"]

    def path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def text(self, name: str) -> str:
        return Path(self.path(name)).read_text()

    def write(self, name: str, *parts: str) -> None:
        Path(self.path(f"{name}.pem")).write_text("".join(self.text(f"{part}.pem") for part in parts))


@pytest.fixture(scope="module")
def authority(made_once):
    """Made once; nothing in it changes."""
    holder = []

    def make(directory):
        holder.append(Authority(directory))

    directory = made_once("authority", make)
    if not holder:
        made = Authority.__new__(Authority)
        made._directory = directory
        holder.append(made)
    return holder[0]


@pytest.fixture
def examine(authority):
    """Return the problems of a certificate, by the names of the files of the authority."""

    def examine(server_name=NAME, ca="root.pem", now=None, **parts):
        paths = {part: authority.path(name) for part, name in parts.items() if part in ("certificate", "key", "chain")}
        texts = {part: value for part, value in parts.items() if part not in paths}
        wanted = {
            "variable": "graphite_web_tls",
            "server_name": server_name,
            "authority": authority.path(ca) if ca else "",
            **paths,
            **texts,
        }
        return tls.Examination(wanted, time.time() if now is None else now).problems

    return examine


@pytest.mark.parametrize(
    "parts",
    [
        {"certificate": "full.pem", "key": "site.key"},
        {"certificate": "site.pem", "key": "site.key", "chain": "intermediate.pem"},
        {"certificate": "full.pem", "key": "site.key", "server_name": "192.0.2.7"},
        {"certificate": "full.pem", "key": "site.key", "server_name": "a.wild.example.org"},
        {"certificate": "full.pem", "key": "site.key", "ciphers": tls.DEFAULT_CIPHERS},
        {"certificate": "alone.pem", "key": "alone.key", "ca": "alone.pem"},
    ],
)
def test_a_good_certificate_is_taken(examine, parts):
    assert examine(**parts) == []


def test_a_good_certificate_is_taken_as_text(examine, authority):
    assert examine(certificate_text=authority.text("full.pem"), key_text=authority.text("site.key")) == []


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"certificate": "full.pem", "key": "other.key"}, ["key is ", "/other.key, which does not fit the certificate", "/full.pem"]),
        ({"certificate": "full.pem", "key": "locked.key"}, ["key is ", "/locked.key, which has a passphrase", "openssl pkey"]),
        ({"certificate": "full.pem", "key": "none.key"}, ["key is ", "/none.key, which cannot be read: No such file", "correct the path"]),
        ({"certificate": "full.pem", "key": "root.pem"}, ["key is ", "/root.pem, which has no -----BEGIN PRIVATE KEY-----"]),
        ({"certificate": "site.key", "key": "site.key"}, ["certificate is ", "has no -----BEGIN CERTIFICATE-----"]),
        ({"certificate": "elder.pem", "key": "elder.key", "chain": "intermediate.pem"}, ["has ended at 20", "Renew it."]),
        ({"certificate": "full.pem", "key": "site.key", "now": 1e9}, ["is not valid before 20", "2001-09-09"]),
        (
            {"certificate": "other.pem", "key": "other.key", "chain": "intermediate.pem"},
            ["which is for other.example.org and not for graphite.example.org"],
        ),
        ({"certificate": "full.pem", "key": "site.key", "server_name": "b.a.wild.example.org"}, ["and not for b.a.wild"]),
        (
            {"certificate": "site.pem", "key": "site.key", "chain": "root.pem"},
            ["chain is ", "'root' after 'site', whose issuer is 'interm"],
        ),
        ({"certificate": "site.pem", "key": "site.key", "chain": "impostor/intermediate.pem"}, ["which its chain does not verify"]),
        ({"certificate": "full.pem", "key": "site.key", "ca": "impostor/root.pem"}, ["authority is ", "which does not verify the cert"]),
        ({"certificate": "full.pem", "key": "site.key", "ca": "none.pem"}, ["authority is ", "cannot be read: No such file"]),
        ({"certificate": "site.pem", "key": "site.key"}, ["authority is ", "which does not verify"]),
        ({"certificate": "weak.pem", "key": "weak.key"}, ["key is ", "OpenSSL refuses it", "too small"]),
        ({"certificate": "full.pem", "key": "site.key", "ciphers": "NONE"}, ["ciphers is 'NONE', of which this host's OpenSSL knows none"]),
        ({"certificate": "full.pem", "key": "site.key", "ciphers": "AES128-SHA"}, ["ciphers is 'AES128-SHA', which allows AES128-SHA, wi"]),
        ({"certificate": "full.pem", "key": "site.key", "ciphers": "HIGH"}, ["and others, without forward secrecy"]),
    ],
)
def test_a_bad_certificate_is_refused_with_what_to_do(examine, parts, words):
    (problem,) = examine(**parts)
    assert problem.startswith("graphite_web_tls: ")
    assert [word for word in words if word not in problem] == [], problem


def test_everything_that_is_wrong_is_told_at_once(examine, authority):
    problems = examine(certificate="elder.pem", key="none.key", chain="root.pem", server_name="x.example.org", ciphers="AES128-SHA")
    told = ["cannot be read", "has ended", "not for x.example.org", "'root' after 'elder'", "ciphers is"]
    assert [word for word, problem in zip(told, problems) if word not in problem] == []
    assert len(problems) == len(told)


def test_a_chain_in_the_wrong_order_is_told_from_a_wrong_one(examine, authority):
    authority.write("reversed", "site", "root", "intermediate")
    (problem,) = examine(certificate="reversed.pem", key="site.key")
    assert "'root' after 'site', whose issuer is 'intermediate'. Sort it" in problem


def test_a_certificate_that_the_system_does_not_trust_needs_an_authority(authority, tmp_path):
    wanted = {"variable": "v", "server_name": NAME, "certificate": authority.path("alone.pem"), "key": authority.path("alone.key")}
    (problem,) = tls.Examination(wanted, time.time(), authority.path("root.pem")).problems
    assert f"Set authority to {authority.path('alone.pem')}, by which" in problem
    # Without its authorities, the host gets them with the package.
    assert tls.Examination(wanted, time.time(), f"{tmp_path}/none").problems == []


def test_a_key_that_others_can_read_is_refused(authority, monkeypatch, tmp_path):
    key = tmp_path / "keys" / "site.key"
    key.parent.mkdir()
    key.write_text(authority.text("site.key"))
    # pytest keeps its directories for their owner.
    reachable = tls._is_reachable
    monkeypatch.setattr(tls, "_is_reachable", lambda path, gid, top="/": reachable(path, gid, str(tmp_path)))
    wanted = {"variable": "v", "server_name": NAME, "certificate": authority.path("full.pem"), "authority": authority.path("root.pem")}

    def problems(path=key):
        return tls.Examination({**wanted, "key": str(path)}, time.time()).problems

    key.chmod(0o644)
    (problem,) = problems()
    assert f"key is {key}, which everybody can read" in problem
    assert f"chmod 0600 {key}" in problem
    link = tmp_path / "link"
    link.symlink_to(key)
    assert f"chmod 0600 {key}" in problems(link)[0]
    # A directory above keeps everybody away, as certbot's do.
    key.parent.chmod(0o700)
    assert problems() == []
    key.parent.chmod(0o755)
    key.chmod(0o640)
    assert problems() == []
    if os.geteuid() == 0:
        os.chown(key, 0, 65534)
        assert "which the group nogroup can read" in problems()[0]
        os.chown(key, 65534, 0)
        assert "which its owner, nobody, can read" in problems()[0]


def test_the_files_of_a_site(authority):
    text = {"certificate": authority.text("site.pem"), "key": authority.text("site.key"), "chain": authority.text("intermediate.pem")}
    paths = {"certificate": "/c", "key": "/k", "chain": "/i"}
    assert tls.certificate_files(paths, "a") == paths
    assert tls.certificate_files({"certificate": "/c", "key": "/k"}, "a") == {"certificate": "/c", "key": "/k", "chain": ""}
    assert tls.certificate_files(text, "a") == {"certificate": "/etc/apache-wsgi/a.pem", "key": "/etc/apache-wsgi/a.key", "chain": ""}
    assert tls.certificate_files({**paths, "chain": text["chain"]}, "a")["chain"] == "/etc/apache-wsgi/a-chain.pem"
    made = tls.certificate_files({"self_signed": True}, "a")
    assert made == {"certificate": "/etc/apache-wsgi/a.pem", "key": "/etc/apache-wsgi/a.key", "chain": ""}
    assert tls.authority_of({"self_signed": True}, "a") == made["certificate"]
    assert tls.authority_of({"self_signed": True, "authority": "/x"}, "a") == "/x"
    assert tls.authority_of(paths, "a") == ""


@pytest.fixture
def certificates(run_module, authority, tmp_path):
    """Run one of the two modules for one certificate."""

    def certificates(module, *flags, **options):
        wanted = {"name": "graphite", "variable": "graphite_web_tls", "server_name": NAME, **options}
        return run_module(module, *flags, certificates=[wanted], directory=f"{tmp_path}/made")

    return certificates


def test_texts_are_written_and_no_key_is_shown(certificates, authority, tmp_path):
    options = {
        "certificate_text": authority.text("site.pem"),
        "chain_text": authority.text("intermediate.pem"),
        "key_text": authority.text("site.key"),
        "authority": authority.path("root.pem"),
    }
    made = tmp_path / "made"
    checked = certificates("tls_certificates", "--check", **options)
    assert checked["changed_paths"] == [f"{made}/graphite.key", f"{made}/graphite.pem"]
    assert not made.exists()
    result = certificates("tls_certificates", "-vvv", **options)
    assert result["changed"]
    secret = options["key_text"].splitlines()[1]
    assert secret not in json.dumps(result)
    assert result["invocation"]["module_args"]["certificates"][0]["key_text"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert stat.S_IMODE((made / "graphite.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((made / "graphite.pem").stat().st_mode) == 0o644
    assert (made / "graphite.pem").read_text() == options["certificate_text"] + options["chain_text"]
    assert sorted(path.name for path in made.iterdir()) == ["graphite.key", "graphite.pem"]
    assert not certificates("tls_certificates", **options)["changed"]
    (made / "graphite.key").chmod(0o644)
    assert certificates("tls_certificates", **options)["changed_paths"] == [f"{made}/graphite.key"]


def test_texts_that_are_wrong_are_not_written(certificates, authority, tmp_path):
    options = {"certificate_text": authority.text("full.pem"), "key_text": authority.text("other.key")}
    (problem,) = certificates("tls_certificates_info", **options)["problems"]
    assert "graphite_web_tls: key is the text, which does not fit the certificate the text" in problem
    assert "does not fit" in certificates("tls_certificates", **options)["msg"]
    assert not (tmp_path / "made").exists()


def test_a_self_signed_certificate_is_made_once(certificates, tmp_path):
    options = {"self_signed": True, "authority": f"{tmp_path}/made/graphite.pem", "ciphers": tls.DEFAULT_CIPHERS}
    assert certificates("tls_certificates_info", **options) == {"changed": False, "problems": [], "unmade": ["graphite"], "shown_diff": ""}
    assert certificates("tls_certificates", "--check", **options)["changed"]
    assert certificates("tls_certificates", **options)["changed"]
    first = (tmp_path / "made" / "graphite.pem").read_text()
    assert stat.S_IMODE((tmp_path / "made" / "graphite.key").stat().st_mode) == 0o600
    assert not certificates("tls_certificates", **options)["changed"]
    assert certificates("tls_certificates_info", **options)["unmade"] == []
    made = tls.Certificate(ssl.PEM_cert_to_DER_cert(first))
    assert (made.names, made.is_self_signed, made.shown) == ([NAME], True, f"'{NAME}'")
    assert 364 * DAY < made.ends - time.time() < 366 * DAY
    assert certificates("tls_certificates", **{**options, "server_name": "192.0.2.7"})["changed"]
    assert (tmp_path / "made" / "graphite.pem").read_text() != first
    (problem,) = certificates("tls_certificates_info", **{**options, "ciphers": "AES128-SHA"})["problems"]
    assert "ciphers is 'AES128-SHA'" in problem


def test_python_reads_the_same_of_a_certificate(authority):
    for name in ("site", "elder", "root"):
        decoded = ssl._ssl._test_decode_cert(authority.path(f"{name}.pem"))
        ours = tls.Certificate(ssl.PEM_cert_to_DER_cert(authority.text(f"{name}.pem")))
        assert (ours.begins, ours.ends) == tuple(ssl.cert_time_to_seconds(decoded[key]) for key in ("notBefore", "notAfter"))
        assert ours.names == [value for _kind, value in decoded.get("subjectAltName", ())]
        assert ours.is_self_signed == (decoded["subject"] == decoded["issuer"])
    for broken in (b"", b"\x30", ssl.PEM_cert_to_DER_cert(authority.text("site.pem"))[:100]):
        with pytest.raises(ValueError, match=r"cut off|values to unpack"):
            tls.Certificate(broken)


class Site(http.server.ThreadingHTTPServer):
    """A site over TLS that tells for which name it was asked."""

    def __init__(self, authority: Authority, name: str = "full", key: str = "site") -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/version/" else 404)
                self.end_headers()

            def log_message(self, *_arguments):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.path(f"{name}.pem"), authority.path(f"{key}.key"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def site(authority):
    started = []

    def start(*arguments):
        started.append(Site(authority, *arguments))
        return f"https://{NAME}:{started[-1].server_port}"

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


def test_a_site_is_asked_by_its_name_at_another_address(run_module, authority, site):
    url = site()
    wanted = {"url": f"{url}/version/", "connect_address": "127.0.0.1", "ca_path": authority.path("root.pem")}
    assert run_module("http_probe", sites=[{**wanted, "certificate": authority.path("full.pem")}])["statuses"] == {f"{url}/version/": 200}
    for change, words in (
        ({"url": f"{url}/"}, "it answers 404"),
        ({"ca_path": authority.path("impostor/root.pem")}, "certificate verify failed"),
        ({"url": f"{url}/version/".replace(NAME, "x.example.org")}, "x.example.org"),
        ({"certificate": authority.path("other.pem")}, f"it shows another certificate than that in {authority.path('other.pem')}"),
    ):
        failed = run_module("http_probe", sites=[wanted, {**wanted, **change}], timeout=0)
        assert words in failed["msg"]
        assert len(failed["failures"]) == 1


def test_graphite_web_is_asked_over_tls(run_module, authority, site):
    arguments = {"url": site(), "connect_address": "127.0.0.1", "targets": ["a"], "secret_key_file": "/nowhere"}
    assert "answered 501" in run_module("graphite_render_info", ca_path=authority.path("root.pem"), **arguments)["msg"]
    refused = run_module("graphite_render_info", ca_path=authority.path("impostor/root.pem"), **arguments)
    assert "certificate" in refused["msg"]
    assert refused["status"] == -1


def test_the_names_of_tagged_series_are_asked_over_tls(authority, site, tmp_path):
    url, names = site(), TagNames(str(tmp_path / "names.sqlite"))
    # It answers that it knows no tags.
    with resolved(NAME, "127.0.0.1"):
        assert names.learn(url, authority.path("root.pem")) == 0
    for file, words in (("impostor/root.pem", "certificate verify failed"), ("none.pem", "none.pem cannot be read")):
        with resolved(NAME, "127.0.0.1"), pytest.raises(TagNamesError, match=words):
            names.learn(url, authority.path(file))


def test_only_the_name_is_led_elsewhere():
    usual = socket.getaddrinfo
    with resolved("NAME.example", "127.0.0.2"):
        assert socket.getaddrinfo("name.example", 1)[0][4] == ("127.0.0.2", 1)
        assert socket.getaddrinfo("127.0.0.3", 1)[0][4] == ("127.0.0.3", 1)
    assert socket.getaddrinfo is usual
    with resolved("name.example", ""):
        assert socket.getaddrinfo is usual


def test_the_default_is_good_enough_for_ourselves():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(tls.DEFAULT_CIPHERS)
    assert [cipher["name"] for cipher in context.get_ciphers() if tls.is_weak(cipher)] == []
    assert len(re.findall(r"[^:]+", tls.DEFAULT_CIPHERS)) == 6


@pytest.fixture
def renewal(authority, monkeypatch, tmp_path):
    """The program that systemd starts when a certificate changes, with a systemctl that only says that it was called."""
    spec = importlib.util.spec_from_file_location("renewal", ROOT / "roles" / "apache_wsgi" / "files" / "reload.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SETTLED, module.PATIENCE, module.calls = 0.2, 3.0, []
    monkeypatch.setattr(module.subprocess, "run", lambda command, check: module.calls.append((command, time.monotonic())))
    module.files = [str(tmp_path / name) for name in ("fullchain.pem", "privkey.pem")]
    for file, name in zip(module.files, ("full.pem", "site.key")):
        os.symlink(authority.path(name), file)
    return module


def test_a_renewed_certificate_is_waited_for_until_its_key_has_come(renewal, authority):
    assert renewal.main(renewal.files) == 0
    assert [command for command, _when in renewal.calls] == [["systemctl", "try-reload-or-restart", "apache2.service"]]
    renewal.calls.clear()
    certificate, key = renewal.files

    def swap(file, name):
        os.unlink(file)
        os.symlink(authority.path(name), file)

    swap(certificate, "alone.pem")
    swapped = threading.Timer(1, swap, (key, "alone.key"))
    swapped.start()
    began = time.monotonic()
    assert renewal.main(renewal.files) == 0
    assert [when - began > 1 for _command, when in renewal.calls] == [True]


def test_apache_keeps_a_certificate_whose_successor_has_no_key(renewal, authority, capsys):
    os.unlink(renewal.files[1])
    assert renewal.main(renewal.files) == 1
    os.symlink(authority.path("other.key"), renewal.files[1])
    assert renewal.main(renewal.files) == 1
    os.unlink(renewal.files[1])
    os.symlink(authority.path("locked.key"), renewal.files[1])
    assert renewal.main(renewal.files) == 1
    assert renewal.calls == []
    assert "Apache keeps the certificate that it has. " in capsys.readouterr().err


def test_what_changes_while_apache_reloads_is_not_missed(renewal, authority, monkeypatch):
    def reload(command, check):
        renewal.calls.append(command)
        if len(renewal.calls) == 1:
            for file, name in zip(renewal.files, ("alone.pem", "alone.key")):
                os.unlink(file)
                os.symlink(authority.path(name), file)

    monkeypatch.setattr(renewal.subprocess, "run", reload)
    assert renewal.main(renewal.files) == 0
    assert len(renewal.calls) == 2
