# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pickle
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import callback_loader, init_plugin_loader
from ansible.release import __version__ as ansible_version
from ansible.template import Templar

ROOT = Path(__file__).resolve().parents[2]
# As ansible's own commands do, before anything of the collection is imported: its filters can then be used in templates.
init_plugin_loader([str(ROOT / ".ansible" / "collections")])

from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import Management, ManagementError  # noqa: E402

try:
    from ansible.template import trust_as_template

    TRUSTED: dict[str, bool] = {"trusted_as_template": True}
except ImportError:  # before ansible-core 2.19, every text is a template
    trust_as_template, TRUSTED = str, {}

SIMULATED_NODE_23 = "delete require('util').log;"


class ForkServer:
    """Runs programs as fork_server.py does."""

    def __init__(self, directory: Path, *loaded: str, **environment: str) -> None:
        self._files = {name: directory / name for name in ("input", "printed", "errors")}
        server = [sys.executable, Path(__file__).with_name("fork_server.py"), *loaded]
        self._process = subprocess.Popen(
            server, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, *command: str | Path, given: str = "", **environment: str) -> tuple[int, str, str]:
        """Run a program with a text as its standard input; return its exit status, and what it has printed to output and error."""
        self._files["input"].write_text(given)
        request = [[str(part) for part in command], environment, *map(str, self._files.values())]
        self._process.stdin.write(json.dumps(request) + "\n")
        status = int(self._process.stdout.readline())
        return status, self._files["printed"].read_text(), self._files["errors"].read_text()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def ansible_command(tmp_path_factory):
    """Run a command of Ansible in the checkout; return its exit status and what it has printed.

    Environment variables reach the plugins. Settings that Ansible reads when it is imported, such as ANSIBLE_STRATEGY, are the server's.
    """
    server = ForkServer(tmp_path_factory.mktemp("ansible"), "ansible.cli.adhoc", "ansible.cli.playbook")

    def run(*command: str | Path, **environment: str) -> tuple[int, str]:
        status, printed, errors = server.run(*command, **environment)
        return status, errors + printed

    yield run
    server.close()


@pytest.fixture(scope="session")
def run_by_ansible(ansible_command):
    """Run a module or an action of the collection on this machine through the command ``ansible``; return its result, and its output.

    This takes seconds. ``run_module`` is for the module alone, and test_front_door.py checks that both give the same.
    """

    def run(module: str, /, *flags: str, **arguments: object) -> tuple[dict, str]:
        command = ["ansible", "localhost", "--diff", *flags, "-m", f"metricstack.graphite.{module}", "-a", json.dumps(arguments)]
        _status, output = ansible_command(*command, ANSIBLE_CALLBACK_RESULT_FORMAT="json", ANSIBLE_INJECT_INVOCATION="true")
        diff, arrow, answer = output.partition(" => ")
        assert arrow, output
        return {**json.loads(answer), "shown_diff": diff}, output

    return run


@pytest.fixture(scope="session")
def diff_as_shown():
    """Return what a user sees of the diff in a module's result, from the code of Ansible that prints it."""
    callback = callback_loader.get("ansible.builtin.minimal")
    callback.set_options()
    callback.set_option("result_format", "json")
    return callback._get_diff


