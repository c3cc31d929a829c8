# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which host has which component, and who talks to whom on which address and port.

The one place that answers these questions. An inventory comes in, one dict per host goes out; nothing here contacts a host or
evaluates a template. This file is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, NamedTuple

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import RetentionError, parse_retentions
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import first_match
from ansible_collections.metricstack.graphite.plugins.module_utils._host.earlier import WHISPER
from ansible_collections.metricstack.graphite.plugins.module_utils._host.tls import DEFAULT_PORT, authority_of
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import (
    address_problem,
    connect_address,
    count_problem,
    earlier_installation_problem,
    is_loopback,
    is_outside,
    is_private,
    network_problems,
    port_problem,
    url_prefix,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import (
    INSTANCE_NAMES,
    carbon_instances,
    instance_problems,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_relay import MOST_MEMBERS
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.go_runtime_metrics import go_runtime_metrics_instances
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_listeners, statsd_series
from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import is_alone, is_self_signed, wants_tls
from ansible_collections.metricstack.graphite.plugins.plugin_utils._statsd_series import aggregation_rules, aggregation_warnings


class Socket(NamedTuple):
    """A listener, by the variables that hold its address and its port."""

    protocol: str
    address: str
    port: str


class Component(NamedTuple):
    """A part of the stack. Its name is that of its group in the inventory."""

    name: str
    # The first one is the component's own.
    roles: tuple[str, ...]
    # The first one receives points.
    sockets: tuple[Socket, ...] = ()
    # The variables that hold where points are sent: a host and a port.
    target: tuple[str, str] | None = None
    # Whether site.yml installs the component.
    in_stack: bool = True
    # The component on whose hosts this one is, unless the inventory has its group.
    beside: str | None = None


# Where relays and fronts reach the stores of a cluster, unless the inventory says otherwise.
STORE_PORT = 2013
STORE_WEB_PORT = 8081
# Where relays and stores take points over TLS.
TLS_PORT = 2403
STORE_TLS_PORT = 2413
# Where fronts ask stores over TLS.
STORE_WEB_TLS_PORT = 8444
TLS_DIRECTORY = "/etc/graphite-tls"
SITE = "graphite"
STORE_SITE = "graphite-store"

# In the order in which a point passes through them: each sends to the next one that the inventory has.
CHAIN = (
    Component(
        "go_runtime_metrics",
        ("go_runtime_metrics",),
        target=("go_runtime_metrics_statsd_host", "go_runtime_metrics_statsd_port"),
        in_stack=False,
    ),
    Component(
        "statsd",
        ("statsd",),
        (Socket("udp", "statsd_address", "statsd_port"), Socket("tcp", "statsd_management_address", "statsd_management_port")),
        ("statsd_graphite_host", "statsd_graphite_port"),
    ),
    Component("carbon_relay", ("carbon_relay",), (Socket("tcp", "carbon_relay_address", "carbon_relay_port"),), beside="carbon"),
    Component("carbon", ("carbon_cache",)),
)
# Holds answers of graphite-web; no point passes through it.
MEMCACHED = Component("memcached", ("memcached",), (Socket("tcp", "memcached_address", "memcached_port"),))
COMPONENTS = {component.name: component for component in (*CHAIN, MEMCACHED, Component("graphite_web", ("graphite_web", "apache_wsgi")))}


class TopologyError(Exception):
    """The groups of the inventory do not say which host gets what; the message says what to write."""


class RefusedValueError(Exception):
    """A variable of ``host`` has no value that could be used: its template fails, or its validation has refused it."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(message)
        self.host = host


def carbonlink_hosts(instances: list[dict], address: str = "127.0.0.1") -> list[str]:
    """Return graphite-web's ``CARBONLINK_HOSTS`` for ``instances`` at ``address``, in their order.

    The order and the instance names decide which cache is asked for a metric; both must be those of the relay, if
    there is one.
    """
    return [f"{_in_url(address)}:{instance['cache_query_port']}:{instance['name']}" for instance in instances]


def hosts_of(groups: Mapping[str, list[str]], *components: str) -> list[str]:
    """Return the hosts that have at least one of the components, by default of the whole stack, in the order of the inventory.

    The only host of an inventory without a group of the collection has all of them. Raises ``TopologyError`` for several hosts
    without such a group, and for a group whose name differs from that of a component by case, hyphen or plural only.
    """
    everybody = list(groups.get("all", []))
    _refuse_similar_names(groups)
    names = components or [name for name, component in COMPONENTS.items() if component.in_stack]
    if any(_is_grouped(groups, name) for name in names):
        wanted = {host for name in names for host in groups.get(_group_of(groups, name), [])}
        return [host for host in everybody if host in wanted]
    if len(everybody) > 1:
        raise TopologyError(
            f"The inventory has {len(everybody)} hosts, but none of the groups {', '.join(COMPONENTS)} says which host gets which"
            " component. No host was contacted. Put each host into the groups of its components, such as"
            f" 'carbon: {{hosts: {{{everybody[0]}: }}}}' below 'children' of a YAML inventory. To install the whole stack on one host, name"
            f" that host alone: -i {everybody[0]},"
        )
    return everybody


def _is_grouped(groups: Mapping[str, list[str]], name: str) -> bool:
    """Tell whether groups say which hosts have a component; groups of Go servers and of memcached alone say nothing of the stack.

    A group memcached without any other of the collection is that of another application.
    """
    stack = {other for other, component in COMPONENTS.items() if component.in_stack and component is not MEMCACHED}
    return (name in groups and name != MEMCACHED.name) or not stack.isdisjoint(groups)


def _group_of(groups: Mapping[str, list[str]], name: str) -> str:
    """Return the group that has the hosts of a component."""
    return name if name in groups else COMPONENTS[name].beside or name


def _refuse_similar_names(groups: Mapping[str, list[str]]) -> None:
    names = {_plain(name): name for name in COMPONENTS}
    similar = {
        group: names[_plain(group)]
        for group, hosts in groups.items()
        if group not in COMPONENTS and _plain(group) in names and set(hosts) - set(groups.get(names[_plain(group)], []))
    }
    if similar:
        listed = " ".join(f"The inventory has a group '{group}': rename the group to '{name}'." for group, name in similar.items())
        raise TopologyError(f"{listed} The groups of the collection are {', '.join(COMPONENTS)}. No host was contacted.")


def _plain(group: str) -> str:
    return re.sub(r"[^a-z]", "", group.lower()).rstrip("s")


class Inventory:
    """The groups and variables of an inventory, with the roles' defaults where the inventory has no value."""

    def __init__(self, groups: Mapping[str, list[str]], variables: Callable[[str], Mapping[str, Any]], defaults: Mapping[str, Any]) -> None:
        self._groups = groups
        self._variables = variables
        self._defaults = defaults

    def hosts(self, component: str, host: str) -> list[str]:
        """Return the hosts of a component. Without groups, each host is a stack of its own."""
        return list(self._groups.get(_group_of(self._groups, component), [])) if _is_grouped(self._groups, component) else [host]

    def has_group(self, component: str) -> bool:
        """Tell whether the inventory itself has the group of a component."""
        return component in self._groups

    def nearest(self, component: str, host: str) -> str:
        """Return the host whose ``component`` serves ``host``: itself, or else the first one, or else itself again."""
        hosts = self.hosts(component, host)
        return host if host in hosts or not hosts else hosts[0]

    def is_set(self, host: str, name: str) -> bool:
        """Return whether the inventory gives a host's variable a value."""
        return name in self._variables(host)

    def own(self, host: str, name: str) -> Any:
        """Return the value that the inventory gives to a host's variable, or ``None``."""
        return self._variables(host)[name] if self.is_set(host, name) else None

    def value(self, host: str, name: str) -> Any:
        """Return the value of a host's variable, or else the role's default."""
        return self._variables(host)[name] if self.is_set(host, name) else self._defaults.get(name)

    def keeps(self, host: str, role: str) -> bool:
        """Tell whether the inventory leaves a role's component on a host, rather than removes it."""
        state = self.own(host, f"{role}_state")
        if role == "carbon_relay" and state is None and not self.has_group(role):
            return self.keeps(host, "carbon_cache") and not self._has_instance_in_front(host)
        if role == "memcached" and state is None and not self.has_group(role):
            return self.keeps(host, "graphite_web") and not self._has_cache_of_its_own(host)
        return state != "absent"

    def _has_cache_of_its_own(self, host: str) -> bool:
        """Tell whether the inventory itself says where graphite-web on a host keeps answers, as before there was memcached."""
        settings = self.own(host, "graphite_web_settings") or {}
        return self.own(host, "graphite_web_memcached_hosts") is not None or "CACHES" in settings

    def _has_instance_in_front(self, host: str) -> bool:
        """Tell whether the inventory itself gives an instance of carbon the port of the relay, as before there was a relay."""
        instances = self.own(host, "carbon_cache_instances")
        ports = [str(instance["line_receiver_port"]) for instance in instances] if isinstance(instances, list) else []
        return str(self.value(host, "carbon_relay_port")) in ports

    def has_relay(self, host: str) -> bool:
        """Tell whether a relay that senders use runs on a host."""
        return host in self.hosts("carbon_relay", host) and self.keeps(host, "carbon_relay")

    def replicas(self, host: str) -> int:
        """Return on how many stores each series is: 0 if the hosts of carbon know nothing of each other."""
        return _number(self.own(host, "carbon_replicas"))

    def stores(self, host: str) -> list[str]:
        """Return the hosts of carbon that share their series, in the order of the inventory: with one host, that one."""
        if self.replicas(host):
            return [store for store in self.hosts("carbon", host) if self.keeps(store, "carbon_cache")]
        return [self.nearest("carbon", host)]

    def is_clustered(self, host: str) -> bool:
        """Tell whether the hosts of carbon share their series."""
        return len(self.stores(host)) > 1

    def is_store(self, host: str) -> bool:
        """Tell whether a host is one of several that share their series."""
        return self.is_clustered(host) and host in self.stores(host)

    def store(self, host: str) -> dict:
        """Return a store as relays, fronts and the other stores see it."""
        return {
            "host": host,
            "name": str(self.own(host, "carbon_store_name") or re.sub(r"[^A-Za-z0-9_-]", "_", host)),
            "address": str(self.own(host, "carbon_store_address") or self.own(host, "ansible_host") or host),
            "port": self.own(host, "carbon_store_port") or STORE_PORT,
            "tls_port": self.own(host, "stack_tls_store_port") or STORE_TLS_PORT,
            "web_port": self.own(host, "carbon_store_web_port") or STORE_WEB_PORT,
            "web_tls_port": self.own(host, "stack_tls_store_web_port") or STORE_WEB_TLS_PORT,
            "allowed_networks": self.own(host, "carbon_store_allowed_networks") or [],
            "leaving": boolean(self.own(host, "carbon_store_leaving") or False, strict=False),
        }

    def whisper_directory(self, host: str) -> Any:
        """Return the directory of a host's series, which stay where an earlier installation has them."""
        earlier = self.own(host, "stack_adopt")
        if earlier and self.own(host, "carbon_cache_whisper_directory") is None:
            return f"{earlier}/{WHISPER}"
        return self.value(host, "carbon_cache_whisper_directory")

    def has_tls(self, host: str) -> bool:
        """Tell whether points go from host to host over TLS."""
        return boolean(self.own(host, "stack_tls") or False, strict=False)

    def tls_port(self, host: str) -> Any:
        """Return the port at which the relay of a host takes points over TLS."""
        return self.own(host, "stack_tls_port") or TLS_PORT

    def lists_instances(self, host: str) -> bool:
        """Tell whether the inventory lists the instances of a host's carbon, with their ports."""
        return isinstance(self.own(host, "carbon_cache_instances"), list)

    def instances(self, host: str, processors: int | None = None) -> list[dict]:
        """Return the instances of a host's carbon.

        Where their number is that of the host's processors, it follows from Ansible's facts, or else from ``processors``; if that is
        ``None``, raises ``RefusedValueError``.
        """
        value = self.value(host, "carbon_cache_instances")
        if value == "auto":
            processors = (self.own(host, "ansible_facts") or {}).get("processor_nproc", processors)
            if processors is None:
                raise RefusedValueError(
                    host,
                    f"carbon_cache_instances of {host} is auto, and the number of processors of {host} is not known in this play. Run"
                    f" site.yml, which asks every host for it, or give a number from 1 to {len(INSTANCE_NAMES)}.",
                )
        return carbon_instances(value, int(processors or 1), is_behind_relay=self.is_behind_relay(host))

    def is_behind_relay(self, host: str) -> bool:
        """Tell whether a relay on a host is in front of the host's carbon."""
        return self.is_store(host) or self.has_relay(host)

    def listens_on(self, host: str, component: Component) -> tuple[Any, str]:
        """Return the address on which the first socket of ``component`` listens on a host, and the variable that decides it."""
        if component.name == "carbon":
            own = self.own(host, "carbon_cache_line_receiver_address")
            if own:
                return own, "carbon_cache_line_receiver_address"
            if self.is_behind_relay(host) and not self.lists_instances(host):
                return "127.0.0.1", "carbon_cache_line_receiver_address"
        elif component is MEMCACHED:
            return self._memcached_address(host), "memcached_address"
        # The relay is where carbon was.
        elif component.name != "carbon_relay" or self.is_set(host, "carbon_relay_address") or host not in self.hosts("carbon", host):
            variable = component.sockets[0].address
            return self.value(host, variable), variable
        return self.value(host, "carbon_cache_bind_address"), "carbon_cache_bind_address"

    def _memcached_address(self, host: str) -> str:
        """Return the address that memcached on a host listens on: loopback, or a private one that other hosts use for the host."""
        own, public = self.own(host, "memcached_address"), self.public_address(host)
        if own is not None:
            return str(own)
        return public if self.shares_memcached(host) and is_private(public) else str(self.value(host, "memcached_address"))

    def shares_memcached(self, host: str) -> bool:
        """Tell whether graphite-web on another host uses the memcached on a host."""
        return any(front != host and self.keeps(front, "graphite_web") for front in self.hosts("graphite_web", host))

    def public_address(self, host: str) -> str:
        """Return the address at which other hosts reach a host."""
        return str(self.own(host, "ansible_host") or host)


class HostView:
    """What follows from the inventory for one host."""

    def __init__(self, inventory: Inventory, host: str) -> None:
        self._inventory = inventory
        self._host = host
        # The values of other hosts for want of which problems() could not compare something.
        self.refused_elsewhere: list[RefusedValueError] = []

    def topology(self) -> dict:
        """Return the dict of the host; ``docs/architecture.md`` explains the keys."""
        return {
            "components": self.components,
            "active": [name for name in self.components if all(self._keeps(role) for role in COMPONENTS[name].roles)],
            "hosts": {name: self._inventory.hosts(name, self._host) for name in COMPONENTS},
            "sends_to": {component.name: self.target(component) for component in CHAIN[:-1]},
            "go_runtime_metrics": {
                # In a URL on the host itself.
                "address": _in_url(connect_address(self._value(self._host, "go_runtime_metrics_listen_address"))),
                "interval": self._report_interval(),
                "statsd": self._statsd(self._statsd_of_go()),
            },
            "statsd": self._statsd(self._inventory.nearest("statsd", self._host)),
            "statsd_alternatives": self._statsd_alternatives(),
            "is_clustered": self._inventory.is_clustered(self._host),
            "cluster": self._cluster(),
            "relay": self._relay(),
            "tls": self._wires(),
            "store_relay": self._store_relay(),
            "carbon": self._carbon(self._known_processors),
            "memcached": {
                "state": "present" if self._keeps("memcached") else "absent",
                "address": self._inventory.listens_on(self._host, MEMCACHED)[0],
            },
            "web": self._web(),
            "graphite_web": self._graphite_web(self._host),
            "listens": self._listens(),
        }

    def problems(self) -> list[str]:
        """Return one message for each contradiction between components: which variable of which host, and what to write."""
        checks: list[Callable[[], list[str]]] = [self._port_problems, self._adoption_problems]
        # A host without groups could run the Go servers, and need not.
        checks += [
            partial(self.target_problems, component)
            for component in CHAIN
            if component.in_stack or self._inventory.has_group(component.name)
        ]
        if "statsd" in self.components:
            checks += [self._flush_problems, self._overwriting_problems, self._tags_problems]
        if "carbon" in self.components:
            checks += [self._cluster_problems]
        if {"statsd", "carbon_relay", "carbon", "graphite_web"}.intersection(self.components):
            checks += [self._wire_problems]
        if self._host in self._inventory.hosts("graphite_web", self._host):
            checks += [self._data_problems, self._switch_problems, self._front_problems, self._memcached_problems, self._tls_problems]
        problems: list[str] = []
        for check in checks:
            # What follows from a value that is refused would be wrong as well.
            try:
                problems += check()
            except RefusedValueError as error:
                self.refused_elsewhere += [error] if error.host != self._host else []
        return problems

    @cached_property
    def components(self) -> list[str]:
        """Return what is on the host. A store has a graphite-web that answers fronts, whatever the groups say."""
        found = [name for name in COMPONENTS if self._host in self._inventory.hosts(name, self._host)]
        return found if "graphite_web" in found or not self._inventory.is_store(self._host) else [*found, "graphite_web"]

    def target(self, component: Component) -> dict:
        """Return where ``component`` on this host sends: the receiving ``component``, its ``host``, ``address`` and ``port``."""
        receiver, host = self._nearest_receiver(component)
        if receiver.name == "carbon" and self._inventory.is_store(host):
            store = self._inventory.store(host)
            port = store["tls_port"] if self._has_tls else store["port"]
            return {"component": receiver.name, "host": host, "address": store["address"], "port": port}
        if receiver.sockets:
            port = self._value(host, receiver.sockets[0].port)
        else:
            port = self._inventory.instances(host, processors=1)[0]["line_receiver_port"]
        address = self._reach(host, self._inventory.listens_on(host, receiver)[0])
        own_host, own_port = (self._own(name) for name in component.target) if component.target else (None, None)
        if own_host is not None and not (own_host == "localhost" and host == self._host):
            # A name that is left to the host: Node.js 18 and later prefer the address of IPv6, where no process may listen.
            address = own_host
        is_known = self._receiver(component)[1] is not None
        if component.name == "statsd" and receiver.name == "carbon_relay" and self._has_tls and own_port is None and is_known:
            if host != self._host:
                port = self._inventory.tls_port(host)
                return {"component": receiver.name, "host": host, "address": address, "port": port, "server_name": host}
            # Programs on the host need no TLS.
            address = self._local_relay_address(address) if own_host is None else address
        return {"component": receiver.name, "host": host, "address": address, "port": port if own_port is None else own_port}

    def _receiver(self, component: Component) -> tuple[Component, str | None]:
        """Return what gets the points that ``component`` on this host sends, and the host that it is on.

        The host is ``None`` if they go to an address that is none of the inventory's, such as that of a load balancer.
        """
        later = CHAIN[CHAIN.index(component) + 1 :]
        receiver = next((other for other in later if self._inventory.hosts(other.name, self._host)), later[0])
        address = self._own(component.target[0]) if component.target else None
        if address is None:
            host: str | None = self._inventory.nearest(receiver.name, self._host)
        else:
            host = self._host_at(str(address), receiver)
        if receiver.beside and host is not None and not self._inventory.keeps(host, receiver.roles[0]):
            receiver = COMPONENTS[receiver.beside]
            host = host if host in self._inventory.hosts(receiver.name, self._host) else self._inventory.nearest(receiver.name, self._host)
        return receiver, host

    def _nearest_receiver(self, component: Component) -> tuple[Component, str]:
        """Return what ``component`` on this host sends to, and its host; for an address that the inventory lacks, the nearest one."""
        receiver, host = self._receiver(component)
        return receiver, host or self._inventory.nearest(receiver.name, self._host)

    def _keeps(self, role: str) -> bool:
        return self._inventory.keeps(self._host, role)

    def _own(self, name: str) -> Any:
        return self._inventory.own(self._host, name)

    def _value(self, host: str, name: str) -> Any:
        return self._inventory.value(host, name)

    def _reach(self, host: str, bind: object) -> str:
        """Return the address at which this host reaches a listener of ``host`` that is bound to ``bind``."""
        if host == self._host or connect_address(bind) == str(bind):
            return connect_address(bind)
        return self._inventory.public_address(host)

    def _statsd(self, host: str) -> dict:
        return {
            "host": host,
            "address": connect_address(self._value(host, "statsd_address")),
            "port": self._value(host, "statsd_port"),
            "management_address": connect_address(self._value(host, "statsd_management_address")),
            "management_port": self._value(host, "statsd_management_port"),
            "receives_udp": any(listener["protocol"] == "udp" for listener in self._statsd_listeners(host)),
            "flush_seconds": self._flush_milliseconds(host) // 1000,
            "config": self._value(host, "statsd_config"),
            "tags_enabled": HostView(self._inventory, host)._takes_tags(),
        }

    def _statsd_alternatives(self) -> list[dict]:
        """Return where StatsD on this host sends what the relay of its own does not take: to the other relays of a cluster."""
        own, first = self._own("statsd_graphite_alternatives"), self.target(COMPONENTS["statsd"])
        if own is not None:
            return own
        if not self._inventory.is_clustered(self._host) or self._own("statsd_graphite_host") is not None:
            return []
        relay = COMPONENTS["carbon_relay"]
        others = [host for host in self._inventory.hosts("carbon_relay", self._host) if self._inventory.has_relay(host)]
        return [
            {
                "host": self._reach(host, self._inventory.listens_on(host, relay)[0]),
                **(
                    {"port": self._inventory.tls_port(host), "server_name": host}
                    if self._has_tls
                    else {"port": self._value(host, "carbon_relay_port")}
                ),
            }
            for host in others
            if host != first["host"]
        ]

    def _statsd_listeners(self, host: str) -> list[dict]:
        return statsd_listeners(*(self._value(host, f"statsd_{name}") for name in ("config", "address", "port")))

    def _report_interval(self) -> float:
        """Return how many seconds apart the Go servers report: so often that every flush of their StatsD has a report."""
        own, half = self._own("go_runtime_metrics_interval"), self._flush_seconds_of_go() / 2
        return (int(half) if half.is_integer() else half) if own is None else own

    def _statsd_of_go(self) -> str:
        """Return the host of the StatsD that the Go servers on this host report to, as far as the inventory knows it."""
        return self._nearest_receiver(COMPONENTS["go_runtime_metrics"])[1]

    def _flush_seconds_of_go(self) -> float:
        return self._flush_milliseconds(self._statsd_of_go()) / 1000

    def _flush_milliseconds(self, host: str) -> int:
        return _number(self._value(host, "statsd_flush_interval"))

    def _relay(self) -> dict:
        """Return what the role carbon_relay is passed on this host, and where the host reaches its own relay."""
        address = self._inventory.listens_on(self._host, COMPONENTS["carbon_relay"])[0]
        own = {name: self._own(f"carbon_relay_{name}") for name in ("clusters", "statistics_prefix")}
        clusters = self._clusters() if own["clusters"] is None else own["clusters"]
        prefix = self._carbon_setting(self._inventory.nearest("carbon", self._host), "CARBON_METRIC_PREFIX", "carbon")
        return {
            "state": "present" if self._inventory.has_relay(self._host) else "absent",
            "address": address,
            "local_address": self._local_relay_address(address),
            "port": self._value(self._host, "carbon_relay_port"),
            "clusters": clusters,
            "routes": self.own_relay().get("carbon_relay_routes") or self._value(self._host, "carbon_relay_routes"),
            "statistics_prefix": f"{prefix}.relays.\\.1" if own["statistics_prefix"] is None else own["statistics_prefix"],
        }

    @cached_property
    def _has_tls(self) -> bool:
        return self._inventory.has_tls(self._host)

    def _local_relay_address(self, address: str) -> str:
        """Return where programs on this host reach a relay of it that listens on ``address``."""
        return "127.0.0.1" if self._has_tls and not is_loopback(str(address)) else connect_address(address)

    @cached_property
    def _own_certificate(self) -> dict[str, Any]:
        """The paths of a certificate for TLS between hosts that the inventory gives, each ``None`` without one."""
        return {name: self._own(f"stack_tls_{name}") for name in ("certificate", "key", "authority")}

    def _wires(self) -> dict:
        """Return the certificate of this host, and where its relays take points over TLS."""
        own = self._own_certificate
        return {
            "enabled": self._has_tls,
            "self_signed": own["certificate"] is None,
            "certificate": f"{TLS_DIRECTORY}/host.pem" if own["certificate"] is None else own["certificate"],
            "key": f"{TLS_DIRECTORY}/host.key" if own["key"] is None else own["key"],
            # In place of the certificates of all hosts.
            "authority": "" if own["authority"] is None else own["authority"],
            "directory": TLS_DIRECTORY,
            # By which programs on this host trust the others.
            "trusted": f"{TLS_DIRECTORY}/trusted.pem",
            # With the key, for relays.
            "combined": f"{TLS_DIRECTORY}/relay.pem",
            "port": self._inventory.tls_port(self._host),
            "store_port": self._inventory.store(self._host)["tls_port"],
            "senders": {
                "statsd": [host for host in self._inventory.hosts("statsd", self._host) if self._inventory.keeps(host, "statsd")],
                "carbon_relay": [host for host in self._inventory.hosts("carbon_relay", self._host) if self._inventory.has_relay(host)],
                "graphite_web": [
                    host
                    for host in self._inventory.hosts("graphite_web", self._host)
                    if self._inventory.is_clustered(host) and self._inventory.keeps(host, "graphite_web")
                ],
            },
        }

    def _store_relay(self) -> dict:
        """Return what the role carbon_relay is passed for the relay that spreads the series of this store over its caches."""
        store = self._inventory.store(self._host)
        is_store = self._inventory.is_store(self._host)
        prefix = self._carbon_setting(self._host, "CARBON_METRIC_PREFIX", "carbon")
        return {
            "state": "present" if is_store else "absent",
            "address": store["address"],
            "local_address": self._local_relay_address(store["address"]),
            "port": store["port"],
            "allowed_senders": store["allowed_networks"],
            "clusters": [self._caches(self._host)] if is_store else [],
            # Apart from those of the relays, because these points never leave the store.
            "statistics_prefix": f"{prefix}.store_relays.\\.1",
        }

    def _cluster(self) -> dict:
        """Return the stores, and on how many of them each series is."""
        keys = ("host", "name", "address", "port", "leaving")
        stores = [{key: self._inventory.store(host)[key] for key in keys} for host in self._inventory.stores(self._host)]
        return {"replicas": self._inventory.replicas(self._host) if len(stores) > 1 else 1, "stores": stores}

    def _clusters(self) -> list[dict]:
        """Return where the relay on this host sends: to the stores, or to the caches of the only one."""
        if self._inventory.is_clustered(self._host):
            cluster = self._cluster()
            members = [
                {"address": store["address"], "port": store["port"], "instance": store["name"]}
                if not self._has_tls
                else {"address": store["address"], "port": store["tls_port"], "instance": store["name"], "tls": True}
                for store in map(self._inventory.store, self._inventory.stores(self._host))
                if not store["leaving"]
            ]
            return [{"name": "stores", "type": "fnv1a_ch", "replication": cluster["replicas"], "members": members}]
        return [self._caches(self._inventory.nearest("carbon", self._host))]

    def _caches(self, host: str) -> dict:
        """Return the caches of a host as a destination of relays, in the order in which graphite-web asks them."""
        address = self._reach(host, self._inventory.listens_on(host, COMPONENTS["carbon"])[0])
        members = [
            {"address": address, "port": instance["line_receiver_port"], "instance": instance["name"]}
            for instance in self._inventory.instances(host, self._known_processors)
        ]
        return {"name": "caches", "type": "fnv1a_ch", "members": members}

    @cached_property
    def _known_processors(self) -> int | None:
        """Return what counts where the number of a host's processors is not known: hosts that ask no instance need not know it."""
        return None if {"carbon_relay", "carbon", "graphite_web"}.intersection(self.components) else 1

    def own_relay(self) -> dict:
        """Return the variables of this host's relay, for the rules of its role, that follow from the stores of a cluster."""
        own: dict = {}
        if self._has_tls and self._own("carbon_relay_tls") is None:
            own["carbon_relay_tls"] = {"port": self._inventory.tls_port(self._host), "certificate": f"{TLS_DIRECTORY}/relay.pem"}
        if not self._inventory.is_clustered(self._host) or self._own("carbon_relay_clusters") is not None:
            return own
        clusters = self._clusters()
        if self._own("carbon_relay_routes") is None:
            own["carbon_relay_routes"] = _all_to(clusters[0]["name"])
        return {"carbon_relay_clusters": clusters, **own}

    def own_instances(self) -> Any:
        """Return the instances of this host's carbon for the rules of its role; the value itself if it is refused."""
        value = self._value(self._host, "carbon_cache_instances")
        # Of a number that is not known yet, the rules are those for several instances.
        return value if instance_problems(value) else self._inventory.instances(self._host, processors=2)

    def _carbon(self, processors: int | None) -> dict:
        host = self._inventory.nearest("carbon", self._host)
        bind, instances = self._value(host, "carbon_cache_bind_address"), self._inventory.instances(host, processors)
        line_receiver_address = self._inventory.listens_on(host, COMPONENTS["carbon"])[0]
        return {
            "host": host,
            "address": self._reach(host, bind),
            "local_address": connect_address(bind),
            "is_behind_relay": self._inventory.is_behind_relay(host),
            "line_receiver_address": line_receiver_address,
            "local_line_receiver_address": connect_address(line_receiver_address),
            "instances": instances,
            # As the host itself asks its caches.
            "carbonlink_hosts": carbonlink_hosts(instances, connect_address(bind)),
            "whisper_directory": self._inventory.whisper_directory(host),
            # Carbon drops what is not on the list, also what is sent to check it.
            "uses_whitelist": boolean(self._carbon_setting(host, "USE_WHITELIST", False), strict=False),
            "storage_aggregations": self._storage_aggregations(host),
            "statsd": [self._own_series(sender) for sender in self._senders(host)],
            "tags_url": self._tags_url(host),
            "tags_authority": self._tags_authority(host),
            "metric_prefix": self._carbon_setting(host, "CARBON_METRIC_PREFIX", "carbon"),
        }

    def _carbon_setting(self, host: str, name: str, default: Any) -> Any:
        return (self._value(host, "carbon_cache_settings") or {}).get(name, default)

    def _storage_aggregations(self, host: str) -> list[dict]:
        own = self._inventory.own(host, "carbon_cache_storage_aggregations")
        return aggregation_rules(self._sending_configs(host)) if own is None else own

    def _tags_url(self, host: str) -> str:
        """Return where the carbon of ``host`` tells of new series, or an empty text if there are no tags."""
        own = self._inventory.own(host, "carbon_cache_tags_url")
        if own is not None:
            return own
        web = self._inventory.nearest("graphite_web", host)
        if not HostView(self._inventory, host)._tags_enabled():
            return ""
        return self._local_url(web) if web == host else self._public_url(web)

    def _tags_authority(self, host: str) -> str:
        """Return the file by which the carbon of ``host`` trusts that graphite-web, or an empty text for the authorities of its system."""
        own = self._inventory.own(host, "carbon_cache_tags_authority")
        if own is not None:
            return own
        # A URL of the inventory's own may lead anywhere.
        is_ours = self._inventory.own(host, "carbon_cache_tags_url") is None and self._tags_url(host)
        return self._authority(self._inventory.nearest("graphite_web", host)) if is_ours else ""

    def _tag_guests(self, web: str) -> list[dict]:
        """Return the carbons that tell graphite-web on ``web`` of new series, as elements of ``graphite_web_access_without_login``."""
        guests = []
        for carbon in self._inventory.hosts("carbon", web):
            if not (self._inventory.keeps(carbon, "carbon_cache") and self._tags_url(carbon)):
                continue
            if self._inventory.nearest("graphite_web", carbon) == web:
                networks = ["127.0.0.0/8", "::1"] if carbon == web else [self._inventory.public_address(carbon)]
                if carbon == web and self._tls(web):
                    # Carbon goes to where the name of the site resolves, which is mostly an address of the host.
                    networks += [str(self._value(web, "graphite_web_server_name")), self._inventory.public_address(web)]
                guests.append({"name": f"carbon on {carbon}", "networks": networks, "areas": ["tags"]})
        return guests

    def _takes_tags(self) -> bool:
        own = self._own("statsd_tags_enabled")
        return self._tags_enabled() if own is None else boolean(own, strict=False)

    def _tags_enabled(self) -> bool:
        return any(self._tag_switches().values())

    def _tag_switches(self) -> dict[str, bool]:
        """Return ``graphite_web_tags_enabled`` of each host with graphite-web. All of them must be equal."""
        return {
            host: boolean(self._value(host, "graphite_web_tags_enabled"), strict=False)
            for host in self._inventory.hosts("graphite_web", self._host)
            if self._inventory.keeps(host, "graphite_web")
        }

    def _sending_configs(self, host: str) -> list[dict]:
        """Return the configuration of each StatsD that sends to the carbon of ``host``, or else StatsD's defaults."""
        return [self._value(sender, "statsd_config") for sender in self._senders(host)] or [{}]

    def _senders(self, host: str) -> list[str]:
        """Return the hosts whose StatsD sends to the carbon of ``host``, or to an address that may lead there."""
        return [
            other
            for other in self._inventory.hosts("statsd", host)
            if self._inventory.keeps(other, "statsd")
            and HostView(self._inventory, other)._carbon_of_statsd()[0] in (host, None, *self._inventory.stores(host))
        ]

    def _own_series(self, host: str) -> dict:
        """Return the series in which StatsD of ``host`` reports about itself."""
        config = self._value(host, "statsd_config")
        prefix = config.get("prefixStats", "statsd")
        return {
            "host": host,
            "flush_seconds": self._flush_milliseconds(host) // 1000,
            "bad_lines": statsd_series(config, f"{prefix}.bad_lines_seen").get("counter", ""),
            "timestamp_lag": statsd_series(config, f"{prefix}.timestamp_lag")["gauge"],
        }

    def _carbon_of_statsd(self) -> tuple[str | None, str]:
        """Return the host whose carbon gets what StatsD on this host sends, whatever is between them, and the last address on the way.

        The host is ``None`` if the inventory does not know it.
        """
        view, component, address = self, COMPONENTS["statsd"], ""
        while component.name != "carbon":
            address = str(view.target(component)["address"])
            component, host = view._receiver(component)
            if host is None:
                return None, address
            view = HostView(self._inventory, host)
        return view._host, address

    def _host_at(self, address: str, receiver: Component) -> str | None:
        """Return the host of ``receiver`` that has an address as this host sees it."""
        hosts = self._inventory.hosts(receiver.name, self._host)
        if address == "localhost" or is_loopback(address):
            return self._host if self._host in hosts else None
        known = {host: (host, self._inventory.public_address(host), str(self._inventory.listens_on(host, receiver)[0])) for host in hosts}
        return next((host for host, addresses in known.items() if address in addresses), hosts[0] if len(hosts) == 1 else None)

    def warnings(self) -> list[str]:
        """Return one message for each value that works, and makes graphs that are not true."""
        rules = self._own("carbon_cache_storage_aggregations")
        if rules is None or "carbon" not in self.components or not self._keeps("carbon_cache"):
            return []
        found = [
            f"{warning} On {self._host}."
            for config in self._sending_configs(self._host)
            for warning in aggregation_warnings("carbon_cache_storage_aggregations", rules, config, self._tags_enabled())
        ]
        return list(dict.fromkeys(found))

    def _web(self) -> dict:
        """Return the front that serves this host."""
        host = self._inventory.nearest("graphite_web", self._host)
        return {
            "host": host,
            "public_name": self._public_name(host),
            "tags_enabled": self._tags_enabled(),
            "local_url": self._local_url(host),
            "public_url": self._public_url(host),
            # Where the host itself connects to for local_url, and by which file it trusts the certificate.
            "connect_address": "127.0.0.1" if self._tls(host) else "",
            "authority": self._authority(host),
            **self._graphite_web(host),
        }

    def _graphite_web(self, host: str) -> dict:
        """Return where the graphite-web of a host has its data from, and whom it answers."""
        carbon = HostView(self._inventory, host)._carbon(self._known_processors)
        linked = self._inventory.own(host, "graphite_web_carbonlink_hosts")
        directory, hashing_type, memcached, duration = (
            self._inventory.own(host, f"graphite_web_{name}")
            for name in ("whisper_directory", "carbonlink_hashing_type", "memcached_hosts", "cache_duration")
        )
        # Instances that the inventory names may be behind another relay.
        is_relayed = linked is None and (
            self._inventory.is_clustered(host) or any(map(self._inventory.has_relay, self._inventory.hosts("carbon_relay", host)))
        )
        is_clustered, is_store = self._inventory.is_clustered(host), self._inventory.is_store(host)
        is_front = host in self._inventory.hosts("graphite_web", host)
        # A front without files of its own asks no cache either: the stores do.
        instances = [] if is_clustered and not is_store else carbon["instances"]
        others = (
            [self._inventory.store(other) for other in self._inventory.stores(host) if other != host] if is_clustered and is_front else []
        )
        store = self._inventory.store(host) if is_store else None
        # Fronts keep the answers.
        shared = [f"{_in_url(address)}:{port}" for _host, address, port in self._memcached_of(host)] if is_front else []
        return {
            "carbon_host": carbon["host"],
            "is_front": is_front,
            # Where the host itself asks it.
            **self._own_place(host, None if is_front else store),
            "carbonlink_hosts": carbonlink_hosts(instances, carbon["address"]) if linked is None else linked,
            "carbonlink_hashing_type": hashing_type or ("fnv1a_ch" if is_relayed else "carbon_ch"),
            "whisper_directory": carbon["whisper_directory"] if directory is None else directory,
            "cluster_servers": [f"{_in_url(other['address'])}:{other['web_port']}" for other in others],
            "secure_cluster_servers": [f"https://{_in_url(other['address'])}:{other['web_tls_port']}" for other in others],
            # In their certificates, by their addresses.
            "cluster_names": {other["address"]: other["host"] for other in others},
            "store_address": store["address"] if store else "",
            "store_port": store["web_port"] if store else STORE_WEB_PORT,
            "store_tls": self._store_web_tls(host) if store else {},
            "store_allowed_networks": store["allowed_networks"] if store else [],
            "guests": self._tag_guests(host) if is_front else [],
            "memcached_hosts": shared if memcached is None else memcached,
            "cache_duration": self._finest_step() if duration is None else duration,
        }

    def _own_place(self, host: str, store: dict | None) -> dict:
        """Return where a host asks its own graphite-web, how it connects to it, and by which file it trusts the certificate."""
        if not store:
            secure = bool(self._tls(host))
            return {
                "own_url": self._local_url(host),
                "own_connect_address": "127.0.0.1" if secure else "",
                "own_authority": self._authority(host),
                "own_host_header": "",
            }
        tls = self._store_web_tls(host) if self._inventory.has_tls(host) else {}
        return {
            "own_url": f"https://{host}:{tls['port']}" if tls else f"http://{_in_url(store['address'])}:{store['web_port']}",
            "own_connect_address": store["address"] if tls else "",
            "own_authority": tls.get("authority", ""),
            # Django answers to no host name with an underscore.
            "own_host_header": "localhost" if tls else "",
        }

    def _store_web_tls(self, host: str) -> dict:
        """Return TLS of the site at which a store answers fronts, as the role apache_wsgi takes it."""
        wires = HostView(self._inventory, host)._wires()
        return {
            "certificate": wires["certificate"],
            "key": wires["key"],
            "authority": wires["authority"] or wires["certificate"],
            "name": host,
            "port": self._inventory.store(host)["web_tls_port"],
            # tls.yml makes the certificate after the examination; one at a path of the inventory is examined for all that use it.
            "examine": False,
        }

    def _memcached_of(self, front: str) -> list[tuple[str, str, Any]]:
        """Return the host, the address and the port of each memcached that graphite-web on ``front`` uses.

        The order and the addresses are the same for every front, because they decide which memcached has an answer.
        """
        return [
            (host, self._memcached_reach(host), self._value(host, "memcached_port"))
            for host in self._inventory.hosts("memcached", front)
            if self._inventory.keeps(host, "memcached")
        ]

    def _memcached_reach(self, host: str) -> str:
        bind = self._inventory.listens_on(host, MEMCACHED)[0]
        is_wildcard = connect_address(bind) != bind
        return self._inventory.public_address(host) if is_wildcard and self._inventory.shares_memcached(host) else connect_address(bind)

    def _finest_step(self) -> int:
        """Return the seconds between two points of the series with most of them, by the storage rules of every carbon."""
        rules: list[dict] = []
        steps = []
        # The validation of each host tells what is wrong with its rules.
        for host in self._inventory.hosts("carbon", self._host) or [self._host]:
            with suppress(RefusedValueError):
                rules += self._value(host, "carbon_cache_storage_schemas")
        for rule in rules:
            with suppress(RetentionError, KeyError, TypeError):
                steps.append(parse_retentions(rule["retentions"])[0].seconds_per_point)
        return min(steps, default=1)

    def _tls(self, host: str) -> dict:
        """Return the options of TLS of graphite-web's site on a host; none without a name, which the rules of the role ask for."""
        found = self._value(host, "graphite_web_tls") or {}
        return found if self._value(host, "graphite_web_server_name") else {}

    def _tls_port(self, host: str) -> Any:
        return self._tls(host).get("port") or DEFAULT_PORT

    def _authority(self, host: str) -> str:
        tls = self._tls(host)
        return authority_of({**tls, "self_signed": is_self_signed(tls)}, SITE) if tls else ""

    def _local_url(self, host: str) -> str:
        """Return the URL of graphite-web on its own host, which over TLS has the name in the certificate."""
        if self._tls(host):
            return self._secure_url(host)
        return f"http://127.0.0.1:{self._value(host, 'graphite_web_port')}{self._url_prefix(host)}"

    def _public_url(self, host: str) -> str:
        if self._tls(host):
            return self._secure_url(host)
        address = _in_url(self._inventory.public_address(host))
        return f"http://{address}:{self._value(host, 'graphite_web_port')}{self._url_prefix(host)}"

    def _secure_url(self, host: str) -> str:
        port = self._tls_port(host)
        place = f"{self._value(host, 'graphite_web_server_name')}" + ("" if str(port) == str(DEFAULT_PORT) else f":{port}")
        return f"https://{place}{self._url_prefix(host)}"

    def _url_prefix(self, host: str) -> str:
        """Return what users and programs have in front of the paths of graphite-web. Hosts that ask a store have nothing there."""
        return url_prefix(self._value(host, "graphite_web_url_prefix"))

    def _public_name(self, host: str) -> str:
        """Return the name by which graphite-web is asked for. Django answers to no host name with an underscore."""
        names = (self._value(host, "graphite_web_server_name"), host, _in_url(self._inventory.public_address(host)), "127.0.0.1")
        return next(name for name in names if name and re.match(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])\Z", name))

    def own_site(self) -> list[dict]:
        """Return graphite-web's site of Apache as far as it is known from the inventory: none if what decides it is refused."""
        site = {"name": SITE, "wsgi_script": "/", "user": "_", "group": "_"}
        sites: list[dict] = []
        with suppress(RefusedValueError):
            sites.append({**site, **{key: self._value(self._host, f"graphite_web_{key}") for key in ("port", "server_name", "state")}})
            # The certificate itself is judged with the variables of graphite-web.
            sites[0]["tls"] = {"self_signed": True, "port": self._tls_port(self._host)} if self._tls(self._host) else {}
            if self._host not in self._inventory.hosts("graphite_web", self._host):
                sites[0]["state"] = "absent"
            if self._inventory.is_store(self._host) and self._keeps("graphite_web"):
                store = self._inventory.store(self._host)
                sites.append({**site, "name": STORE_SITE, "address": store["address"], "port": store["web_port"]})
                if self._has_tls:
                    sites[-1]["tls"] = {**self._store_web_tls(self._host), "only": True}
        return sites

    def _listens(self) -> list[dict]:
        """Return every socket that the host is to have, with the variable that decides its port."""
        return [socket for read in self._listeners() for socket in read()]

    def _port_problems(self) -> list[str]:
        known: list[dict] = []
        for read in self._listeners():
            with suppress(RefusedValueError):
                known += read()
        return _shared_ports(known)

    def _listeners(self) -> list[Callable[[], list[dict]]]:
        """Return one function for each source of sockets."""
        found: list[Callable[[], list[dict]]] = []
        for component in (*CHAIN, MEMCACHED):
            if component.name in self.components:
                found += [partial(self._component_listens, component, socket) for socket in component.sockets]
        if "statsd" in self.components:
            found += [self._servers_listen]
        if "carbon" in self.components:
            found += [self._store_listens, self._instances_listen, self._receivers_listen]
        if "graphite_web" in self.components:
            found += [partial(self._sites_listen, self.own_site), partial(self._sites_listen, lambda: self._own("apache_wsgi_sites") or [])]
        return found

    def _component_listens(self, component: Component, socket: Socket) -> list[dict]:
        if not self._keeps(component.roles[0]):
            return []
        if socket is component.sockets[0]:
            address = self._inventory.listens_on(self._host, component)[0]
        else:
            address = self._value(self._host, socket.address)
        port = self._value(self._host, socket.port)
        if component.name == "carbon_relay" and self._has_tls:
            ports = {"carbon_relay_port": port, "stack_tls_port": self._inventory.tls_port(self._host)}
            return self._relay_listens(component.name, ports, address)
        return [_listener(component.name, socket.port, socket.protocol, address, port)]

    def _relay_listens(self, component: str, ports: dict[str, Any], address: str) -> list[dict]:
        """Return the sockets of a relay with TLS, by the variables of its ports without and with TLS."""
        addresses = (self._local_relay_address(address), address)
        return [_listener(component, variable, "tcp", at, port) for (variable, port), at in zip(ports.items(), addresses)]

    def _store_listens(self) -> list[dict]:
        if not self._inventory.is_store(self._host):
            return []
        store = self._inventory.store(self._host)
        if self._has_tls:
            ports = {"carbon_store_port": store["port"], "stack_tls_store_port": store["tls_port"]}
            return self._relay_listens("store_relay", ports, store["address"])
        return [_listener("store_relay", "carbon_store_port", "tcp", store["address"], store["port"])]

    def _servers_listen(self) -> list[dict]:
        if not self._keeps("statsd"):
            return []
        return [
            _listener("statsd", listener["variable"], listener["protocol"], listener["address"], listener["port"])
            for listener in self._statsd_listeners(self._host)
            if listener["variable"] != "statsd_port"
        ]

    def _instances_listen(self) -> list[dict]:
        if not self._keeps("carbon_cache"):
            return []
        addresses = {
            "line_receiver_port": self._inventory.listens_on(self._host, COMPONENTS["carbon"])[0],
            "cache_query_port": self._value(self._host, "carbon_cache_bind_address"),
        }
        return [
            _listener("carbon", "carbon_cache_instances", "tcp", address, instance[key])
            for key, address in addresses.items()
            for instance in self._inventory.instances(self._host, processors=1)
        ]

    def _receivers_listen(self) -> list[dict]:
        if not self._keeps("carbon_cache"):
            return []
        address, settings = (self._value(self._host, f"carbon_cache_{name}") for name in ("bind_address", "settings"))
        receivers = [("tcp", settings[name]) for name in ("PICKLE_RECEIVER_PORT", "PROTOBUF_RECEIVER_PORT") if _number(settings.get(name))]
        if boolean(settings.get("ENABLE_UDP_LISTENER", False), strict=False):
            receivers.append(("udp", settings.get("UDP_RECEIVER_PORT", 2003)))
        return [_listener("carbon", "carbon_cache_settings", protocol, address, port) for protocol, port in receivers]

    def _sites_listen(self, sites: Callable[[], list[dict]]) -> list[dict]:
        if not self._keeps("apache_wsgi"):
            return []
        plain = {SITE: "graphite_web_port", STORE_SITE: "carbon_store_web_port"}
        found = []
        for site in sites():
            if not site.get("wsgi_script") or site.get("state") == "absent":
                continue
            ports = [] if wants_tls(site) and is_alone(site["tls"]) else [(plain, site.get("port", 80))]
            if wants_tls(site):
                secure = {SITE: "graphite_web_tls", STORE_SITE: "stack_tls_store_web_port"}
                ports.append((secure, site["tls"].get("port") or DEFAULT_PORT))
            found += [
                _listener("graphite_web", variables.get(site["name"], "apache_wsgi_sites"), "tcp", site.get("address") or "*", port)
                for variables, port in ports
            ]
        return found

    def target_problems(self, component: Component) -> list[str]:
        """Return a message if what ``component`` on this host sends would not arrive, or not in time."""
        if component is CHAIN[-1] or component.name not in self.components or not self._keeps(component.roles[0]):
            return []
        # A relay with clusters of its own sends where these say, and what is wrong with a store is told there.
        if component.name == "carbon_relay" and (
            self._own("carbon_relay_clusters") is not None or self._inventory.is_clustered(self._host)
        ):
            return []
        found = self._arrival_problems(component, self._own(component.target[0]) if component.target else None)
        return found + (self._interval_problems() if component.name == "go_runtime_metrics" else [])

    def _arrival_problems(self, component: Component, own_address: Any) -> list[str]:
        target = self.target(component)
        name, host = target["component"], target["host"]
        receiver = COMPONENTS[name]
        if not self._inventory.keeps(host, receiver.roles[0]):
            state = f"{receiver.roles[0]}_state"
            return [
                f"{component.name} on {self._host} sends to {name} on {host}, where {state} is absent. Take {host} out of the group {name},"
                f" or set {state} of {host} to present."
            ]
        if host == self._host:
            return []
        allowed = (self._inventory.own(host, f"{receiver.roles[0]}_allowed_senders") if name in ("statsd", "carbon_relay") else None) or []
        address = self._inventory.public_address(self._host)
        if allowed and not any(network_problems("", allowed)) and is_outside(address, allowed):
            return [
                f"{component.name} on {self._host} sends to {name} on {host}, but {receiver.roles[0]}_allowed_senders of {host} has no"
                f" network with {address}. Add one."
            ]
        if not is_loopback(target["address"]) or own_address is not None:
            return []
        bind = self._inventory.listens_on(host, receiver)[1]
        return [
            f"{component.name} on {self._host} would send to itself, but {name} is on {host} and listens on loopback only. Set {bind} of"
            f" {host} to an address that {self._host} reaches, and close the port to everybody else."
        ]

    def _flush_problems(self) -> list[str]:
        """A longer retention keeps only the last of several flushes, a shorter one leaves holes that roll-ups take for missing data."""
        carbon = self._inventory.nearest("carbon", self._host)
        if not self._keeps("statsd") or not self._inventory.keeps(carbon, "carbon_cache"):
            return []
        interval = self._flush_milliseconds(self._host)
        schemas = self._value(carbon, "carbon_cache_storage_schemas")
        problems: dict[str, str] = {}
        for series in self._flushed_series():
            try:
                rule = first_match(schemas, series)
                finest = parse_retentions(rule["retentions"])[0].seconds_per_point if rule else None
            except (RetentionError, re.error, KeyError, TypeError):
                continue  # the validation of the role names the rule
            if rule is None or finest is None:
                problems.setdefault("", f"No rule of carbon_cache_storage_schemas matches {series}, which StatsD writes. Add a rule.")
            elif interval != finest * 1000:
                problems.setdefault(
                    rule["name"],
                    f"statsd_flush_interval is {interval} ms, but the first rule of carbon_cache_storage_schemas that matches {series},"
                    f" '{rule['name']}', keeps one point every {finest} s, which loses or spreads points. Set statsd_flush_interval to"
                    f" {finest * 1000}, or let the retention of that rule begin with {interval // 1000}s.",
                )
        return list(problems.values())

    def _flushed_series(self) -> list[str]:
        """Return one series of each kind that StatsD on this host writes, and of each kind that Go servers report to it."""
        config = self._value(self._host, "statsd_config")
        flushed = list(statsd_series(config, "requests").values())
        for host in self._inventory.hosts("go_runtime_metrics", self._host):
            # What is wrong with the variables of the servers is told by go_runtime_metrics.yml.
            with suppress(RefusedValueError, AttributeError, KeyError, TypeError, ValueError):
                for prefix in HostView(self._inventory, host)._go_prefixes(self._host):
                    series = statsd_series(config, f"{prefix}.mem.gc.pause")
                    flushed += [series[kind] for kind in ("gauge", "timer", "timer_count", "counter", "counter_rate") if kind in series]
        return flushed

    def _go_prefixes(self, statsd: str) -> list[str]:
        """Return the prefixes of the Go servers on this host that report to the StatsD on the host ``statsd``."""
        if not self._keeps("go_runtime_metrics") or self._statsd_of_go() != statsd:
            return []
        # The default is a template.
        prefix = self._own("go_runtime_metrics_prefix") or "go." + re.sub(r"[^A-Za-z0-9_-]", "_", self._host)
        instances = go_runtime_metrics_instances(self._value(self._host, "go_runtime_metrics_instances"), prefix)
        return [instance["prefix"] for instance in instances]

    def _interval_problems(self) -> list[str]:
        interval, flush = str(self._own("go_runtime_metrics_interval")), self._flush_seconds_of_go()
        if not re.match(r"\d+(\.\d+)?\Z", interval) or not 0 < flush < float(interval):
            return []
        return [
            f"go_runtime_metrics_interval is {interval} s, but StatsD flushes every {flush:g} s, and a flush without a report leaves a gap"
            f" in every series. Leave go_runtime_metrics_interval out, which makes it {flush / 2:g} s, or give at most {flush:g}."
        ]

    def _overwriting_problems(self) -> list[str]:
        """Carbon keeps one value for each point in time: of two StatsD that write the same series, the later wins."""
        if not self._keeps("statsd"):
            return []
        series = set(statsd_series(self._value(self._host, "statsd_config"), "requests").values())
        for other in self._inventory.hosts("statsd", self._host):
            shared: set[str] = set()
            # The other host's own validation tells what is refused there.
            with suppress(RefusedValueError):
                if other != self._host and self._inventory.keeps(other, "statsd") and self._shares_carbon(other):
                    shared = series & set(statsd_series(self._value(other, "statsd_config"), "requests").values())
            if shared:
                return [
                    f"StatsD on {self._host} and StatsD on {other} would write the same series, such as {min(shared)}, to carbon on"
                    f" {' at '.join(filter(None, self._carbon_of_statsd()))} and overwrite each other's values. Give each host's series"
                    " names of their own, for example in group_vars/statsd.yml: statsd_config: {graphite: {globalSuffix:"
                    " \"{{ inventory_hostname | replace('.', '_') }}\"}}"
                ]
        return []

    def _tags_problems(self) -> list[str]:
        if not self._keeps("statsd") or not self._takes_tags() or self._tags_enabled() or not self._tag_switches():
            return []
        return [
            f"statsd_tags_enabled of {self._host} is true, but graphite_web_tags_enabled is not: graphite-web would not find a series by"
            " its tags. Set graphite_web_tags_enabled alone, to true; the playbooks pass it to StatsD and carbon."
        ]

    def _shares_carbon(self, other: str) -> bool:
        (own, own_address), (others, others_address) = self._carbon_of_statsd(), HostView(self._inventory, other)._carbon_of_statsd()
        if own is None or others is None:
            return own_address == others_address
        return own == others or others in self._inventory.stores(own)

    def _cluster_problems(self) -> list[str]:
        """Return what keeps the hosts of carbon from sharing their series."""
        hosts = self._inventory.hosts("carbon", self._host)
        own = self._own("carbon_replicas")
        if own is None:
            return [_several_stores(hosts)] if len(hosts) > 1 else []
        problem = None if str(own) == "0" else count_problem("carbon_replicas", own)
        if problem:
            return [f"{problem} 0 makes hosts of carbon that know nothing of each other."]
        everywhere = {self._host: str(own)}
        everywhere |= {
            host: str(self._inventory.own(host, "carbon_replicas"))
            for component in COMPONENTS
            for host in self._inventory.hosts(component, self._host)
        }
        first_hosts: dict[str, str] = {}
        for host, value in everywhere.items():
            first_hosts.setdefault(value, host)
        if len(first_hosts) > 1:
            listed = " and ".join(f"{value} on {host}" for value, host in first_hosts.items())
            return [f"carbon_replicas is {listed}. Set carbon_replicas once, in group_vars of the group all."]
        stores = [self._inventory.store(host) for host in self._inventory.stores(self._host)]
        ring = [store for store in stores if not store["leaving"]]
        if int(own) > max(1, len(ring)):
            return [f"carbon_replicas is {own}, but the ring has {len(ring)} stores: {', '.join(store['name'] for store in ring)}."]
        return self._store_problems(stores, ring) if self._inventory.is_store(self._host) else []

    def _partner_address(self, host: str) -> str:
        store = self._inventory.store(host)
        return store["address"] if self._inventory.is_store(host) else self._inventory.public_address(host)

    def _store_problems(self, stores: list[dict], ring: list[dict]) -> list[str]:
        """Return what is wrong with this store, one of ``stores``, of which those in ``ring`` get points."""
        own = next(store for store in stores if store["host"] == self._host)
        problems = [
            problem
            for name in ("carbon_store_port", "carbon_store_web_port")
            if self._own(name) is not None and (problem := port_problem(name, self._own(name)))
        ]
        networks = own["allowed_networks"]
        problems += network_problems(f"carbon_store_allowed_networks of {self._host}", networks)
        partners = dict.fromkeys(
            other for name in ("carbon_relay", "carbon", "graphite_web") for other in self._inventory.hosts(name, self._host)
        )
        if networks and not problems:
            problems += [
                f"carbon_store_allowed_networks of {self._host} has no network with {address}, the address of {other}. Add one."
                for other in partners
                if other != self._host and is_outside(address := self._partner_address(other), networks)
            ]
        # A service listens on an address and not on a name.
        if address_problem("", own["address"]) or connect_address(own["address"]) != own["address"] or is_loopback(own["address"]):
            problems.append(
                f"carbon_store_address of {self._host} is '{own['address']}'; give the IP address at which the relays, the other stores"
                " and the hosts of graphite_web reach this host, such as 192.0.2.10, and close its ports to everybody else."
            )
        if not re.match(r"[A-Za-z0-9_-]+\Z", own["name"]):
            problems.append(f"carbon_store_name of {self._host} is '{own['name']}'; use letters, digits, '_' and '-' only.")
        for other in stores[: stores.index(own)]:
            for key in ("name", "address"):
                if other[key] == own[key]:
                    problems.append(
                        f"carbon_store_{key} of {self._host} and of {other['host']} is '{own[key]}'. Give each store one of its own."
                    )
        if len(ring) > MOST_MEMBERS:
            problems.append(f"The ring has {len(ring)} stores; the relay takes at most {MOST_MEMBERS}.")
        first = stores[0]["host"]
        for name in ("carbon_cache_storage_schemas", "carbon_cache_storage_aggregations"):
            if self._value(self._host, name) != self._value(first, name):
                problems.append(
                    f"{name} of {self._host} differs from that of {first}, so that the copies of a series would differ. Set {name} once, in"
                    " group_vars of the group carbon."
                )
        return problems

    def _front_problems(self) -> list[str]:
        """Return what keeps several fronts from being one for their users."""
        fronts = [host for host in self._inventory.hosts("graphite_web", self._host) if self._inventory.keeps(host, "graphite_web")]
        if not self._inventory.is_clustered(self._host) or len(fronts) < 2 or fronts[0] == self._host or self._host not in fronts:
            return []
        problems = []
        database, first = (self._value(host, "graphite_web_database") or {} for host in (self._host, fronts[0]))
        if "sqlite" in str(database.get("engine", "sqlite")):
            problems.append(
                f"graphite-web runs on {' and '.join(fronts)}, and each would have a SQLite database of its own: dashboards, events and"
                " users of one would be missing on the other. Set graphite_web_database to one PostgreSQL database, in group_vars of the"
                " group graphite_web."
            )
        elif database != first:
            problems.append(f"graphite_web_database of {self._host} differs from that of {fronts[0]}. Set graphite_web_database once.")
        keys = [self._own("graphite_web_secret_key"), self._inventory.own(fronts[0], "graphite_web_secret_key")]
        if None in keys or keys[0] != keys[1]:
            problems.append(
                f"graphite_web_secret_key of {self._host} and {fronts[0]} is not the same, and a login on one would not be known to the"
                " other. Set graphite_web_secret_key once, in group_vars of the group graphite_web, encrypted with Ansible Vault."
            )
        return problems

    def _switch_problems(self) -> list[str]:
        """Carbon tells one graphite-web of tags, and StatsD takes them or not."""
        values = self._tag_switches()
        if len(set(values.values())) < 2:
            return []
        listed = " and ".join(f"{str(value).lower()} on {host}" for host, value in values.items())
        return [f"graphite_web_tags_enabled is {listed}. Set it once, in group_vars of the group graphite_web."]

    def _data_problems(self) -> list[str]:
        carbon = self._inventory.nearest("carbon", self._host)
        if not self._keeps("graphite_web") or not self._inventory.keeps(carbon, "carbon_cache"):
            return []
        elsewhere = "CLUSTER_SERVERS" in (self._own("graphite_web_settings") or {}) or self._inventory.is_clustered(self._host)
        if carbon == self._host or elsewhere or self._own("graphite_web_whisper_directory") is not None:
            return []
        return [
            f"graphite-web on {self._host} reads whisper files from its own disk, but carbon is on {carbon}. Put {self._host} into the"
            " group carbon as well, or say where the data comes from: graphite_web_whisper_directory, or CLUSTER_SERVERS in"
            " graphite_web_settings."
        ]

    def _tls_problems(self) -> list[str]:
        """Return what keeps carbon on other hosts from telling this graphite-web of tags over TLS."""
        tls = self._tls(self._host)
        if not self._keeps("graphite_web") or not is_self_signed(tls) or tls.get("authority"):
            return []
        without = [
            carbon
            for carbon in self._inventory.hosts("carbon", self._host)
            if carbon != self._host
            and self._inventory.keeps(carbon, "carbon_cache")
            and self._inventory.nearest("graphite_web", carbon) == self._host
            and self._inventory.own(carbon, "carbon_cache_tags_authority") is None
            and self._tags_url(carbon) == self._public_url(self._host)
        ]
        if not without:
            return []
        return [
            f"graphite_web_tls of {self._host} is self_signed, and carbon on {', '.join(without)} tells graphite-web of tags without that"
            " certificate. Give one of an authority, or copy it there and set carbon_cache_tags_authority to its path."
        ]

    def _adoption_problems(self) -> list[str]:
        """Return a message if what is to be adopted is no directory."""
        value = self._own("stack_adopt")
        problem = None if value in (None, "") else earlier_installation_problem(f"stack_adopt of {self._host}", value)
        return [f"{problem}, or an empty text to leave one alone."] if problem else []

    def _wire_problems(self) -> list[str]:
        """Return what keeps points on their way between hosts from TLS."""
        names = ("statsd", "carbon_relay", "carbon", "graphite_web")
        hosts = dict.fromkeys(host for name in names for host in self._inventory.hosts(name, self._host))
        values = {self._inventory.has_tls(host): host for host in hosts}
        if len(values) > 1:
            listed = " and ".join(f"{str(value).lower()} on {host}" for value, host in values.items())
            return [f"stack_tls is {listed}. Set stack_tls once, in group_vars of the group all."]
        own = self._own_certificate
        given = [f"stack_tls_{name}" for name, value in own.items() if value is not None]
        if not self._has_tls:
            return [f"{name} of {self._host} has no effect without stack_tls: true. Set that, or leave {name} out." for name in given]
        problems = [
            problem
            for name in ("stack_tls_port", "stack_tls_store_port", "stack_tls_store_web_port")
            if self._own(name) is not None and (problem := port_problem(name, self._own(name)))
        ]
        store = self._inventory.store(self._host)
        pairs = {
            "stack_tls_port": ("carbon_relay_port", self._inventory.tls_port(self._host), self._value(self._host, "carbon_relay_port")),
            "stack_tls_store_port": ("carbon_store_port", store["tls_port"], store["port"]),
            # Both are open while the switch changes.
            "stack_tls_store_web_port": ("carbon_store_web_port", store["web_tls_port"], store["web_port"]),
        }
        problems += [
            f"{name} of {self._host} is {port}, which is {plain} as well; give each a port of its own."
            for name, (plain, port, other) in pairs.items()
            if str(port) == str(other)
        ]
        missing = [f"stack_tls_{name}" for name, value in own.items() if value is None]
        if given and missing:
            problems.append(
                f"{' and '.join(given)} of {self._host} needs {' and '.join(missing)} as well; give the paths of all three on the"
                " host, or none, and each host makes a certificate by itself."
            )
        problems += [
            f"stack_tls_{name} of {self._host} is '{value}'; give an absolute path on the host without white space and quotes."
            for name, value in own.items()
            if value is not None and not re.match(r"/[^\s\"'\\]+\Z", str(value))
        ]
        return problems + self._plain_wires()

    def _plain_wires(self) -> list[str]:
        """Return one message for each way of points from this host to another one that has no TLS."""
        problems = []
        if "graphite_web" in self.components and self._keeps("graphite_web"):
            settings = self._own("graphite_web_settings") or {}
            servers = [] if settings.get("INTRACLUSTER_HTTPS") else settings.get("CLUSTER_SERVERS") or []
            problems += [
                f"stack_tls is true, but graphite-web on {self._host} asks {server} without TLS. In CLUSTER_SERVERS of"
                " graphite_web_settings, write https:// and the port at which that host answers over TLS."
                for server in servers
                if not str(server).startswith("https://")
            ]
        if "statsd" in self.components and self._keeps("statsd"):
            receiver, host = self._receiver(COMPONENTS["statsd"])
            target = self.target(COMPONENTS["statsd"])
            if host != self._host and (self._value(self._host, "statsd_config") or {}).get("graphiteProtocol") == "pickle":
                problems.append(
                    f"stack_tls is true, but StatsD on {self._host} sends pickles to another host, which it cannot do over TLS. Take"
                    " graphiteProtocol out of statsd_config."
                )
            elif not (host == self._host or is_loopback(str(target["address"])) or "server_name" in target):
                what = f"{receiver.name} on {host}" if host else f"{target['address']}, which is none of the inventory's hosts"
                problems.append(
                    f"stack_tls is true, but StatsD on {self._host} sends to {what}, of which the inventory does not say that it has TLS."
                    " Send to a relay of the inventory: leave statsd_graphite_host and statsd_graphite_port out, and keep the relay."
                )
        if self._inventory.has_relay(self._host) and not self._inventory.is_clustered(self._host):
            carbon = self._inventory.nearest("carbon", self._host)
            if carbon != self._host and self._own("carbon_relay_clusters") is None:
                problems.append(
                    f"stack_tls is true, but the relay on {self._host} sends to the caches on {carbon}, and carbon has no TLS. Take"
                    f" {self._host} out of the group carbon_relay and put {carbon} into it, so that a relay with TLS is in front of carbon."
                )
        return problems

    def _memcached_problems(self) -> list[str]:
        if not self._keeps("graphite_web") or self._own("graphite_web_memcached_hosts") is not None:
            return []
        return [
            f"graphite-web on {self._host} would look for the memcached of {host} on its own host, because it listens on loopback only."
            f" Set memcached_address of {host} to an internal address that {self._host} reaches, and close the port to everybody else."
            for host, address, _port in self._memcached_of(self._host)
            if host != self._host and is_loopback(address)
        ]


def _all_to(cluster: str) -> list[dict]:
    return [{"match": ["*"], "send_to": [cluster], "stop": True}]


def _several_stores(hosts: list[str]) -> str:
    return (
        f"The group carbon has {len(hosts)} hosts: {', '.join(hosts)}. Set carbon_replicas in group_vars of the group all: 2 keeps each"
        " series on two of them, 1 on one, and with 0 they know nothing of each other."
    )


def _listener(component: str, variable: str, protocol: str, address: Any, port: Any) -> dict:
    return {"component": component, "variable": variable, "protocol": protocol, "address": address, "port": port}


def _shared_ports(sockets: list[dict]) -> list[str]:
    users: dict[tuple[str, str], dict[str, str]] = {}
    for socket in sockets:
        users.setdefault((socket["protocol"], str(socket["port"])), {}).setdefault(socket["component"], socket["variable"])
    return [
        f"{' and '.join(variables.values())} use {protocol.upper()} port {port} on the same host; change one of them."
        for (protocol, port), variables in users.items()
        if len(variables) > 1
    ]


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _number(value: object) -> int:
    return int(str(value)) if re.match(r"\d+\Z", str(value)) else 0
