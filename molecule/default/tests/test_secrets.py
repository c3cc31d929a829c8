# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""No secret on a command line, in an environment, in a log or in a file that others read, on the host and on the controller.

Every secret of the collection gets a value with a mark, the playbooks run as noisily as Ansible can, also into failures, and the mark
is looked for wherever it might have been left.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, VENV
from jinja2 import Environment, nodes

MARK = "SECRETMARK"
# As in a good password: what is escaped on the way is not recognized by whoever masks it.
ODD = f"{MARK} 'of' a \"user\" \\ größe"
NAME = "secrets.test.example"
CERTIFICATE = "/etc/secrets-test.pem"
BACKUPS = "/var/backups/secrets-test"
# Of each secret, where its value comes from in variables().
GIVEN = {
    "apache_wsgi_sites.tls.key": "graphite_web_tls",  # of which the site of graphite-web is made
    "go_benchmark_password": "go_benchmark_password",
    "graphite_backup_passphrase": "graphite_backup_passphrase",
    "graphite_web_access_without_login.token": "graphite_web_access_without_login",
    "graphite_web_auth.ldap.bind_password": "graphite_web_auth",
    "graphite_web_auth.openid_connect.client_secret": "graphite_web_auth",
    "graphite_web_database.password": "graphite_web_database",
    "graphite_web_secret_key": "graphite_web_secret_key",
    "graphite_web_tls.key": "graphite_web_tls",
    "graphite_web_users.password": "graphite_web_users",
    "graphite_web_users.password_hash": "graphite_web_users",
    "verify_password": "verify_password",
}
HASH = f"pbkdf2_sha256$150000${MARK}salt${'A' * 43}="
# Both are away.
AUTH = {
    "openid_connect": {
        "metadata_url": "https://127.0.0.1:9/.well-known/openid-configuration",
        "client_id": "graphite",
        "client_secret": f"{MARK}-of-the-client",
    },
}
if not VENV:  # which refuses a directory
    AUTH["ldap"] = {
        "uri": "ldaps://127.0.0.1:9",
        "bind_dn": "cn=reader,dc=example,dc=org",
        "bind_password": ODD,
        "user_base": "dc=example,dc=org",
    }
# Made by a run itself; what is done with it takes several stores.
MADE = {"rebalance_password"}

# Reads one line of JSON, the texts to look for, then watches until its standard input ends, and prints what it has found. Every
# program opens the C library before it does anything, and waits there until its command line and its environment have been read: none
# is too short-lived to be seen.
WATCH = """
import ctypes, glob, json, os, select, struct, sys
FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_OPEN_PERM, FAN_ALLOW, AT_FDCWD = 0x04, 0x01, 0x10000, 0x01, -100
wanted = [text.encode() for text in json.loads(sys.stdin.readline())]
libc = ctypes.CDLL(None, use_errno=True)
libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
group = libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY)
assert group >= 0, os.strerror(ctypes.get_errno())
for path in {os.path.realpath(path) for pattern in ("/lib/*/libc.so.6", "/lib64/libc.so.6") for path in glob.glob(pattern)}:
    assert libc.fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, path.encode()) == 0, os.strerror(ctypes.get_errno())
print("watching", flush=True)
seen, found = 0, []
while True:
    ready = select.select([group, 0], [], [])[0]
    if group not in ready:
        break
    events, offset = os.read(group, 65536), 0
    while offset < len(events):
        length, _version, _reserved, _header, _mask, descriptor, process = struct.unpack_from("=IBBHQii", events, offset)
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{process}/{name}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            place = min((text.index(word) for word in wanted if word in text), default=None)
            if place is not None:  # an environment is long
                found.append(f"{name}: {text[max(place - 500, 0) : place + 500].decode(errors='replace')}")
        os.write(group, struct.pack("=iI", descriptor, FAN_ALLOW))
        os.close(descriptor)
        seen += 1
        offset += length
print(json.dumps({"seen": seen, "found": found}))
"""
# Of those who read them, the places on the host; the texts to look for come in on standard input.
LOGS = "/var/log /tmp /var/tmp /root /home /run"
EVERYTHING = "/boot /etc /home /opt /root /run /srv /tmp /usr/local /var"


def every_secret():
    """Return the secrets that roles declare, as paths of options, and the variables of playbooks that are called like one."""

    def declared(options, path=""):
        for name, option in options.items():
            if option.get("no_log"):
                yield path + name
            yield from declared(option.get("options", {}), f"{path}{name}.")

    def texts(node):
        if isinstance(node, str):
            yield node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from texts(child)

    secrets = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        secrets.update(declared(yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]))
    for path in ROOT.glob("playbooks/**/*.yml"):
        for text in texts(yaml.safe_load(path.read_text())):
            names = {node.name for node in Environment().parse(text).find_all(nodes.Name)} if "{{" in text else set()
            secrets.update(name for name in names if name.endswith(("key", "passphrase", "password", "secret", "token")))
    return secrets


