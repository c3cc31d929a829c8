# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Apache's configuration as Debian lays it out, and what it means for sites to add. This file is private to the collection.

Source of the format: "Configuration Files" and "Virtual Host Matching" of the manual of Apache 2.4, ``/etc/apache2`` of
Debian's apache2 2.4.62 to 2.4.66. Sections that depend on a request, such as ``<If>``, do not matter here.
"""

from __future__ import annotations

import fnmatch
import glob
import grp
import hashlib
import ipaddress
import os
import pwd
import re
import shlex
from typing import Callable, Iterator, NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._host.identity import own_addresses, own_names
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import Socket, address_problem, holders
from ansible_collections.metricstack.graphite.plugins.module_utils._host.tls import DEFAULT_PORT, DIRECTORY

ROOT = "/etc/apache2"
DEFAULT_SITE = "000-default"
UNIT = r"apache2\.service"
# The site of graphite-web gets its ports and its certificate from variables of that role.
_PORT_VARIABLES = {"graphite": " (graphite_web_port)"}
_TLS_PORT_VARIABLES = {"graphite": " (port in graphite_web_tls)"}
_TLS_VARIABLES = {"graphite": "graphite_web_server_name and graphite_web_tls"}
# Content of the package's ports.conf; Apache listens on the first port without an additional module.
PACKAGED_PORTS = "Listen 80\n\n<IfModule ssl_module>\n\tListen 443\n</IfModule>\n\n<IfModule mod_gnutls.c>\n\tListen 443\n</IfModule>\n"
_PACKAGED_ARGUMENTS = ("80", "443")
# Why the first of them is a comment on a host where no site answers on it, as on a store of a cluster.
_EMPTY = "no site answers on it"
_TAKEN_OUT = re.compile(rf"(?m)^# Taken out by Ansible, because {_EMPTY}:\n# (Listen (\S+))$")
_PACKAGED_LINES = "".join(f"{line.strip()}\n" for line in PACKAGED_PORTS.splitlines() if line)
# Enabled by the packages themselves.
_PACKAGED_MODULES = {"alias", "mime", "setenvif", "wsgi"}
# What mod_ssl and its configuration in the package need, and what lets a certificate authority's requests through.
_TLS_MODULES = {"alias", "mime", "setenvif", "socache_shmcb", "ssl"}
# Those of them that are disabled again with the last site that has TLS, if the role has enabled them.
_TLS_MODULE_FILES = ("socache_shmcb.load", "ssl.conf", "ssl.load")
# Packages of modules that sites may need, with configuration of their own.
_MODULE_PACKAGES = ("libapache2-mod-auth-openidc",)
# Where the role records which of these it has enabled.
MODULES_RECORD = f"{DIRECTORY}/modules"
# Compiled into the server.
_STATIC = {
    f"{name}.c"
    for name in ("core", "http_core", "mod_http", "mod_log_config", "mod_logio", "mod_so", "mod_unixd", "mod_version", "mod_watchdog")
}
# Accounts that roles of the collection, or packages which they install, create after the examination.
_CREATED_ACCOUNTS = ("_graphite", "statsd", "go-runtime-metrics")
# What a sandbox hides (systemd.exec(5), ProtectHome=).
_HOMES = ("/home/", "/root/", "/run/user/")
_SECTION = re.compile(r"<(/?)(\w+)\s*(.*?)>?\s*\Z")
_WILDCARDS = ("", "*", "0.0.0.0", "[::]", "_default_")
_TLS_PATHS = {"sslcertificatefile": "certificate", "sslcertificatekeyfile": "key", "sslcertificatechainfile": "chain"}
_REDIRECTS = ("redirect", "redirectmatch", "redirectpermanent", "redirecttemp", "rewriterule")


class Listen(NamedTuple):
    """A ``Listen`` directive: its argument, the file and the line."""

    argument: str
    path: str
    line: int


class VirtualHost:
    """A ``VirtualHost`` section."""

    def __init__(self, addresses: list[str], path: str, line: int) -> None:
        self.addresses = [split_listener(address) for address in addresses]
        self.path = path
        self.line = line
        self.names: list[str] = []
        self.has_server_name = False
        self.scripts: list[str] = []
        self.redirects = False
        # The paths of its certificate, key and chain, as far as it has them.
        self.tls: dict[str, str] = {}

    @property
    def site(self) -> str:
        """The name of the site, as a2dissite takes it."""
        return os.path.basename(self.path).rpartition(".conf")[0]

    def take(self, name: str, arguments: list[str]) -> None:
        """Take one directive of the section."""
        if name == "servername" and arguments:
            self.names.append(bare_name(arguments[0]))
            self.has_server_name = True
        elif name == "serveralias":
            self.names += arguments
        elif name == "wsgiscriptalias" and len(arguments) > 1:
            self.scripts.append(arguments[1])
        elif name in _TLS_PATHS and arguments:
            self.tls.setdefault(_TLS_PATHS[name], arguments[0])
        elif name in _REDIRECTS:
            self.redirects = True


class Configuration:
    """What the enabled files of Apache say, or will say once mod_ssl is enabled (``with_tls``)."""

    def __init__(self, root: str, with_tls: bool = False) -> None:
        self.root = root
        self.listens: list[Listen] = []
        # The groups of processes of mod_wsgi: name, file and line.
        self.process_groups: list[tuple[str, str, int]] = []
        self.hosts: list[VirtualHost] = []
        self.modules: list[str] = []
        # The first file that names each certificate, by the path of the certificate.
        self.certificates: dict[str, str] = {}
        self.server_name = ""
        # The files that say how much of Apache's version is shown.
        self.version_files: list[str] = []
        self._tests = _STATIC | ({"ssl_module", "mod_ssl.c"} if with_tls else set())
        self._defined: dict[str, str] = {}
        self._files: list[str] = []
        self.installed = os.path.exists(f"{root}/apache2.conf")
        if self.installed:
            self._read(f"{root}/apache2.conf")
        else:
            self._take_lines(f"{root}/ports.conf", PACKAGED_PORTS)

    def _read(self, path: str) -> None:
        if path in self._files:  # it includes itself, which Apache refuses
            return
        self._files.append(path)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                self._take_lines(path, stream.read())
        except OSError:
            pass
        self._files.pop()

    def _take_lines(self, path: str, text: str) -> None:
        skipped: list[bool] = []
        host: VirtualHost | None = None
        for number, line in logical_lines(text):
            section = _SECTION.match(line) if line.startswith("<") else None
            if section and section[1]:
                if skipped:
                    skipped.pop()
                host = None if section[2].lower() == "virtualhost" else host
            elif section:
                skipped.append(any(skipped) or not self._is_met(section[2].lower(), section[3].strip()))
                if section[2].lower() == "virtualhost" and not any(skipped):
                    host = VirtualHost(self._words(section[3]), path, number)
                    self.hosts.append(host)
            elif not any(skipped):
                name, *arguments = self._words(line)
                if host:
                    host.take(name.lower(), arguments)
                elif name.lower() == "servername" and arguments:
                    self.server_name = bare_name(arguments[0])
                self._take(name.lower(), arguments, path, number)

    def _take(self, name: str, arguments: list[str], path: str, number: int) -> None:
        if not arguments:
            return
        if name == "listen":
            self.listens.append(Listen(arguments[0], path, number))
        elif name == "wsgidaemonprocess":
            self.process_groups.append((arguments[0], path, number))
        elif name == "servertokens":
            self.version_files.append(path)
        elif name == "sslcertificatefile":
            self.certificates.setdefault(os.path.join(self.root, arguments[0]), path)
        elif name == "define":
            self._defined[arguments[0]] = arguments[1] if len(arguments) > 1 else ""
        elif name == "undefine":
            self._defined.pop(arguments[0], None)
        elif name == "loadmodule" and len(arguments) > 1:
            self._tests |= {arguments[0], os.path.basename(arguments[1]).replace(".so", ".c")}
            self.modules.append(re.sub(r"_module\Z", "", arguments[0]))
        elif name in ("include", "includeoptional"):
            pattern = os.path.join(self.root, arguments[0])
            if os.path.isdir(pattern):
                pattern = f"{pattern}/**"
            for included in sorted(glob.glob(pattern, recursive=True)):
                if os.path.isfile(included):
                    self._read(included)

    def _is_met(self, section: str, argument: str) -> bool:
        wanted = not argument.startswith("!")
        argument = argument.lstrip("!").strip("\"'")
        if section == "ifmodule":
            return (argument in self._tests) == wanted
        if section == "ifdefine":
            return (argument in self._defined) == wanted
        if section == "iffile":
            return os.path.exists(os.path.join(self.root, argument)) == wanted
        return True

    def _words(self, line: str) -> list[str]:
        line = re.sub(r"\$\{(\w+)\}", lambda match: self._defined.get(match[1], match[0]), line)
        try:
            return shlex.split(line)
        except ValueError:
            return line.split()


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are no comments, each with its number; a backslash at the end of a line continues it."""
    begun, number = "", 0
    for position, line in enumerate(text.splitlines(), start=1):
        number = number if begun else position
        begun += line
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
            continue
        stripped, begun = begun.strip(), ""
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def bare_name(argument: str) -> str:
    """Return the host name in the argument of ``ServerName``, which may have a scheme and a port."""
    return re.sub(r"^\w+://|:\d+$", "", argument)