@pytest.fixture(scope="session")
def run_module(run_by_ansible, diff_as_shown, tmp_path_factory):
    """Run a module of the collection in a process of its own, with the arguments that Ansible gives it; return its result.

    The flags are ``--check`` and ``-vvv``, with which its invocation stays in it. The diff is also there as a user sees it. What has
    an action runs through ``ansible``.
    """
    temporary = tmp_path_factory.mktemp("remote_tmp")
    environment = {"PYTHONPATH": str(ROOT / ".ansible" / "collections"), "PYTHONDONTWRITEBYTECODE": "1"}
    server = ForkServer(tmp_path_factory.mktemp("modules"), "ansible.module_utils.basic", **environment)

    def run(module: str, /, *flags: str, **arguments: object) -> dict:
        assert set(flags) <= {"--check", "-vvv"}
        if (ROOT / "plugins" / "action" / f"{module}.py").exists():
            result, output = run_by_ansible(module, *flags, **arguments)
        else:
            internal = {
                "check_mode": "--check" in flags,
                "diff": True,
                "module_name": f"metricstack.graphite.{module}",
                "remote_tmp": str(temporary),
                "verbosity": 3 if "-vvv" in flags else 0,
                "version": ansible_version,
            }
            request = {"ANSIBLE_MODULE_ARGS": {**arguments, **{f"_ansible_{name}": value for name, value in internal.items()}}}
            _status, printed, errors = server.run(ROOT / "plugins" / "modules" / f"{module}.py", given=json.dumps(request))
            output = printed + errors
            assert printed.strip().startswith("{"), output
            result = json.loads(printed)
            result.pop("failed", None)  # Ansible tells it otherwise
            if "-vvv" not in flags:
                result.pop("invocation", None)
            result = {"changed": False, **result, "shown_diff": diff_as_shown(result["diff"]) if "diff" in result else ""}
        if "password" in arguments:
            assert str(arguments["password"]) not in output
        return result

    yield run
    server.close()


class RoleValidation:
    """Validates variables as a role does before anything else: its argument spec, then the tasks of its validate.yml.

    The role's own files are read and its expressions templated by Ansible's code, in this process and without a play.
    """

    def __init__(self) -> None:
        self._loader = DataLoader()
        self._roles = sorted(path.name for path in (ROOT / "roles").iterdir())
        self._variables: dict = {"inventory_hostname": "web1", "groups": {"all": ["web1"], "ungrouped": ["web1"]}, "group_names": []}
        for role in self._roles:
            self._variables |= self._load(role, "defaults/main.yml") | self._load(role, "vars/main.yml")

    def _load(self, role: str, path: str):
        return self._loader.load_from_file(str(ROOT / "roles" / role / path), **TRUSTED) or {}

    def _templar(self, role: str, variables: dict) -> Templar:
        return Templar(loader=self._loader, variables={**self._variables, "role_path": str(ROOT / "roles" / role), **variables})

    def value(self, role: str, name: str, variables: dict):
        """Return the value of a variable of the role, given variables of the inventory."""
        return self._templar(role, variables).template(self._variables[name])

    def listed(self, role: str, template: str, variables: dict) -> list:
        """Return the list that a template of the role writes as YAML, given variables of the inventory and of the play."""
        return yaml.safe_load(self.rendered(role, template, variables))

    def rendered(self, role: str, template: str, variables: dict) -> str:
        """Return what a template of the role writes, given variables of the inventory and of the play."""
        search = {"ansible_search_path": [str(ROOT / "roles" / role)]}
        expression = trust_as_template("{{ lookup('ansible.builtin.template', name) }}")
        return self._templar(role, {**search, **variables, "name": template}).template(expression)

    def problems(self, role: str, variables: dict) -> list[str]:
        """Return the messages with which the role refuses the variables; those of the inventory, with no others set."""
        templar = self._templar(role, variables)
        options = self._load(role, "meta/argument_specs.yml")["argument_specs"]["validate"]["options"]
        given = {name: templar.template(templar.available_variables[name]) for name in options if name in templar.available_variables}
        messages = ArgumentSpecValidator(options).validate(given).error_messages
        if messages:
            return messages
        for task in self._load(role, "tasks/validate.yml"):
            assert set(task) <= {"name", "ansible.builtin.assert", "vars"}, "a kind of task that this cannot run"
            local = self._templar(role, {**variables, **task.get("vars", {})})
            conditions = task["ansible.builtin.assert"]["that"]
            for condition in conditions if isinstance(conditions, list) else [conditions]:
                holds = local.template(trust_as_template(f"{{{{ ({condition}) }}}}"))
                assert isinstance(holds, bool), f"{condition} gives {holds!r}, which newer releases of ansible-core refuse"
                if not holds:
                    return [local.template(task["ansible.builtin.assert"]["fail_msg"])]
        return []


@pytest.fixture(scope="session")
def role_validation():
    return RoleValidation()