def in_host(host, *command, stdin=""):
    """Run a command on the host whose input is on no command line; return what it prints."""
    arguments = ["docker", "exec", "-i", host.backend.get_hostname(), *command]
    return subprocess.run(arguments, input=stdin, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def database(host):
    """A database server for which graphite-web has a password; none where graphite-web is in a virtual environment."""
    if VENV:
        yield {}
        return
    host.run_expect([0], "apt-get -q -y --no-install-recommends install postgresql")
    # An earlier run may have been ended before it removed the server, which logs statements that fail: with the password, "already exists".
    statements = (
        "DROP DATABASE IF EXISTS graphite WITH (FORCE);\nDROP USER IF EXISTS graphite;\n"
        f"CREATE USER graphite PASSWORD $mark${ODD}$mark$;\nCREATE DATABASE graphite OWNER graphite;\n"
    )
    in_host(host, "runuser", "-u", "postgres", "--", "psql", "-qX", stdin=statements)
    yield {"engine": "django.db.backends.postgresql", "name": "graphite", "user": "graphite", "password": ODD, "host": "127.0.0.1"}
    host.run_expect([0], "apt-get -q -y purge 'postgresql*'")


@pytest.fixture(scope="module")
def variables(host, database):
    """All secrets of the collection, with marks."""
    request = f"openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} -out {CERTIFICATE}"
    key = in_host(host, "sh", "-c", f"{request} -keyout /dev/stdout 2> /dev/null")
    certificate = host.file(CERTIFICATE).content_string
    yield {
        "go_benchmark_password": f"{MARK}-of-the-benchmark",
        "graphite_backup_directory": BACKUPS,
        "graphite_backup_passphrase": ODD,
        "graphite_web_access": {"read": "users"},
        "graphite_web_access_without_login": [{"name": "program", "token": f"{MARK}-token-of-a-program", "areas": ["read"]}],
        "graphite_web_auth": AUTH,
        "graphite_web_secret_key": f"{MARK}-secret-key-1234567890-abcdefghijklmnopqrstuvwxyz",
        "graphite_web_server_name": NAME,
        "graphite_web_tls": {"certificate": certificate, "key": key, "authority": CERTIFICATE},
        "graphite_web_users": [{"name": "admin", "password": ODD, "superuser": True}, {"name": "hashed", "password_hash": HASH}],
        "verify_password": ODD,
        "verify_username": "admin",
        **({"graphite_web_database": database} if database else {}),
    }
    host.run(f"rm -rf {CERTIFICATE} {BACKUPS}")


@pytest.fixture(scope="module")
def words(variables):
    """The forms in which a secret could be found."""
    basic = base64.b64encode(f"admin:{variables['verify_password']}".encode()).decode()
    return [MARK, basic, *variables["graphite_web_tls"]["key"].splitlines()[1:-1]]


@pytest.fixture
def watched(host, words):
    """See the command line and the environment of every program that starts, on the host and, as root, on the controller."""
    commands = {"host": ["docker", "exec", "-i", host.backend.get_hostname(), "/usr/bin/python3", "-c", WATCH]}
    if os.geteuid() == 0:
        commands["controller"] = [sys.executable, "-c", WATCH]
    watches = {}
    for place, command in commands.items():
        watch = watches[place] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        watch.stdin.write(json.dumps([*words, "CANARY"]) + "\n")
        watch.stdin.flush()
        assert watch.stdout.readline() == "watching\n"

    def end():
        """Return what was found, once it is sure that the watches see what there is to see."""
        in_host(host, "/bin/true", "CANARY")
        in_host(host, "env", "X=CANARY", "/bin/true")
        subprocess.run(["true", "CANARY"], check=True, env={**os.environ, "X": "CANARY"})
        found = {place: json.loads(watch.communicate()[0]) for place, watch in watches.items()}
        for place, result in found.items():
            assert {line.partition(":")[0] for line in result["found"] if "CANARY" in line} == {"cmdline", "environ"}, place
        return {place: [line for line in result["found"] if "CANARY" not in line] for place, result in found.items()}

    yield end
    for watch in watches.values():
        watch.kill()
        watch.wait()


@pytest.fixture
def noisy(run_ansible, tmp_path):
    """Run a playbook with all that Ansible can say; return its exit status and its output."""
    places = {"ANSIBLE_LOG_PATH": "ansible.log", "ANSIBLE_CACHE_PLUGIN_CONNECTION": "facts", "ANSIBLE_LOCAL_TEMP": "local", "TMPDIR": "tmp"}
    environment = {name: str(tmp_path / "left" / place) for name, place in places.items()}
    (tmp_path / "left" / "tmp").mkdir(parents=True)
    # Without pipelining, as by default, modules and their arguments are in files on the host. On a terminal, as ssh has one then, sudo-rs
    # drops the end of some results (test_become.py), and the run would end there.
    environment |= {"ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_PIPELINING": "0", "ANSIBLE_SSH_USETTY": "0"}
    outputs = tmp_path / "left" / "output"

    def run(playbook, variables, *options):
        given = tmp_path / "variables.json"
        given.write_text(json.dumps({"verify_artifacts_directory": str(tmp_path / "left" / "artifacts"), **variables}))
        status, output, errors = run_ansible(
            "ansible-playbook", ROOT / "playbooks" / playbook, "-vvv", "-e", f"@{given}", *options, **environment
        )
        with outputs.open("a") as file:
            file.write(f"{output}{errors}\n")
        return status, output + errors

    return run


@pytest.fixture
def site_comes_back(playbook, database):
    """Give the host back to the other tests as it was, however this one ends."""
    yield
    status, output = playbook("site.yml", {"graphite_web_database_move": False})
    assert status == 0, output[-3000:]


@pytest.fixture
def left(host, tmp_path):
    """Return every line of the controller and every file of the host in which one of the words was left."""
    since = in_host(host, "date", "+@%s").strip()

    def look(words):
        found, text = [], "\n".join(words) + "\n"
        for path in Path(tmp_path / "left").rglob("*"):
            lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
            found += [f"{path.name}: {line[:2000]}" for line in lines if any(word in line for word in words)]
        search = "grep -rsF -D skip -f -"
        found += in_host(host, "sh", "-c", f"journalctl --since {since} --all --no-pager --output export > /var/tmp/journal")
        found += in_host(host, "sh", "-c", f"{search} --text -h /var/tmp/journal; rm /var/tmp/journal", stdin=text).splitlines()
        found += in_host(host, "sh", "-c", f"{search} --exclude-dir=journal -l {LOGS}", stdin=text).splitlines()
        for user in ("nobody", "www-data"):
            command = ["runuser", "-u", user, "--", "sh", "-c", f"{search} -l {EVERYTHING}"]
            found += [f"{path}, as {user}" for path in in_host(host, *command, stdin=text).splitlines()]
        return found

    return look


def test_every_secret_has_a_mark(variables):
    assert every_secret() - MADE == set(GIVEN)
    missing = {name for name in GIVEN.values() if name not in variables}
    assert missing <= ({"graphite_web_database"} if VENV else set())


@pytest.mark.usefixtures("site_comes_back")
def test_no_secret_is_left_anywhere(host, noisy, watched, left, variables, database, words):
    assert noisy("site.yml", variables, "--check")[0] == 0
    for name in ("site.yml", "verify.yml", "backup.yml", "doctor.yml"):
        status, output = noisy(name, variables)
        assert status == 0, f"{name}: {output[-3000:]}"
    status, output = noisy("restore.yml", {**variables, "graphite_restore_force": True})
    assert status == 0, output[-3000:]
    noisy("go_benchmark.yml", variables, "--check")

    def fails(name, words, **changed):
        status, output = noisy(name, {**variables, **changed})
        assert status != 0
        assert words in output, f"{name} with {', '.join(changed)}: {output[-3000:]}"

    # On the controller.
    fails("site.yml", "white space", graphite_web_access_without_login=[{"name": "a", "token": f"{MARK} x", "areas": ["read"]}])
    fails("site.yml", "graphite_web_users", graphite_web_users=[{"name": "admin", "password": {f"{MARK}-key": f"{MARK}-value"}}])
    fails("site.yml", "graphite_web_secret_key", graphite_web_secret_key={f"{MARK}-key": 1})
    fails("site.yml", "graphite_web_tls", graphite_web_tls={**variables["graphite_web_tls"], "key": [variables["graphite_web_tls"]["key"]]})
    fails("backup.yml", "graphite_backup_passphrase", graphite_backup_passphrase=[f"{MARK}-of-backups"])
    # On the host, before the first change and after it.
    wrong_key = variables["graphite_web_tls"]["key"].replace("M", "N")
    fails("site.yml", "graphite_web_tls", graphite_web_tls={**variables["graphite_web_tls"], "key": wrong_key})
    fails("backup.yml", "passphrase", graphite_backup_passphrase=f"{MARK}-another")
    fails("verify.yml", "401", verify_password=f"{MARK}-another", verify_timeout=1)
    if database:
        fails("site.yml", "password authentication failed", graphite_web_database={**database, "password": f"{MARK}-another"})
        in_host(host, "runuser", "-u", "postgres", "--", "psql", "-qX", "graphite", stdin="ALTER TABLE auth_user RENAME TO gone;\n")
        fails("graphite_web.yml", "auth_user")
    found = {"programs": watched(), "files": left(words)}
    assert found == {"programs": {place: [] for place in found["programs"]}, "files": []}


def test_what_is_left_would_have_been_found(host, left, tmp_path):
    """The search sees a log, the journal and a file that others read."""
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "log").write_text("CANARY\n")
    in_host(host, "sh", "-c", "cat > /etc/secrets-test; cp /etc/secrets-test /root; systemd-cat cat /etc/secrets-test", stdin="CANARY\n")
    try:
        found = "\n".join(left(["CANARY"]))
        places = ("log: ", "MESSAGE=CANARY", "/root/secrets-test", "/etc/secrets-test, as nobody", "/etc/secrets-test, as www-data")
        assert all(place in found for place in places), found
    finally:
        host.run("rm -f /etc/secrets-test /root/secrets-test")