def split_listener(argument: str) -> tuple[str, str]:
    """Return address and port of the argument of ``Listen`` or ``VirtualHost``; ``*`` is every address."""
    address, colon, port = argument.rpartition(":")
    if not colon or argument.endswith("]"):
        # The one of Listen is a port, the one of VirtualHost an address for every port.
        address, port = ("", argument) if argument.isdigit() else (argument, "*")
    return ("*" if address in _WILDCARDS else address.strip("[]")), port


def join_listener(address: str, port: str) -> str:
    """Return the argument of ``Listen`` for an address and a port."""
    if address == "*":
        return port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def site_address(site: dict) -> str:
    """Return the address that a site of ``apache_wsgi_sites`` answers at; ``*`` is every one."""
    return site.get("address") or "*"


def site_port(site: dict) -> str:
    """Return the port that a site of ``apache_wsgi_sites`` answers on without TLS."""
    return str(site.get("port") or 80)


def site_listeners(site: dict) -> list[tuple[str, str]]:
    """Return address and port of each listener of a site of ``apache_wsgi_sites``; ``listeners_have_tls`` says which of them has TLS."""
    ports = {False: site_port(site), True: str((site.get("tls") or {}).get("port") or DEFAULT_PORT)}
    return [(site_address(site), ports[has_tls]) for has_tls in listeners_have_tls(site)]


