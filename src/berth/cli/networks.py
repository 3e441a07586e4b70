"""`berth network ls`, `create`, `connect`, `disconnect`, `shape`, `rm` and `inspect`."""

from __future__ import annotations

import ipaddress

from berth.cli import inspect, tables, units
from berth.cli.listing import SHORT_ID, documents_of, filters
from berth.client import documents
from berth.client.connection import quote
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag, Options
    from berth.client.documents import Document

LIST_FLAGS: tuple[Flag, ...] = (
    ("filter", "f", "filter", 'Provide filter values (e.g. "driver=bridge")'),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("no-trunc", "", "bool", "Do not truncate the output"),
    ("quiet", "q", "bool", "Only display network IDs"),
)
CREATE_FLAGS: tuple[Flag, ...] = (
    ("attachable", "", "bool", "Enable manual container attachment"),
    ("aux-address", "", "map", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    ("config-from", "", "string", "The network from which to copy the configuration"),
    ("config-only", "", "bool", "Create a configuration only network"),
    ("driver", "d", "string", 'Driver to manage the Network (default "bridge")'),
    ("gateway", "", "strings", "IPv4 or IPv6 Gateway for the master subnet"),
    ("ingress", "", "bool", "Create swarm routing-mesh network"),
    ("internal", "", "bool", "Restrict external access to the network"),
    ("ip-range", "", "strings", "Allocate container ip from a sub-range"),
    ("ipam-driver", "", "string", 'IP Address Management Driver (default "default")'),
    ("ipam-opt", "", "map", "Set IPAM driver specific options"),
    ("ipv4", "", "true", "Enable IPv4 address assignment"),
    ("ipv6", "", "bool", "Enable IPv6 address assignment"),
    ("label", "", "list", "Set metadata on a network"),
    ("opt", "o", "map", "Set driver specific options"),
    ("scope", "", "string", "Control the network's scope"),
    ("subnet", "", "strings", "Subnet in CIDR format that represents a network segment"),
)
VERBOSE: Flag = ("verbose", "v", "bool", "Verbose output for diagnostics")
REMOVE_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", "Do not error if the network does not exist"),
)
CONNECT_FLAGS: tuple[Flag, ...] = (
    ("alias", "", "strings", "Add network-scoped alias for the container"),
    ("driver-opt", "", "strings", "Driver options for the network"),
    ("gw-priority", "", "int", "Highest gw-priority provides the default gateway"),
    ("ip", "", "string", 'IPv4 address (e.g., "172.30.100.104")'),
    ("ip6", "", "string", 'IPv6 address (e.g., "2001:db8::33")'),
    ("link", "", "list", "Add link to another container"),
    ("link-local-ip", "", "strings", "Add a link-local address for the container"),
)
SHAPE_FLAGS: tuple[Flag, ...] = (
    ("rate", "", "string", 'Bytes or bits a second, each way (e.g., "10mbit", "1mbps")'),
    ("delay", "", "string", 'Delay of what the container sends (e.g., "50ms")'),
    ("jitter", "", "string", "By how much the delay varies"),
    ("loss", "", "string", 'Share of what the container sends that is lost (e.g., "1%")'),
)
DISCONNECT_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", "Force the container to disconnect from a network"),
)
COLUMNS = (("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE"))
SWITCHES = (
    ("attachable", "Attachable"),
    ("config-only", "ConfigOnly"),
    ("ingress", "Ingress"),
    ("internal", "Internal"),
    ("ipv6", "EnableIPv6"),
)


def networks(call: Call) -> int:
    """List networks."""
    options = call.options
    found = documents_of(call, "/networks", {"filters": filters(options.all("filter"))})
    found.sort(key=lambda item: documents.text(item, "Name"))
    length = None if options.on("no-trunc") else SHORT_ID
    if options.on("quiet"):
        for item in found:
            print(documents.text(item, "Id")[:length])
        return 0
    rows: list[Document] = [
        {
            "CreatedAt": units.go_time(documents.text(item, "Created")),
            "Driver": documents.text(item, "Driver"),
            "ID": documents.text(item, "Id")[:length],
            "IPv4": shown(documents.field(item, "EnableIPv4")),
            "IPv6": shown(documents.field(item, "EnableIPv6")),
            "Internal": shown(documents.field(item, "Internal")),
            "Labels": tables.pairs(documents.field(item, "Labels")),
            "Name": documents.text(item, "Name"),
            "Scope": documents.text(item, "Scope"),
        }
        for item in found
    ]
    if text := tables.show(rows, COLUMNS, form=options.text("format")):
        print(text)
    return 0