class Memcached:
    """A dictionary in place of memcached: takes set, add, get and delete, and tells the statistics that it is given.

    Source of the protocol: ``doc/protocol.txt`` of memcached 1.6.18. Nothing expires.
    """

    def __init__(self) -> None:
        self.store: dict[str, bytes] = {}
        self.statistics: dict[str, object] = {}
        # Seconds before each answer.
        self.delay = 0.0
        # How many connections there were, and the number of commands after which each ends.
        self.connections = 0
        self.commands: int | None = None
        store, statistics, flags, server = self.store, self.statistics, {}, self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                server.connections += 1
                for line in itertools.islice(self.rfile, server.commands):
                    answer = self._answer(*line.decode().split())
                    time.sleep(server.delay)
                    self.wfile.write(answer)

            def _answer(self, command: str, key: str = "", *arguments: str) -> bytes:
                if command in ("set", "add"):
                    value = self.rfile.read(int(arguments[2]) + 2)[:-2]
                    if command == "add" and key in store:
                        return b"NOT_STORED\r\n"
                    store[key], flags[key] = value, arguments[0]
                    return b"STORED\r\n"
                if command == "get":
                    head = f"VALUE {key} {flags.get(key)} {len(store.get(key, b''))}\r\n".encode()
                    return (head + store[key] + b"\r\n" if key in store else b"") + b"END\r\n"
                if command == "delete":
                    return b"DELETED\r\n" if store.pop(key, None) is not None else b"NOT_FOUND\r\n"
                return "".join(f"STAT {name} {value}\r\n" for name, value in statistics.items()).encode() + b"END\r\n"

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.name = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def memcached():
    server = Memcached()
    yield server
    server.close()


@pytest.fixture
def file_system():
    """Make a directory a file system of its own until the end of the test, with the options of tmpfs; return it."""
    mounted = []

    def mount(directory: Path, options: str) -> Path:
        directory.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a function that returns a directory that one of the workers of pytest makes, and the others wait for."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top

    def made(name: str, make: Callable[[Path], object]) -> Path:
        directory = top / name
        with top.joinpath(f"{name}.state").open("a+") as state:
            fcntl.flock(state, fcntl.LOCK_EX)
            state.seek(0)
            if not state.read():
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                make(directory)
                state.write("made")
        return directory

    return made