def listeners_have_tls(site: dict) -> list[bool]:
    """Return for each listener of a site whether it has TLS."""
    tls = site.get("tls")
    return [*([] if tls and tls.get("only") else [False]), *([True] if tls else [])]


def account_problems(site: dict) -> list[str]:
    """Return one message for each account of a site of ``apache_wsgi_sites`` that the host neither knows nor is to get."""
    problems = []
    for kind, lookup in (("user", pwd.getpwnam), ("group", grp.getgrnam)):
        name = str(site.get(kind) or "")
        # mod_wsgi takes a number after this sign.
        if not name or name.startswith("#") or name in _CREATED_ACCOUNTS:
            continue
        try:
            lookup(name)
        except KeyError:
            problems.append(
                f"apache_wsgi_sites: site '{site['name']}' has {kind} '{name}', which the host does not know."
                f" Create the {kind} before, or give the site another one."
            )
    return problems


def home_problems(site: dict, run_user: str, bound: list[str] | None) -> list[str]:
    """Return a message if the processes of a site of ``apache_wsgi_sites`` would not find the directory in which they start.

    mod_wsgi takes the home directory of their user if the site names no other (its documentation of ``WSGIDaemonProcess``, ``home``), but
    not that of Apache's own user, ``run_user``. It starts the processes again and again where there is no such directory. ``bound``
    has the paths that a sandbox shows of ``/home`` and the like; it is ``None`` without a sandbox.
    """
    user, home = str(site.get("user") or ""), str(site.get("home") or "")
    if home:
        missing = f"apache_wsgi_sites: site '{site['name']}' has home {home}, which does not exist. Create the directory first."
        return [] if os.path.isdir(home) else [missing]
    try:
        home = pwd.getpwnam(user).pw_dir
    except KeyError:
        return []
    if user in (run_user, *_CREATED_ACCOUNTS):
        return []
    is_hidden = bound is not None and f"{home}/".startswith(_HOMES) and not any(f"{path}/".startswith(f"{home}/") for path in bound)
    if os.path.isdir(home) and not is_hidden:
        return []
    why = "apache_wsgi_sandbox hides" if is_hidden else "does not exist"
    return [
        f"apache_wsgi_sites: the processes of site '{site['name']}' start in the home directory of the user '{user}', {home}, which {why}."
        " Give the site a directory to start in, such as home: /."
    ]


