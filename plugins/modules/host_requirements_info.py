#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_requirements_info
short_description: Compare a host with the requirements of components
version_added: 2.0.0
description:
  - Looks once, for all components of a host, for everything that would end their installation midway, and returns it as messages that
    name the variable, its value and the remedy. The module itself does not fail on them.
  - Checks that systemd runs, that dpkg is in good order, that apt could install all missing packages in one transaction
    (C(apt-get --simulate)), that Python can import applications which are installed already, that the host has an address to listen on
    and no other process holds a port of it, that the sandbox of a service leaves its directories visible and writable, and that the
    host has a time zone.
  - While another process holds a lock of apt or dpkg, and packages are missing, the module waits, and says for which process.
  - Package lists that are older than an hour or that lack a missing package are fetched. A package source that cannot be fetched is a
    warning, as long as all packages are in the lists of the others.
author:
  - metricstack maintainers (@metricstack)
options:
  components:
    description:
      - What each component requires. All keys but O(components[].component) may be left out.
    type: list
    elements: dict
    required: true
    suboptions:
      component:
        description: Name of the component, for example that of its role. The results are given by it.
        type: str
        required: true
      packages:
        description: Packages that are needed, without recommended ones.
        type: list
        elements: str
        default: []
      conditional_packages:
        description: Packages that are needed unless one of some files exists.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Package that apt has to be able to install.
            type: str
            required: true
          unless_exists:
            description: Files of which one makes the package unnecessary.
            type: list
            elements: path
            required: true
      dependencies:
        description: Libraries with which packages must be built, which are missing in some releases of these packages.
        type: list
        elements: dict
        default: []
        version_added: 2.1.0
        suboptions:
          package:
            description: Name of the package. The installed version counts, or else the one that apt would install.
            type: str
            required: true
          library:
            description: Regular expression at the beginning of the name of a package that it depends on.
            type: str
            required: true
          problem:
            description: Message that is returned if it is so; says what to do.
            type: str
            required: true
      advice:
        description: What to do where the packages cannot be installed; ends the message.
        type: str
        default: ""
      imports:
        description:
          - Modules that an interpreter must be able to import. Tried once the interpreter exists and none of the packages is missing.
        type: list
        elements: dict
        default: []
        suboptions:
          python:
            description: Path of the interpreter that is started to find out.
            type: path
            required: true
          modules:
            description: Python modules that are imported one after the other, since some need others before them.
            type: list
            elements: str
            required: true
      interpreters:
        description: Interpreters of which the component needs a certain version. Returned in RV(python_versions).
        type: list
        elements: dict
        default: []
        suboptions:
          python:
            description: Path of the interpreter that is started to find out.
            type: path
            required: true
          minimum:
            description: Lowest version that will do, such as V("3.9").
            type: str
            required: true
          below:
            description: First version that will not do any more.
            type: str
            required: true
          problem:
            description: What needs such a version, and what to do; ends the message.
            type: str
            required: true
      sockets:
        description: Sockets that the component is to open; another process that holds one is a problem.
        type: list
        elements: dict
        default: []
        suboptions:
          variable:
            description: Variable that has the ports, for the message.
            type: str
            required: true
          protocol:
            description: Whether processes that hold the ports by TCP or by UDP are in the way.
            type: str
            choices: [tcp, udp]
            required: true
          address:
            description: Address to listen on, or a name of it; C(*), C(0.0.0.0) and C(::) are all addresses.
            type: str
            required: true
          address_variable:
            description: Variable that has the address, for the message; by default that of the ports.
            type: str
          ports:
            description: Ports that have to be free, or held by the component itself.
            type: list
            elements: int
            required: true
          units:
            description: Regular expression of the component's own units, whose sockets are not a conflict.
            type: str
            required: true
          unless_exists:
            description: Paths; if one of them exists, the component does not open the sockets.
            type: list
            elements: path
            default: []
            version_added: 2.1.0
      takeover:
        description:
          - Processes that use a port and that the component replaces if they were started manually. Returned in RV(manual_processes).
        type: dict
        suboptions:
          programs:
            description: Base names of the program's file.
            type: list
            elements: str
            required: true
          command:
            description: Regular expression to find in the arguments, joined by spaces.
            type: str
            required: true
      directories:
        description: Directories in which a sandboxed service of the component keeps files. They and their parents need not exist.
        type: list
        elements: dict
        default: []
        suboptions:
          variable:
            description: Variable that has the path, for the message.
            type: str
            required: true
          path:
            description: Absolute path at which the service looks for the directory.
            type: path
            required: true
          user:
            description: System account of the service, which has to be able to use the directory.
            type: str
            required: true
          recursive:
            description: Whether to check the symbolic links below the directory as well.
            type: bool
            default: false
          writable:
            description: Other directories that the service may write to, and to which links may lead.
            type: list
            elements: path
            default: []
      whisper_capacity:
        description: Series that the host is going to store, whose files must fit on the file system.
        type: dict
        suboptions:
          directory:
            description: Directory on whose file system the space for the expected series is looked for.
            type: path
            required: true
          expected_series:
            description: Number of series, as the variable C(carbon_cache_expected_series) has it.
            type: raw
            required: true
          storage_schemas:
            description: Rules, as the variable C(carbon_cache_storage_schemas) has them.
            type: list
            elements: dict
            required: true
      ownership:
        description: Directories whose content is to belong to a user. Returned in RV(foreign_owned) where something does not.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: The directory, or a symbolic link to it.
            type: path
            required: true
          user:
            description: System account to which everything has to belong.
            type: str
            required: true
          exclude:
            description: Directories in it that are somebody else's business.
            type: list
            elements: path
            default: []
      users:
        description: Users that the component runs as, each with a group of the same name.
        type: list
        elements: str
        default: []
      time_zones:
        description: Time zones that the component uses, and that the host has to know.
        type: list
        elements: dict
        default: []
        suboptions:
          variable:
            description: Variable that has the name, for the message.
            type: str
            required: true
          name:
            description: Name of the time zone, such as V(Europe/Berlin).
            type: str
            required: true
      paths:
        description:
          - Paths of which the component needs to know whether they exist. Returned in RV(paths).
          - A path with C(*), C(?) or C([) is also a pattern of the shell, and stands for the paths that match.
        type: list
        elements: path
        default: []
      kernel_settings:
        description: Settings of C(sysctl) that the component needs to know. Returned in RV(kernel_settings).
        type: list
        elements: str
        default: []
      clock:
        description: How far the clock of the host may be from the one of the controller.
        type: dict
        version_added: 2.1.0
        suboptions:
          reference_time:
            description: Time of the controller, in seconds since 1970 in UTC.
            type: float
            required: true
          tolerance:
            description: Difference that is no problem, in seconds.
            type: int
            required: true
      ip_firewall:
        description:
          - Variable of the component that needs systemd to filter the addresses of a service. If systemd cannot do that on the host,
            this is a problem. None if empty.
        type: str
        default: ""
        version_added: 2.1.0
      apache:
        description:
          - Sites that Apache is to serve. Apache's enabled configuration is read in the layout of Debian and Ubuntu, and compared with
            the sockets of the host, since Apache's own C(configtest) does not detect a port that is in use or that two C(Listen)
            directives name. If Apache is not installed yet, the configuration of the package is assumed. Returned in RV(apache).
        type: dict
        suboptions:
          sites:
            description:
              - The sites to add or to remove, as C(apache_wsgi_sites) of the role P(metricstack.graphite.apache_wsgi#role) describes
                them.
            type: list
            elements: dict
            default: []
          disable_default_site:
            description: Whether the default site of the package is going to be disabled, unless its file or its page has been modified.
            type: bool
            default: false
          sandbox:
            description: Whether Apache is going to have a sandbox in which the sites alone work; what else it serves is a problem then.
            type: bool
            default: false
            version_added: 2.1.0
          directory:
            description: Directory whose sites and modules are read, such as C(/etc/apache2).
            type: path
            default: /etc/apache2
      earlier_installations:
        description:
          - Installations of Graphite in the layout of its source, with C(conf), C(storage) and C(webapp). The last one that is there is
            returned in RV(earlier_installation).
        type: list
        elements: dict
        default: []
        version_added: 2.1.0
        suboptions:
          directory:
            description: Where the installation would be, such as C(/opt/graphite).
            type: path
            required: true
          variable:
            description: Variable that decides, for the message.
            type: str
            required: true
          policy:
            description: Whether an installation is a problem (V(refuse)), or what keeps it from being adopted is (V(adopt)).
            type: str
            choices: [refuse, adopt]
            required: true
          unless_exists:
            description: Files of which one shows that somebody has decided already, so that nothing is a problem.
            type: list
            elements: path
            default: []
          whisper_directory:
            description: Directory of the whisper files that carbon is to use.
            type: path
            required: true
          database:
            description:
              - Path of the SQLite file that graphite-web is to use; empty for a database server. Nothing about databases is examined if
                left out, as on a host without graphite-web.
            type: str
          marker:
            description: File in which M(metricstack.graphite.sqlite_copy) says what it has copied.
            type: path
      problems:
        description: Messages of other modules that looked at the host for the component; returned with the others.
        type: list
        elements: str
        default: []
      conditional_problems:
        description: Messages that count under a condition.
        type: list
        elements: dict
        default: []
        suboptions:
          problem:
            description: Message that is returned if it is so; says what to do.
            type: str
            required: true
          unless_exists:
            description: Files of which one makes the message void.
            type: list
            elements: path
            required: true
          if_exists:
            description: Path without which the message is void. A symbolic link counts, wherever it points to.
            type: path
  lock_timeout:
    description:
      - Seconds to wait for another process that holds a lock of apt or dpkg.
    type: int
    default: 600
attributes:
  check_mode:
    description:
      - Changes nothing, in either mode. Package lists are fetched in either mode.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: N/A
seealso:
  - module: metricstack.graphite.packages
  - module: metricstack.graphite.python_imports_info
"""

EXAMPLES = r"""
- name: Compare the host with the requirements of carbon
  metricstack.graphite.host_requirements_info:
    components:
      - component: carbon_cache
        packages: [graphite-carbon]
        sockets:
          - {variable: carbon_cache_instances, protocol: tcp, address: 127.0.0.1, ports: [2003, 7002], units: 'carbon-cache@.+\.service'}
        directories:
          - {variable: carbon_cache_whisper_directory, path: /srv/graphite/whisper, user: _graphite, recursive: true}
  register: examination

- name: Refuse a host that cannot run carbon
  ansible.builtin.assert:
    that: examination.problems | length == 0
    fail_msg: "{{ examination.problems | join('\n') }}"

- name: Find out which packages two components lack, without a wait for other package managers
  metricstack.graphite.host_requirements_info:
    components:
      - {component: statsd, packages: [nodejs]}
      - {component: web, packages: [apache2]}
    lock_timeout: 0
"""

RETURN = r"""
host_names:
  description: Name of the host without and with its domain.
  returned: success
  type: list
  elements: str
  sample: [web1, web1.example.org]
host_addresses:
  description: Addresses of the host, except those that are local to a link. Empty on a host without the program C(ip).
  returned: success
  type: list
  elements: str
  sample: [127.0.0.1, 192.0.2.7, "2001:db8::7", "::1"]
problems:
  description: Everything that would end the installation; one message each.
  returned: success
  type: list
  elements: str
  sample: ["carbon_cache_instances has port 2003, but nginx, process 93, unit nginx.service holds 0.0.0.0:2003 (tcp). ..."]
missing:
  description: Packages to install, by component. Among them are those that a time zone or an import needs.
  returned: success
  type: dict
  sample: {carbon_cache: [graphite-carbon], statsd: []}
unverified:
  description:
    - Imports that could not be tried yet, or need a package first, as the option O(metricstack.graphite.packages#module:imports) takes
      them.
  returned: success
  type: list
  elements: dict
  sample: [{component: carbon_cache, python: /usr/bin/python3, modules: [carbon.service]}]
python_versions:
  description: Versions of the interpreters; empty where one is missing.
  returned: success
  type: dict
  sample: {/usr/bin/python3: "3.13"}
apache:
  description: Apache's configuration and its consequences for the sites; null where no component has O(components[].apache).
  returned: success
  type: dict
  contains:
    installed:
      description: Whether Apache's configuration is there.
      type: bool
      sample: true
    shadows:
      description: Virtual hosts that answer requests which are meant for one of the sites, one message each. They are warnings as well.
      type: list
      elements: str
      sample: ["/etc/apache2/sites-enabled/000-all.conf (line 1) answers with a redirect for a.example in place of site 'graphite'. ..."]
    listens:
      description: Arguments of the C(Listen) directives for the file of each site, so that each address is configured once; by site.
      type: dict
      sample: {graphite: ["8080"]}
    server_aliases:
      description: Names for the directive C(ServerAlias) of each site; by site.
      type: dict
      sample: {graphite: [web1, web1.example.org, 127.0.0.1, 192.0.2.7]}
    elsewhere:
      description: The C(Listen) directives in the rest of the configuration that are in force.
      type: list
      elements: dict
      contains:
        argument:
          description: Argument of the directive.
          type: str
          sample: "80"
        path:
          description: Path of the file.
          type: str
          sample: /etc/apache2/ports.conf
        line:
          description: Number of the line.
          type: int
          sample: 5
    unused_listens:
      description: C(Listen) directives of the package that no site needs, on ports that another process uses.
      type: list
      elements: dict
      contains:
        argument:
          description: Argument of the directive.
          type: str
          sample: "80"
        holder:
          description: Who holds the port.
          type: str
          sample: nginx, process 12, unit nginx.service
    ports_file:
      description: Path and content of C(ports.conf) without RV(apache.unused_listens); null if there are none.
      type: dict
      sample: {path: /etc/apache2/ports.conf, content: "# Listen 80\n"}
    replaced_sites:
      description: Enabled sites that serve one of the applications in C(replaces) of the sites.
      type: list
      elements: str
      sample: [graphite-manual]
    enabled_sites:
      description: Names of the enabled sites.
      type: list
      elements: str
      sample: [000-default, graphite]
    enabled_modules:
      description: Names of the enabled modules.
      type: list
      elements: str
      sample: [alias, headers, wsgi]
    module_files:
      description: Files of C(mods-available) that are to be enabled, because the sites need the modules.
      type: list
      elements: str
      sample: [alias.conf, alias.load]
    recorded_module_files:
      description: Files of C(mods-enabled) for TLS that the role has enabled or is to enable. It disables no others.
      type: list
      elements: str
      version_added: 2.1.0
      sample: [socache_shmcb.load, ssl.conf, ssl.load]
    unneeded_module_files:
      description: Files of C(mods-enabled) that the role has enabled for TLS and that no site needs any more.
      type: list
      elements: str
      version_added: 2.1.0
      sample: []
    default_site_changed:
      description: Whether the default site or its page differs from the package.
      type: bool
      sample: false
    customizations:
      description: Enabled sites and configuration, beside O(components[].apache.sites), that the package lacks or has with other contents.
      type: list
      elements: str
      sample: [sites-enabled/other.conf]
    is_version_free:
      description: Whether nobody but the package says how much of Apache's version is shown.
      type: bool
      sample: true
    run_user:
      description: User that Apache runs as, from C(envvars).
      type: str
      sample: www-data
    run_group:
      description: Group that Apache runs as, from C(envvars).
      type: str
      sample: www-data
earlier_installation:
  description: The installation of O(components[].earlier_installations); null if there is none, or its database has been copied.
  returned: success
  type: dict
  version_added: 2.1.0
  contains:
    directory:
      description: Where the installation is.
      type: str
      sample: /opt/graphite
    series:
      description: Number of whisper files that carbon is not going to use, as a text; empty if there are none.
      type: str
      sample: "1204"
    database:
      description: Path of its SQLite database; empty without one.
      type: str
      sample: /opt/graphite/storage/graphite.db
    other_database:
      description: Engine, name, host and port of its database server; empty without one.
      type: str
      sample: ""
    files:
      description: Its configuration files.
      type: list
      elements: str
      sample: [/opt/graphite/conf/carbon.conf]
    sites:
      description: Files of Apache that serve it.
      type: list
      elements: str
      sample: [/etc/apache2/sites-enabled/graphite.conf]
manual_processes:
  description: Ids of the processes to replace, by component.
  returned: success
  type: dict
  sample: {carbon_cache: [], statsd: [2785]}
missing_users:
  description: Those of the users that the host does not know.
  returned: success
  type: list
  elements: str
  sample: [statsd]
missing_groups:
  description: Those of the users' groups that the host does not know.
  returned: success
  type: list
  elements: str
  sample: []
paths:
  description: Those of the paths that exist, and what matches those that are patterns.
  returned: success
  type: list
  elements: str
  sample: [/usr/bin/npm]
kernel_settings:
  description: Values of the settings; empty where the host does not show one, as in a container.
  returned: success
  type: dict
  sample: {net.core.rmem_max: "212992"}
foreign_owned:
  description:
    - Directories of O(components[].ownership) that do not exist, or in which a directory or a file without a second name belongs to
      somebody else.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/graphite]
readonly_kernel_settings:
  description: Those of the settings that cannot be changed from the host, as in a container.
  returned: success
  type: list
  elements: str
  sample: [net.core.rmem_max]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apache, identity, requirements


def _list_of(**options: dict) -> dict:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


TEXT = {"type": "str", "required": True}
PATH = {"type": "path", "required": True}
TEXTS = {"type": "list", "elements": "str", "default": []}
REQUIRED_TEXTS = {"type": "list", "elements": "str", "required": True}
REQUIRED_PATHS = {"type": "list", "elements": "path", "required": True}
COMPONENT = {
    "component": TEXT,
    "packages": TEXTS,
    "conditional_packages": _list_of(name=TEXT, unless_exists=REQUIRED_PATHS),
    "dependencies": _list_of(package=TEXT, library=TEXT, problem=TEXT),
    "advice": {"type": "str", "default": ""},
    "imports": _list_of(python=PATH, modules=REQUIRED_TEXTS),
    "interpreters": _list_of(python=PATH, minimum=TEXT, below=TEXT, problem=TEXT),
    "sockets": _list_of(
        variable=TEXT,
        protocol={"type": "str", "choices": ["tcp", "udp"], "required": True},
        address=TEXT,
        address_variable={"type": "str"},
        ports={"type": "list", "elements": "int", "required": True},
        units=TEXT,
        unless_exists={"type": "list", "elements": "path", "default": []},
    ),
    "takeover": {"type": "dict", "options": {"programs": REQUIRED_TEXTS, "command": TEXT}},
    "directories": _list_of(
        variable=TEXT,
        path=PATH,
        user=TEXT,
        recursive={"type": "bool", "default": False},
        writable={"type": "list", "elements": "path", "default": []},
    ),
    "whisper_capacity": {
        "type": "dict",
        "options": {
            "directory": PATH,
            "expected_series": {"type": "raw", "required": True},
            "storage_schemas": {"type": "list", "elements": "dict", "required": True},
        },
    },
    "ownership": _list_of(path=PATH, user=TEXT, exclude={"type": "list", "elements": "path", "default": []}),
    "users": TEXTS,
    "time_zones": _list_of(variable=TEXT, name=TEXT),
    "paths": {"type": "list", "elements": "path", "default": []},
    "kernel_settings": TEXTS,
    "clock": {
        "type": "dict",
        "options": {"reference_time": {"type": "float", "required": True}, "tolerance": {"type": "int", "required": True}},
    },
    "ip_firewall": {"type": "str", "default": ""},
    "apache": {
        "type": "dict",
        "options": {
            "sites": {"type": "list", "elements": "dict", "default": []},
            "disable_default_site": {"type": "bool", "default": False},
            "sandbox": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": apache.ROOT},
        },
    },
    "earlier_installations": _list_of(
        directory=PATH,
        variable=TEXT,
        policy={"type": "str", "choices": ["refuse", "adopt"], "required": True},
        unless_exists={"type": "list", "elements": "path", "default": []},
        whisper_directory=PATH,
        database={"type": "str"},
        marker={"type": "path"},
    ),
    "problems": TEXTS,
    "conditional_problems": _list_of(problem=TEXT, unless_exists=REQUIRED_PATHS, if_exists={"type": "path"}),
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "components": {"type": "list", "elements": "dict", "required": True, "options": COMPONENT},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    components = module.params["components"]
    examination = requirements.Examination(components, module.params["lock_timeout"])
    examination.examine()
    for warning in examination.warnings:
        module.warn(warning)
    users, paths, settings = (
        list(dict.fromkeys(item for component in components for item in component[key])) for key in ("users", "paths", "kernel_settings")
    )
    module.exit_json(
        changed=False,
        host_names=identity.own_names(),
        host_addresses=identity.own_addresses(),
        problems=examination.problems,
        missing=examination.missing,
        unverified=examination.unverified,
        python_versions=examination.python_versions,
        apache=examination.apache,
        earlier_installation=examination.earlier_installation,
        manual_processes=examination.manual_processes,
        missing_users=requirements.missing_users(users),
        missing_groups=requirements.missing_groups(users),
        paths=list(dict.fromkeys(found for path in paths for found in requirements.existing_paths(path))),
        kernel_settings={name: requirements.read_kernel_setting(name) for name in settings},
        foreign_owned=[entry["path"] for component in components for entry in component["ownership"] if not requirements.is_owned(entry)],
        readonly_kernel_settings=[name for name in settings if not requirements.is_writable_kernel_setting(name)],
    )


if __name__ == "__main__":
    main()