def shown(value: object) -> str:
    """Return a truth as templates print it."""
    return "true" if value is True else "false"


def create(call: Call) -> int:
    """Make a network and print its id."""
    options = call.options
    body: Document = {
        "Name": call.arguments[0],
        "CheckDuplicate": True,
        "Driver": options.text("driver", "bridge"),
        "Options": options.pairs("opt"),
        "Labels": options.pairs("label"),
        "EnableIPv4": options.on("ipv4", default=True),
        "IPAM": {
            "Driver": options.text("ipam-driver", "default"),
            "Config": _pools(options),
            "Options": options.pairs("ipam-opt"),
        },
    }
    if options.text("scope"):
        body["Scope"] = options.text("scope")
    if options.text("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
    for flag, name in SWITCHES:
        body[name] = options.on(flag)
    answer = call.engine.request("POST", "/networks/create", body=body).document()
    print(documents.text(answer, "Id"))
    return 0


def _pools(options: Options) -> list[Document]:
    """Return a pool for every subnet; ranges, gateways and addresses belong to the subnet they are in."""
    pools: list[Document] = [{"Subnet": subnet} for subnet in options.all("subnet")]
    for flag, name in (("ip-range", "IPRange"), ("gateway", "Gateway")):
        for value in options.all(flag):
            pool = _pool_of(pools, value, flag)
            if name in pool:
                raise InvalidArgument(f"multiple --{flag} of one --subnet: {value}")
            pool[name] = value
    for name, value in options.pairs("aux-address").items():
        pool = _pool_of(pools, value, "aux-address")
        auxiliary = documents.mapping(pool.setdefault("AuxiliaryAddresses", {}))
        auxiliary[name] = value
    return pools


def _pool_of(pools: list[Document], value: str, flag: str) -> Document:
    """Return the pool that an address or range is in; with one pool of its version, that one."""
    try:
        address = ipaddress.ip_interface(value)
    except ValueError as error:
        raise InvalidArgument(f"invalid {flag} {value}: {error}") from None
    of_version = []
    for pool in pools:
        subnet = ipaddress.ip_network(documents.text(pool, "Subnet"), strict=False)
        if subnet.version == address.version:
            of_version.append(pool)
            if address.ip in subnet:
                return pool
    if len(of_version) == 1:
        return of_version[0]
    raise InvalidArgument(f"no matching subnet for {flag} {value}")


def connect(call: Call) -> int:
    """Let a container take part in a network."""
    options, (network, container) = call.options, call.arguments
    addresses: Document = {
        name: options.text(flag)
        for flag, name in (("ip", "IPv4Address"), ("ip6", "IPv6Address"))
        if options.given(flag)
    }
    if options.given("link-local-ip"):
        addresses["LinkLocalIPs"] = options.all("link-local-ip")
    settings: Document = {
        "IPAMConfig": addresses,
        "Links": options.all("link"),
        "Aliases": options.all("alias"),
        "DriverOpts": options.pairs("driver-opt"),
        "GwPriority": int(options.text("gw-priority", "0")),
    }
    body = {"Container": container, "EndpointConfig": settings}
    call.engine.request("POST", f"/networks/{quote(network)}/connect", body=body).read()
    return 0


def shape(call: Call) -> int:
    """Change how fast, late and surely a container's packets arrive; without flags, as the network has it."""
    options, (network, container) = call.options, call.arguments
    shaped = {
        f"berth.{name}": options.text(name) for name, *_ in SHAPE_FLAGS if options.given(name)
    }
    body = {"Container": container, "DriverOpts": shaped}
    call.engine.request("POST", f"/networks/{quote(network)}/shape", body=body).read()
    return 0


def disconnect(call: Call) -> int:
    """Take a container out of a network."""
    network, container = call.arguments
    body = {"Container": container, "Force": call.options.on("force")}
    call.engine.request("POST", f"/networks/{quote(network)}/disconnect", body=body).read()
    return 0


def remove(call: Call) -> int:
    """Remove networks."""

    def act(name: str) -> str:
        call.engine.request("DELETE", f"/networks/{quote(name)}").read()
        return name

    return call.each(act, force=call.options.on("force"))


VERBS: dict[str, Verb] = {
    "network ls": (LIST_FLAGS, networks),
    "network connect": (CONNECT_FLAGS, connect),
    "network shape": (SHAPE_FLAGS, shape),
    "network disconnect": (DISCONNECT_FLAGS, disconnect),
    "network create": (CREATE_FLAGS, create),
    "network rm": (REMOVE_FLAGS, remove),
    "network inspect": ((inspect.FORMAT, VERBOSE), inspect.of("network")),
}