def _paths_of(site: dict) -> list[str]:
    """Return the paths that a sandbox shows to a site."""
    paths = [site.get("wsgi_script"), site.get("python_path"), site.get("python_home"), site.get("home")]
    paths += [*(site.get("readable") or []), *(site.get("writable") or []), *(alias["path"] for alias in site.get("aliases") or [])]
    return [str(path) for path in paths if path]


def listens_of_sites(sites: list[dict], elsewhere: list[str]) -> dict[str, list[str]]:
    """Return the arguments of the ``Listen`` directives that each site has to contain, by the site's name.

    ``elsewhere`` are those of the rest of Apache's configuration. Apache fails to start if one is configured twice.
    """
    configured = {join_listener(*split_listener(argument)) for argument in elsewhere}
    wide = {port for site in sites for address, port in site_listeners(site) if address == "*"}
    result: dict[str, list[str]] = {}
    for site in sites:
        result[site["name"]] = []
        for address, port in site_listeners(site):
            listener = join_listener("*" if port in wide else address, port)
            if listener not in configured and join_listener("*", port) not in configured:
                result[site["name"]].append(listener)
            configured.add(listener)
    return result


def without_listens(text: str, lines: dict[int, str]) -> str:
    """Return the text of ports.conf with the directives on ``lines`` as comments; the values say why."""
    result = []
    for number, line in enumerate(text.splitlines(), start=1):
        if number not in lines:
            result.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        result += [f"{indent}# Taken out by Ansible, because {lines[number]}:", f"{indent}# {line.strip()}"]
    return "\n".join(result) + "\n"


def file_checksum(path: str) -> str:
    """Return the MD5 sum of a file, as dpkg knows it; an empty text if there is none."""
    try:
        with open(path, "rb") as stream:
            # dpkg's sums are of this kind; nothing secret depends on it.
            return hashlib.md5(stream.read()).hexdigest()
    except OSError:
        return ""


def run_account(root: str) -> dict[str, str]:
    """Return ``user`` and ``group`` that Apache runs as, from ``envvars``; the package's where there is none."""
    account = {"user": "www-data", "group": "www-data"}
    try:
        with open(f"{root}/envvars", encoding="utf-8", errors="surrogateescape") as stream:
            for match in re.finditer(r"(?m)^\s*export\s+APACHE_RUN_(USER|GROUP)=['\"]?([^'\"\s]*)", stream.read()):
                account[match[1].lower()] = match[2]
    except OSError:
        pass
    return account