@pytest.fixture
def run_beside_graphite_web():
    """Run a program that can import the files of the role graphite_web; return what it prints, as JSON."""

    def run(program: str, *arguments: str, text: str | None = None):
        process = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            input=text,
            env={**os.environ, "PYTHONPATH": str(ROOT / "roles" / "graphite_web" / "files")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return run


@pytest.fixture(scope="session")
def statsd_release(made_once):
    """Return a directory with what the role statsd installs, built as it builds it."""
    files = ROOT / "roles" / "statsd" / "files"

    def build(directory):
        archive = directory / "statsd.tar.gz"
        subprocess.run(["sh", files / "build.sh", files, archive], check=True, capture_output=True, timeout=120)
        with tarfile.open(archive) as tar:
            tar.extractall(directory)
        (directory / "node23.js").write_text(SIMULATED_NODE_23)

    return made_once("statsd", build)


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StatsD:
    """StatsD as it is published, in real Node.js."""

    def __init__(self, release, directory, server, requires, popen, settings):
        self.port = free_port(socket.SOCK_STREAM if server == "tcp" else socket.SOCK_DGRAM)
        self.management_port = free_port(socket.SOCK_STREAM)
        config = {
            "address": "127.0.0.1",
            "mgmt_address": "127.0.0.1",
            "port": self.port,
            "mgmt_port": self.management_port,
            "servers": [{"server": f"./servers/{server}", "address": "127.0.0.1", "port": self.port}],
            "backends": [],
            "flushInterval": 60000,
            **settings,
        }
        self._management = (config["mgmt_address"], self.management_port)
        (directory / "config.js").write_text(json.dumps(config))
        self.log = directory / "log"
        command = ["node", *[f"--require=./{file}" for file in requires], "node_modules/statsd/stats.js", directory / "config.js"]
        with self.log.open("w") as log:
            self.process = popen(command, cwd=release, stdout=log, stderr=log)
        for _number in range(100):
            if self.process.poll() is not None or self.ask("health"):
                break
            time.sleep(0.1)

    def ask(self, command):
        """Return the answer of the management interface, or an empty text if nobody answers."""
        try:
            with socket.create_connection(self._management, timeout=5) as management:
                management.sendall(command.encode())
                answer = b""
                while not answer.endswith(b"\n\n") and not (command == "health" and b"\n" in answer):
                    received = management.recv(65536)
                    if not received:
                        break
                    answer += received
                return answer.decode()
        except OSError:
            return ""

    def send(self, *packets):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet.encode("utf-8", "surrogateescape"), ("127.0.0.1", self.port))

    def metrics(self, kind):
        """Return the counters, gauges or timers by their names."""
        with Management(*self._management, timeout=5) as management:
            return management.metrics(kind)

    def stop(self, sign=signal.SIGTERM, timeout=20):
        """Send the signal, wait until the process has ended, and return its exit status."""
        self.process.send_signal(sign)
        return self.process.wait(timeout)

    def processor_seconds(self):
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def counts(self, name, value, timeout=5):
        """Wait until the counter has the value."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if self.metrics("counters").get(name) == value:
                    return True
            except ManagementError:  # it has just ended
                return False
            time.sleep(0.02)
        return False


class Receiver:
    """A port that stands for carbon's, and what StatsD has sent to it: a list of name, value and timestamp."""

    def __init__(self, port=0, takes_pickles=False):
        self.sent = []
        self._read = self._pickle if takes_pickles else self._lines
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self):
        while True:
            try:
                with self._server.accept()[0] as stream:
                    self.sent.extend(self._read(stream.makefile("rb")))
            except OSError:
                return

    @staticmethod
    def _lines(data):
        return (line.decode().split() for line in data)

    @staticmethod
    def _pickle(data):
        while length := data.read(4):
            body = data.read(int.from_bytes(length, "big"))
            yield from ([name, value, str(timestamp)] for name, (timestamp, value) in pickle.loads(body))

    def close(self):
        """Refuse connections from now on."""
        self._server.shutdown(socket.SHUT_RDWR)  # also wakes the thread that waits for one
        self._server.close()

    def values(self, name):
        return [float(value) for series, value, _timestamp in self.sent if series == name]

    def wait_for(self, *names, number=1, timeout=15):
        """Wait until each of the series has a number of values."""
        deadline = time.monotonic() + timeout
        while missing := [name for name in names if len(self.values(name)) < number]:
            assert time.monotonic() < deadline, f"{missing} of {self.sent}"
            time.sleep(0.1)


@pytest.fixture
def receiver():
    one = Receiver()
    yield one
    with suppress(OSError):
        one.close()


@pytest.fixture
def flushing(receiver):
    """Return settings with which StatsD sends what it flushes to the receiver, each second."""

    def settings(**others):
        own = {"graphiteHost": "127.0.0.1", "graphitePort": receiver.port, "graphite": {"legacyNamespace": False}}
        return {"backends": ["./backends/graphite"], "flushInterval": 1000, **own, **others}

    return settings


@pytest.fixture
def statsd(statsd_release, tmp_path):
    """Start a StatsD, with what ``node --require`` loads before it, by another function than ``subprocess.Popen`` if there is one."""
    started = []

    def start(server="udp", requires=("preload.js",), popen=subprocess.Popen, **settings):
        started.append(StatsD(statsd_release, tmp_path, server, requires, popen, settings))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="session")
def relay(made_once):
    """Return the program carbon-c-relay of the distribution, without installing its service."""
    found = shutil.which("carbon-c-relay")
    if found:
        return found

    def unpack(directory):
        subprocess.run(["apt-get", "download", "-qq", "carbon-c-relay"], cwd=directory, check=True, capture_output=True)
        (package,) = directory.glob("*.deb")
        subprocess.run(["dpkg", "-x", package, directory], check=True)

    return str(made_once("relay", unpack) / "usr" / "bin" / "carbon-c-relay")
