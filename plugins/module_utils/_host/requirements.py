# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Compares what components need with what a host has. This file is private to the collection.

Nothing is changed, except that package lists which lack a package are fetched, as apt itself would.
"""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import capacity_problems
from ansible_collections.metricstack.graphite.plugins.module_utils._host import (
    apache,
    apt,
    directories,
    earlier,
    imports,
    manual_processes,
    time_zones,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._host.ip_firewall import ip_firewall_problems
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import Socket, address_problem, port_holders, read_sockets

_SYSTEMD = "/run/systemd/system"


def _clock_problems(clock: dict | None, now: float) -> list[str]:
    if clock is None or abs(now - clock["reference_time"]) <= clock["tolerance"]:
        return []
    direction = "ahead of" if now > clock["reference_time"] else "behind"
    return [
        f"The clock of the host is {abs(now - clock['reference_time']):.0f} s {direction} that of the controller, which is more than"
        f" {clock['tolerance']} s. Set the clock, and let chrony or systemd-timesyncd keep it: the points of several hosts belong together"
        " by their times."
    ]


class Examination:
    """One look at a host on behalf of all components.

    ``problems`` and ``warnings`` are messages. ``missing`` are packages by component, ``manual_processes`` are ids of processes by
    component, ``unverified`` are the imports that cannot be tried yet, each with its component, ``python_versions`` are versions by
    interpreter, ``apache`` is what :func:`apache.describe` returns, ``earlier_installation`` what :func:`earlier.describe` does.
    """

    def __init__(self, components: list[dict], lock_timeout: float) -> None:
        self._components = components
        self._lock_timeout = lock_timeout
        self._began = time.time()
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.missing: dict[str, list[str]] = {component["component"]: [] for component in components}
        self.unverified: list[dict] = []
        self.manual_processes: dict[str, list[int]] = {component["component"]: [] for component in components}
        self.python_versions: dict[str, str] = {}
        self.apache: dict | None = None
        self.earlier_installation: dict | None = None
        self._states: dict[str, str] = {}

    def examine(self) -> None:
        """Run every check."""
        if not os.path.isdir(_SYSTEMD):
            self.problems.append(f"systemd does not run on this host, and all services are its units ({_SYSTEMD} does not exist)")
        try:
            apt.refuse_other_systems()
            self._examine_packages()
            self._examine_dependencies()
        except apt.PackageError as error:
            self.problems.append(str(error))
        self._examine_interpreters()
        # Without the program, which a component's packages then include, the process is unknown.
        sockets = read_sockets()
        self._examine_sockets(sockets)
        self._examine_apache(sockets)
        self._examine_earlier_installations()
        for component in self._components:
            for entry in component["directories"]:
                self.problems += directories.directory_problems(entry["variable"], entry["path"], entry["user"])
                if entry["recursive"]:
                    self.problems += directories.link_problems(entry["variable"], entry["path"], entry["writable"])
            self.problems += _capacity_problems(component["whisper_capacity"])
            self.problems += _clock_problems(component["clock"], self._began) + component["problems"]
            self.problems += ip_firewall_problems(component["ip_firewall"])
            self.problems += [entry["problem"] for entry in component["conditional_problems"] if _counts(entry)]
        self.problems = list(dict.fromkeys(self.problems))

    def _examine_packages(self) -> None:
        self._states = apt.read_states()
        for component in self._components:
            self.missing[component["component"]] = self._lacking(needed_packages(component))
        self._examine_time_zones()
        self._examine_imports()
        self._refuse_disorder()
        wanted = sorted({package for packages in self.missing.values() for package in packages})
        if not wanted:
            return
        try:
            self.warnings += apt.refuse_uninstallable(wanted, self._lock_timeout)
        except apt.UninstallableError as error:
            advice = [component["advice"] for component in self._components if component["advice"] and self.missing[component["component"]]]
            self.problems.append("\n  ".join([str(error), *advice]))

    def _examine_dependencies(self) -> None:
        for component in self._components:
            for wanted in component["dependencies"]:
                name = wanted["package"]
                found = apt.dependencies(name, self._states.get(name) in apt.INSTALLED)
                # Without any, apt does not know the package, which is a problem of its own.
                if found and not any(re.match(wanted["library"], other) for other in found):
                    self.problems.append(wanted["problem"])

    def _lacking(self, packages: list[str]) -> list[str]:
        return [package for package in packages if self._states.get(package) not in apt.INSTALLED]

    def _refuse_disorder(self) -> None:
        """Add a problem for packages that are half installed, unless another process is just installing them."""
        half = self._half_installed()
        # The lock matters only if something is to be installed.
        if half or any(self.missing.values()):
            self.warnings += apt.wait_for_locks(self._lock_timeout)
            self._states = apt.read_states()
            for component, packages in self.missing.items():
                self.missing[component] = self._lacking(packages)
            half = self._half_installed()
        if half:
            listed = ", ".join(f"{name} ({state})" for name, state in sorted(half.items()))
            self.problems.append(
                f"the installation of packages was interrupted: {listed}."
                " Run: dpkg --configure -a --force-confdef --force-confold && apt-get -y -f install"
            )

    def _half_installed(self) -> dict[str, str]:
        half = apt.half_installed(self._states)
        if any(self.missing.values()):
            return half
        # What is half installed elsewhere is in apt's way only.
        needed = {package for component in self._components for package in needed_packages(component)}
        return {name: state for name, state in half.items() if name in needed}

    def _examine_time_zones(self) -> None:
        for component in self._components:
            for zone in component["time_zones"]:
                if time_zones.exists(zone["name"]):
                    continue
                installed = {name for name, state in self._states.items() if state in apt.INSTALLED}
                available = apt.available_packages(time_zones.PACKAGES)
                packages = time_zones.packages_for(zone["name"], installed, available)
                if not packages:
                    self.problems.append(time_zones.problem(zone["variable"], zone["name"]))
                self._add_missing(component["component"], packages)

    def _examine_imports(self) -> None:
        questions = []
        for component in self._components:
            for wanted in component["imports"]:
                question = {"component": component["component"], **wanted}
                if self._lacking(needed_packages(component)) or not os.path.exists(wanted["python"]):
                    self.unverified.append(question)
                else:
                    questions.append(question)
        # Each is a process of its own, which takes half a second.
        with ThreadPoolExecutor() as pool:
            answers = pool.map(lambda question: imports.ask(question["python"], question["modules"]), questions)
            for question, answer in zip(questions, answers):
                if answer["error"]:
                    self.problems.append(f"{question['python']} cannot import {', '.join(question['modules'])}: {answer['error']}")
                if answer["missing"]:
                    self.unverified.append(question)
                self._add_missing(question["component"], [imports.PROVIDERS[module] for module in answer["missing"]])

    def _add_missing(self, component: str, packages: list[str]) -> None:
        self.missing[component] += [package for package in packages if package not in self.missing[component]]

    def _examine_interpreters(self) -> None:
        for component in self._components:
            for wanted in component["interpreters"]:
                python = wanted["python"]
                version = run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
                self.python_versions[python] = version
                if not version or not _numbers(wanted["minimum"]) <= _numbers(version) < _numbers(wanted["below"]):
                    self.problems.append(f"{python} is {f'Python {version}' if version else 'missing'}, but {wanted['problem']}")

    def _examine_apache(self, sockets: list[Socket]) -> None:
        for component in self._components:
            if component["apache"] is not None:
                wanted = component["apache"]
                self.apache = apache.describe(
                    wanted["directory"], wanted["sites"], sockets, wanted["disable_default_site"], wanted["sandbox"]
                )
                self.problems += self.apache["problems"]
                self.warnings += self.apache["shadows"]

    def _examine_earlier_installations(self) -> None:
        for wanted in (entry for component in self._components for entry in component["earlier_installations"]):
            if _any_exists(wanted["unless_exists"]) or (wanted["policy"] == "refuse" and not os.path.isdir(wanted["directory"])):
                continue
            found = earlier.describe(wanted["directory"], wanted["whisper_directory"])
            if wanted["policy"] == "refuse":
                self.problems += earlier.problems(found, wanted["variable"])
            else:
                self.problems += earlier.adoption_problems(found, wanted["variable"], wanted["database"], wanted["marker"])
            self.earlier_installation = None if earlier.is_adopted(wanted["marker"], found["database"]) else found

    def _examine_sockets(self, sockets: list[Socket]) -> None:
        for component in self._components:
            for wanted in component["sockets"]:
                if _any_exists(wanted["unless_exists"]):
                    continue
                self.problems += filter(None, [address_problem(wanted["address_variable"] or wanted["variable"], wanted["address"])])
                for holder in port_holders(sockets, wanted):
                    takeover = component["takeover"]
                    pid, known = holder["pid"], self.manual_processes[component["component"]]
                    if takeover and pid and manual_processes.is_started_manually(pid, takeover["programs"], takeover["command"]):
                        if pid not in known:
                            known.append(pid)
                    else:
                        self.problems.append(holder["problem"])


def needed_packages(component: dict) -> list[str]:
    """Return the packages of a component, with those that are needed because of files that are not there."""
    conditional = [entry["name"] for entry in component["conditional_packages"] if not _any_exists(entry["unless_exists"])]
    return list(dict.fromkeys(component["packages"] + conditional))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _counts(conditional: dict) -> bool:
    there = conditional["if_exists"] is None or os.path.lexists(conditional["if_exists"])
    return there and not _any_exists(conditional["unless_exists"])


def existing_paths(path: str) -> list[str]:
    """Return the path if it exists, and what matches it as a pattern of the shell."""
    return [found for found in [path, *sorted(glob.glob(path))] if os.path.exists(found)]


def _any_exists(paths: list[str]) -> bool:
    return any(os.path.exists(path) for path in paths)


def missing_users(names: list[str]) -> list[str]:
    """Return those of the users that the host does not know."""
    return [name for name in names if not _is_known(pwd.getpwnam, name)]


def missing_groups(names: list[str]) -> list[str]:
    """Return those of the groups that the host does not know."""
    return [name for name in names if not _is_known(grp.getgrnam, name)]


def _capacity_problems(capacity: dict | None) -> list[str]:
    """Return a message if the files of the expected series do not fit."""
    if not capacity or not capacity["expected_series"]:
        return []
    directory = existing = capacity["directory"]
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    status = os.statvfs(existing)
    free = status.f_bavail * status.f_frsize
    arguments = capacity["expected_series"], capacity["storage_schemas"], directory, free
    # A walk over a million files takes its time: not where everything would fit beside them.
    return capacity_problems(*arguments) and capacity_problems(*arguments, _bytes_below(directory))


def _bytes_below(directory: str) -> int:
    """Return the bytes that files below a directory take on its file system."""
    output = run(["du", "--summarize", "--one-file-system", "--dereference-args", "--block-size=1", directory]).stdout
    return int(output.partition("\t")[0] or 0)


def _is_known(lookup, name: str) -> bool:
    try:
        lookup(name)
    except KeyError:
        return False
    return True


def read_kernel_setting(name: str) -> str:
    """Return a setting of sysctl(8), or an empty text where the host does not show it, as in a container."""
    try:
        with open(os.path.join("/proc/sys", *name.split("."))) as stream:
            return stream.read().strip()
    except OSError:
        return ""


def is_writable_kernel_setting(name: str) -> bool:
    """Tell whether a setting of sysctl(8) can be changed from here; a container has most of them read only."""
    return os.access(os.path.join("/proc/sys", *name.split(".")), os.W_OK)


def is_owned(entry: dict) -> bool:
    """Tell whether everything in a directory belongs to its user; a file with several names may be somebody else's."""
    path, user = entry["path"], entry["user"]
    if not os.path.isdir(path) or not _is_known(pwd.getpwnam, user):
        return False
    excluded = [word for directory in entry["exclude"] for word in ("-path", directory, "-prune", "-o")]
    foreign = ["!", "-user", user, "(", "-type", "d", "-o", "-links", "1", ")", "-print", "-quit"]
    # A symbolic link at the path itself is followed, and none below it.
    return run(["find", "-H", path, *excluded, *foreign]).stdout == ""