class Examination:
    """What a configuration and the sockets of the host mean for sites to add.

    ``sites`` are those of ``apache_wsgi_sites``, ``packaged`` the MD5 sum of the default site in the package, ``names``
    returns the host's own names, from which Apache derives that of a virtual host without one.
    """

    def __init__(
        self, root: str, sites: list[dict], sockets: list[Socket], packaged: str, names: Callable[[], list[str]], disable_default_site: bool
    ) -> None:
        self._root = root
        self.account = run_account(root)
        self._own = {site["name"] for site in sites}
        self._sites = [site for site in sites if site.get("state", "present") == "present"]
        self._has_tls = any(site.get("tls") for site in self._sites)
        self.configuration = Configuration(root, self._has_tls)
        self._sockets = sockets
        self._names = names
        default_site = f"{root}/sites-available/{DEFAULT_SITE}.conf"
        self.default_site_changed = self.configuration.installed and file_checksum(default_site) != packaged
        self.replaced = self._replaced()
        self._gone = {*self._own, *self.replaced}
        if disable_default_site and not self.default_site_changed:
            self._gone.add(DEFAULT_SITE)
        self.elsewhere = [listen for listen in self.configuration.listens if not self._is_gone(listen.path)]
        self._ports_text = self._read_ports()
        self._needed = self._needed_ports()
        self.empty = self._empty()
        self.elsewhere = [listen for listen in self.elsewhere if listen not in self.empty] + self._returning()
        self.unused = self._unused()
        self.listens = listens_of_sites(self._sites, [listen.argument for listen in self._kept()])

    def enabled_sites(self) -> list[str]:
        """Return the names of the enabled sites; those that the package enables where there is no Apache yet."""
        if not self.configuration.installed:
            return [DEFAULT_SITE]
        return sorted(os.path.basename(path)[: -len(".conf")] for path in glob.glob(f"{self._root}/sites-enabled/*.conf"))

    def enabled_modules(self) -> list[str]:
        """Return the names of the enabled modules, as a2enmod takes them."""
        return sorted(os.path.basename(path)[: -len(".load")] for path in glob.glob(f"{self._root}/mods-enabled/*.load"))

    def module_files(self) -> list[str]:
        """Return the names of the files of ``mods-available`` to enable, for modules that the sites need and that are disabled."""
        needed = {"headers", "wsgi"} if self._sites else set()
        if any(site.get("aliases") or site.get("health_path") for site in self._sites):
            needed.add("alias")
        if any(site.get("trusted_proxies") for site in self._sites):
            needed |= {"remoteip", "setenvif"}
        if self._has_tls:
            needed |= _TLS_MODULES
        if not self.configuration.installed:
            return sorted([f"{module}.load" for module in needed - _PACKAGED_MODULES] + ["ssl.conf"] * self._has_tls)
        disabled = sorted(needed - set(self.enabled_modules()))
        settings = [f"{module}.conf" for module in disabled if os.path.exists(f"{self._root}/mods-available/{module}.conf")]
        return sorted([f"{module}.load" for module in disabled] + settings)

    def recorded_module_files(self, recorded: list[str]) -> list[str]:
        """Return those of the files of ``mods-enabled`` for TLS that the role has enabled or enables now, given what it has recorded."""
        return sorted({*recorded, *self.module_files()} & set(_TLS_MODULE_FILES)) if self._has_tls else []

    def unneeded_module_files(self, recorded: list[str]) -> list[str]:
        """Return the names of files of ``mods-enabled`` that the role has enabled and that nothing needs any more."""
        is_needed = self._has_tls or any(host.tls and not self._is_gone(host.path) for host in self.configuration.hosts)
        return [] if is_needed else [name for name in recorded if os.path.lexists(f"{self._root}/mods-enabled/{name}")]

    def customizations(self, packaged: dict[str, str]) -> list[str]:
        """Return what is enabled beside the sites and is not as ``packaged``, the MD5 sums of the package's files by their paths."""
        own = {f"{self._root}/sites-enabled/{name}.conf" for name in self._own}
        enabled = sorted(glob.glob(f"{self._root}/sites-enabled/*.conf") + glob.glob(f"{self._root}/conf-enabled/*.conf"))
        return [
            os.path.relpath(path, self._root)
            for path in enabled
            if path not in own and os.path.exists(path) and packaged.get(os.path.realpath(path)) != file_checksum(path)
        ]

    def is_version_free(self, packaged: dict[str, str]) -> bool:
        """Return whether nobody but the package, with the MD5 sums ``packaged``, says how much of Apache's version is shown."""
        others = {path for path in self.configuration.version_files if not self._is_gone(path)}
        return all(packaged.get(os.path.realpath(path)) == file_checksum(path) for path in others)

    def sandbox_problems(self, customizations: list[str]) -> list[str]:
        """Return one message for what Apache serves beside the sites, which would have to live in their sandbox."""
        others = [name for name in customizations if not self._is_gone(os.path.join(self._root, name))]
        if not others:
            return []
        return [
            f"apache_wsgi_sandbox is true, but Apache also reads {', '.join(others)}, and what is served there would lose what the sites do"
            " not need, such as directories below /home and other programs. Disable that (a2dissite, a2disconf), or set apache_wsgi_sandbox"
            " to false."
        ]

    def ports_file(self) -> dict[str, str] | None:
        """Return ``path`` and ``content`` of ports.conf without the directives that no site needs, or ``None`` if it stays."""
        lines = {listen.line: f"{holder.owner} holds the port" for listen, holder in self.unused}
        lines.update({listen.line: _EMPTY for listen in self.empty})
        text = without_listens(self._ports_text, lines) if lines else self._ports_text
        returning = [listen.argument for listen in self._returning()]
        text = _TAKEN_OUT.sub(lambda match: match[1] if match[2] in returning else match[0], text)
        return None if text == self._ports_text else {"path": f"{self._root}/ports.conf", "content": text}

    def _read_ports(self) -> str:
        if not self.configuration.installed:
            return PACKAGED_PORTS
        try:
            with open(f"{self._root}/ports.conf", encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read()
        except OSError:
            return ""

    def problems(self, sandbox: bool = False) -> list[str]:
        """Return one message for each socket that Apache would open and could not, or that a site would not get, and for each
        account and each home directory that is missing.
        """
        problems = []
        bound = [path for site in self._sites for path in _paths_of(site)] if sandbox else None
        site_ports = {port for site in self._sites for _address, port in site_listeners(site)}
        for site in self._sites:
            problems += account_problems(site) + home_problems(site, self.account["user"], bound)
            for (address, port), has_tls in zip(site_listeners(site), listeners_have_tls(site)):
                variables = _TLS_PORT_VARIABLES if has_tls else _PORT_VARIABLES
                problems += self._port_problems(site, address, port, variables.get(site["name"], ""))
        for listen in self._kept():
            address, port = split_listener(listen.argument)
            if port in site_ports or not port.isdigit():
                continue
            problems += [
                f"Apache would listen on port {port} ({listen.path}, line {listen.line}), but {holder.owner} holds {holder.local}"
                f" ({holder.protocol}). Stop it ({holder.remedy}), or take the Listen directive out."
                for holder in holders(self._sockets, "tcp", address, int(port), UNIT)
            ]
        return sorted({*problems, *self._address_problems(), *self._lost_tls(), *self._taken_names()})

    def _port_problems(self, site: dict, own_address: str, port: str, variable: str) -> list[str]:
        """Return one message for each reason why a site would not get one of its ports."""
        where = f"apache_wsgi_sites: site '{site['name']}'"
        addresses = {address for address, other in map(split_listener, self._arguments()) if other == port}
        problems = [
            f"{where} has port {port}, but {holder.owner} holds {holder.local} ({holder.protocol}). Stop it ({holder.remedy}),"
            f" or give the site another port{variable}."
            for holder in {found for address in addresses for found in holders(self._sockets, "tcp", address, int(port), UNIT)}
        ]
        narrow = [address for address, other in (split_listener(listen.argument) for listen in self._kept()) if other == port]
        if narrow and "*" not in narrow and own_address == "*":
            problems.append(
                f"{where} answers on all addresses of port {port}, but Apache is configured elsewhere to listen on {narrow[0]} only;"
                " give the site that address."
            )
        return problems

    def _taken_names(self) -> list[str]:
        """Return one message for each group of processes that has the name of a site; Apache knows each name once."""
        names = {site["name"] for site in self._sites}
        return [
            f"{path} (line {line}) has a WSGIDaemonProcess {name}, which is the name of the processes of site '{name}' as well, and Apache"
            f" knows each name once. {self._served(path)}Disable the file{self._disabling(path)}, or rename its processes."
            for name, path, line in self.configuration.process_groups
            if name in names and not self._is_gone(path)
        ]

    def _served(self, path: str) -> str:
        """Return a sentence about the applications that a file serves, for a message."""
        scripts = sorted({script for host in self.configuration.hosts if host.path == path for script in host.scripts})
        return f"The file serves {', '.join(scripts)}. " if scripts else ""

    def _disabling(self, path: str) -> str:
        """Return the command that disables a file, in brackets, if it is a site's or a piece of configuration."""
        directory, name = os.path.split(path)
        command = {"sites-enabled": "a2dissite", "conf-enabled": "a2disconf"}.get(os.path.basename(directory))
        return f" ({command} {name.rpartition('.conf')[0]})" if command else ""

    def _lost_tls(self) -> list[str]:
        """Return one message for each file that serves the application of a site over TLS, as certbot makes it, and would be disabled."""
        problems = []
        for site in self._sites:
            for host in self.configuration.hosts:
                # A file with the name of the site may be somebody else's.
                foreign = set(site.get("replaces") or []) - ({site.get("wsgi_script")} if host.site == site["name"] else set())
                if site.get("tls") or not host.tls or not self._is_gone(host.path) or not foreign & set(host.scripts):
                    continue
                paths = ", ".join(f"{part}: {path}" for part, path in host.tls.items())
                problems.append(
                    f"{host.path} (line {host.line}) serves the application of site '{site['name']}' over TLS, and would be disabled. To"
                    f" keep https://, set {_TLS_VARIABLES.get(site['name'], 'server_name and tls of the site')}, the latter to"
                    f" {{{paths}}}, or disable the file (a2dissite {host.site})."
                )
        return problems

    def _address_problems(self) -> list[str]:
        """Return one message for each address that Apache would listen on and that the host does not have."""
        addresses = {f"apache_wsgi_sites: address of site '{site['name']}'": site_address(site) for site in self._sites}
        for listen in self._kept():
            address, _port = split_listener(listen.argument)
            if "$" not in address:  # Apache may know the variable from its environment
                addresses[f"The address in Listen {listen.argument} ({listen.path}, line {listen.line})"] = address
        return list(filter(None, (address_problem(variable, address) for variable, address in addresses.items())))

    def shadows(self) -> list[str]:
        """Return one message for each virtual host that answers requests meant for one of the sites."""
        messages = []
        for site in self._sites:
            for host, port in ((host, port) for host in self.configuration.hosts for _address, port in site_listeners(site)):
                if self._is_gone(host.path):
                    continue
                answers = self._answers_for(host, site, port)
                if answers:
                    redirect = " with a redirect" if host.redirects else ""
                    messages.append(
                        f"{host.path} (line {host.line}) answers{redirect} for {answers} in place of site '{site['name']}'. Disable it"
                        f" (a2dissite {host.site}), or give it other names."
                    )
        return list(dict.fromkeys(messages))

    def _answers_for(self, host: VirtualHost, site: dict, wanted_port: str) -> str:
        """Return what ``host`` answers for on a port although it is meant for ``site``, or an empty text."""
        addresses = [address for address, port in host.addresses if port in ("*", wanted_port)]
        specific = [address for address in addresses if address != "*"]
        # Apache takes the sections with the address of the request first, and looks at names among these only.
        if specific and site_address(site) == "*":
            return f"every name at {', '.join(specific)}"
        if not addresses or site_address(site) != (specific or ["*"])[0]:
            return ""
        enabled = f"{self._root}/sites-enabled/"
        if host.path.startswith(enabled) and host.path > f"{enabled}{site['name']}.conf":
            return ""
        names = list(dict.fromkeys(name for name in (site.get("server_name"), *(site.get("server_aliases") or [])) if name))
        if not names:
            return "every name"
        inherited = [] if host.has_server_name or not self.configuration.server_name else [self.configuration.server_name]
        taken = _matching(names, [*host.names, *inherited])
        derives = not (host.has_server_name or inherited)
        if derives and (_matching(names, self._names()) or any(map(_is_address, names))):
            taken.append("a name that Apache derives from the host's name or address")
        return ", ".join(taken)

    def _replaced(self) -> list[str]:
        scripts = {script for site in self._sites for script in site.get("replaces") or []}
        enabled = f"{self._root}/sites-enabled/"
        return sorted(
            {
                host.site
                for host in self.configuration.hosts
                if host.path.startswith(enabled) and host.site not in self._own and scripts & set(host.scripts)
            }
        )

    def _is_gone(self, path: str) -> bool:
        directory, name = os.path.split(path)
        return directory == f"{self._root}/sites-enabled" and name[: -len(".conf")] in self._gone

    def _kept(self) -> list[Listen]:
        unused = [listen for listen, _socket in self.unused]
        return [listen for listen in self.elsewhere if listen not in unused]

    def _arguments(self) -> list[str]:
        """Return the arguments of all ``Listen`` directives that will be in force."""
        return [listen.argument for listen in self._kept()] + [item for own in self.listens.values() for item in own]

    def _needed_ports(self) -> set[str]:
        """Return the ports that virtual hosts answer on, beside the package's own; ``*`` is every port."""
        needed = {port for site in self._sites for _address, port in site_listeners(site)}
        for host in self.configuration.hosts:
            default = host.site == DEFAULT_SITE and not self.default_site_changed
            if not default and not self._is_gone(host.path):
                needed |= {port for _address, port in host.addresses}
        return needed

    def _empty(self) -> list[Listen]:
        """Return the packaged directive for the port 80 where nothing would answer on it, and nobody has written ports.conf."""
        others = [host for host in self.configuration.hosts if not self._is_gone(host.path)]
        if not self._sites or others or self._needed & {"80", "*"} or DEFAULT_SITE not in self._gone:
            return []
        if "".join(f"{line}\n" for _number, line in logical_lines(self._ports_text)) != _PACKAGED_LINES:
            return []
        return [listen for listen in self.elsewhere if listen.path == f"{self._root}/ports.conf" and listen.argument == "80"]

    def _returning(self) -> list[Listen]:
        """Return the directives that were taken out because no site answered, where one does again or the sites are gone."""
        found = []
        for match in _TAKEN_OUT.finditer(self._ports_text):
            if not self._sites or self._needed & {match[2], "*"}:
                found.append(Listen(match[2], f"{self._root}/ports.conf", self._ports_text[: match.start(1)].count("\n") + 1))
        return found

    def _unused(self) -> list[tuple[Listen, Socket]]:
        """Return the packaged directives that no site needs and whose port another process uses, each with that process."""
        found = []
        for listen in self.elsewhere:
            if (
                listen.path != f"{self._root}/ports.conf"
                or listen.argument not in _PACKAGED_ARGUMENTS
                or self._needed & {listen.argument, "*"}
            ):
                continue
            in_the_way = holders(self._sockets, "tcp", "*", int(listen.argument), UNIT)
            if in_the_way:
                found.append((listen, in_the_way[0]))
        return found


def _matching(names: list[str], patterns: list[str]) -> list[str]:
    """Return those of the names that one of the patterns, arguments of ``ServerAlias``, matches."""
    return [name for name in names if any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def describe(root: str, sites: list[dict], sockets: list[Socket], disable_default_site: bool, sandbox: bool = False) -> dict:
    """Return the result of an examination, as the module ``host_requirements_info`` documents it."""
    sites = [{**site, "server_aliases": _server_aliases(site)} for site in sites]
    packaged = _packaged_checksums()
    default_site = packaged.get(f"{ROOT}/sites-available/{DEFAULT_SITE}.conf", "unknown")
    examination = Examination(root, sites, sockets, default_site, _derived_names, disable_default_site)
    recorded = _recorded_modules()
    customizations = examination.customizations(packaged)
    return {
        "installed": examination.configuration.installed,
        "problems": examination.problems(sandbox) + (examination.sandbox_problems(customizations) if sandbox else []),
        "shadows": examination.shadows(),
        "listens": examination.listens,
        "server_aliases": {site["name"]: site["server_aliases"] for site in sites},
        "elsewhere": [listen._asdict() for listen in examination.elsewhere],
        "unused_listens": [{"argument": listen.argument, "holder": holder.owner} for listen, holder in examination.unused],
        "ports_file": examination.ports_file(),
        "replaced_sites": examination.replaced,
        "enabled_sites": examination.enabled_sites(),
        "enabled_modules": examination.enabled_modules(),
        "module_files": examination.module_files(),
        "recorded_module_files": examination.recorded_module_files(recorded),
        "unneeded_module_files": examination.unneeded_module_files(recorded),
        "default_site_changed": examination.default_site_changed,
        "customizations": customizations,
        "is_version_free": examination.is_version_free(packaged),
        "run_user": examination.account["user"],
        "run_group": examination.account["group"],
    }


def _recorded_modules() -> list[str]:
    """Return the files of ``mods-enabled`` that the role has enabled for TLS."""
    try:
        with open(MODULES_RECORD, encoding="utf-8") as stream:
            return [name for name in stream.read().split() if name in _TLS_MODULE_FILES]
    except OSError:
        return []


def _packaged_checksums() -> dict[str, str]:
    """Return the MD5 sums of the configuration in the installed package, as dpkg knows them, by the paths of the files."""
    # One that is not installed is left out.
    known = run(["dpkg-query", "--show", "--showformat", r"${Conffiles}\n", "apache2", *_MODULE_PACKAGES]).stdout
    return dict(re.findall(r"(?m)^ (\S+) ([0-9a-f]{32})", known))


def _server_aliases(site: dict) -> list[str]:
    """Return the names of a site beside its first; Apache knows no IPv6 addresses among them."""
    aliases = list(site.get("server_aliases") or [])
    if site.get("names_of_host"):
        aliases += [*own_names(), *(address for address in own_addresses() if ":" not in address)]
    return list(dict.fromkeys(aliases))


def _derived_names() -> list[str]:
    """Return the names that Apache derives from those of the host, for a site without one."""
    return [name for name in own_names() if name != "localhost"]
