"""What a client wants a new network to be: its address ranges checked, in Docker's words."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from berth.engine.networkmodels import IpamPool
from berth.errors import Forbidden, InvalidArgument, Unavailable
from berth.network.configurations import IPAM
from berth.network.ipam import overlap
from berth.network.records import NetworkRequest, SubnetRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from berth.engine.networkmodels import NetworkCreate
    from berth.network.ipam import Network

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this'
    " node to swarm and try again."
)
NO_BLOCK, NO_ADDRESS = "invalid CIDR block notation", "invalid address"
_WITH_SEVERAL = ("macvlan", "ipvlan")  # drivers whose networks may have several subnets


def network_request(request: NetworkCreate) -> NetworkRequest:
    """Return what is asked of the network service."""
    _check_scope(request)
    pools = (request.ipam.config if request.ipam else None) or []
    _check(pools, has_ipv6=request.enable_ipv6)
    found: dict[int, IpamPool] = {}
    more: list[IpamPool] = []
    for pool in pools:
        version = 6 if ":" in pool.subnet or ":" in pool.gateway else 4
        if version not in found:
            found[version] = pool
        elif request.driver in _WITH_SEVERAL:
            more.append(pool)
        else:
            raise Forbidden("bridge driver doesn't support multiple subnets")
    four, six = (found.get(version, IpamPool()) for version in (4, 6))
    auxiliary: dict[str, str] = {}
    for pool in pools:
        auxiliary |= pool.auxiliary_addresses or {}
    return NetworkRequest(
        name=request.name,
        driver=request.driver or "bridge",
        ipv4=request.enable_ipv4,
        subnet=_masked(four.subnet, "subnet"),
        gateway=_text(four.gateway),
        ip_range=_masked(four.ip_range, "ip-range"),
        ipv6=request.enable_ipv6,
        subnet6=_masked(six.subnet, "subnet"),
        gateway6=_text(six.gateway),
        ip_range6=_masked(six.ip_range, "ip-range"),
        more=tuple(map(_subnet, more)),
        auxiliary=auxiliary,
        internal=request.internal,
        attachable=request.attachable,
        ipam_driver=(request.ipam.driver if request.ipam else "") or IPAM,
        ipam_options=request.ipam.options if request.ipam else None,
        config_from=request.config_from.network if request.config_from else "",
        options=request.options or {},
        labels=request.labels or {},
    )


def _check_scope(request: NetworkCreate) -> None:
    """Refuse what only a swarm has, as a Docker without one does, and what no configuration has."""
    of_operators = request.ingress or request.internal or request.attachable or request.scope
    if request.config_only and of_operators:
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like"
            " [ ingress | internal | attachable | scope ] are not supported."
        )
    if request.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if request.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if request.scope not in ("", "local") or request.driver == "overlay":
        raise Unavailable(NO_MANAGER)


def _subnet(pool: IpamPool) -> SubnetRecord:
    if not pool.subnet:
        raise _refusal("a subnet is needed for each of several ranges of addresses")
    return SubnetRecord(
        subnet=_masked(pool.subnet, "subnet"),
        gateway=_text(pool.gateway),
        ip_range=_masked(pool.ip_range, "ip-range"),
    )


def _masked(text: str, what: str) -> str:
    block = _block(text) if text else None
    if text and block is None:
        raise _refusal(f"invalid {what} {text}: {NO_BLOCK}")
    return str(block or "")


def _text(address: str) -> str:
    try:
        return str(ip_address(address)) if address else ""
    except ValueError:
        raise _refusal(f"invalid gateway {address}: {NO_ADDRESS}") from None


def _block(text: str) -> Network | None:
    """Return a network that is written with its prefix."""
    try:
        return ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _refusal(text: str) -> InvalidArgument:
    return InvalidArgument(f"invalid network config:\n{text}")


def _check(pools: list[IpamPool], *, has_ipv6: bool) -> None:
    """Refuse what cannot be, with all that is wrong."""
    wrong = [text for pool in pools if has_ipv6 or ":" not in pool.subnet for text in _faults(pool)]
    if wrong:
        raise _refusal(joined(wrong))


def joined(texts: Sequence[str]) -> str:
    """Return all that is wrong as Docker lists it."""
    if len(texts) == 1:
        return texts[0].strip()
    return "\n".join("* " + text.replace("\n", "\n\t") for text in texts)


def _faults(pool: IpamPool) -> Iterator[str]:
    if not pool.subnet:
        return
    subnet = _block(pool.subnet)
    if subnet is None:
        yield f"invalid subnet {pool.subnet}: {NO_BLOCK}"
        return
    if pool.subnet != str(subnet) and ip_address(pool.subnet.partition("/")[0]) != subnet[0]:
        yield f"invalid subnet {pool.subnet}: it should be {subnet}"
    if pool.ip_range:
        yield from _range_faults(pool.ip_range, subnet)
    if pool.gateway and (fault := _address_fault(pool.gateway, subnet)):
        yield f"invalid gateway {pool.gateway}: {fault}"
    for name, address in (pool.auxiliary_addresses or {}).items():
        if fault := _address_fault(address, subnet):
            yield f"invalid auxiliary address {name}: {fault}"


def _range_faults(text: str, subnet: Network) -> Iterator[str]:
    span = _block(text)
    if span is None:
        yield f"invalid ip-range {text}: {NO_BLOCK}"
        return
    if span.version != subnet.version:
        yield f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"
        return
    if span.prefixlen < subnet.prefixlen:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
    if ip_address(text.partition("/")[0]) != span[0]:
        yield f"invalid ip-range {text}: it should be {span}"
    if not overlap(span, subnet):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _address_fault(text: str, subnet: Network) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return NO_ADDRESS
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    if address not in subnet:
        return f"parent subnet {subnet} doesn't contain this address"
    return None
