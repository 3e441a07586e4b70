"""`berth network ls`, `create`, `rm` and `inspect`."""

from __future__ import annotations

from berth.cli import inspect, tables
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
    ("filter", "f", "list", 'Provide filter values (e.g. "driver=bridge")'),
    ("format", "", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"),
    ("no-trunc", "", "bool", "Do not truncate the output"),
    ("quiet", "q", "bool", "Only display network IDs"),
)
CREATE_FLAGS: tuple[Flag, ...] = (
    ("attachable", "", "bool", "Enable manual container attachment"),
    ("driver", "d", "string", 'Driver to manage the Network (default "bridge")'),
    ("gateway", "", "list", "IPv4 or IPv6 Gateway for the master subnet"),
    ("internal", "", "bool", "Restrict external access to the network"),
    ("ip-range", "", "list", "Allocate container ip from a sub-range"),
    ("ipv6", "", "bool", "Enable IPv6 address assignment"),
    ("label", "", "list", "Set metadata on a network"),
    ("opt", "o", "map", "Set driver specific options"),
    ("subnet", "", "list", "Subnet in CIDR format that represents a network segment"),
)
REMOVE_FLAGS: tuple[Flag, ...] = (
    ("force", "f", "bool", "Do not error if the network does not exist"),
)
COLUMNS = (("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE"))
SWITCHES = (("attachable", "Attachable"), ("internal", "Internal"), ("ipv6", "EnableIPv6"))


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
            "Driver": documents.text(item, "Driver"),
            "ID": documents.text(item, "Id")[:length],
            "Name": documents.text(item, "Name"),
            "Scope": documents.text(item, "Scope"),
        }
        for item in found
    ]
    if text := tables.show(rows, COLUMNS, form=options.text("format")):
        print(text)
    return 0


def create(call: Call) -> int:
    """Make a network and print its id."""
    options = call.options
    body: Document = {
        "Name": call.arguments[0],
        "CheckDuplicate": True,
        "Driver": options.text("driver", "bridge"),
        "Options": options.pairs("opt"),
        "Labels": options.pairs("label"),
        "IPAM": {"Driver": "default", "Config": _pools(options)},
    }
    for flag, name in SWITCHES:
        body[name] = options.on(flag)
    answer = call.engine.request("POST", "/networks/create", body=body).document()
    print(documents.text(answer, "Id"))
    return 0


def _pools(options: Options) -> list[dict[str, str]]:
    """Return a pool for every subnet; ranges and gateways belong to the subnet of the same place."""
    pools = [{"Subnet": subnet} for subnet in options.all("subnet")]
    for flag, name in (("ip-range", "IPRange"), ("gateway", "Gateway")):
        values = options.all(flag)
        if len(values) > len(pools):
            raise InvalidArgument(f"every --{flag} needs a --subnet it is in")
        for pool, value in zip(pools, values, strict=False):
            pool[name] = value
    return pools


def remove(call: Call) -> int:
    """Remove networks."""

    def act(name: str) -> str:
        call.engine.request("DELETE", f"/networks/{quote(name)}").read()
        return name

    return call.each(act, force=call.options.on("force"))


VERBS: dict[str, Verb] = {
    "network ls": (LIST_FLAGS, networks),
    "network create": (CREATE_FLAGS, create),
    "network rm": (REMOVE_FLAGS, remove),
    "network inspect": ((inspect.FORMAT,), inspect.of("network")),
}
