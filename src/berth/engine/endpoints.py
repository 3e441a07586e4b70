"""Settings of endpoints that no container can have: refused, in Docker's words."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from berth.engine.networking import UNNAMED
from berth.engine.networkpools import joined
from berth.engine.spec import CONTAINER
from berth.errors import InvalidArgument, NotFound
from berth.network import options
from berth.network.networks import DEFAULT, HOST, NONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from berth.engine.networkmodels import EndpointIpam, EndpointRequest
    from berth.network.ipam import Address
    from berth.network.records import NetworkRecord
    from berth.network.service import NetworkService

PREDEFINED = (DEFAULT, HOST, NONE, *UNNAMED)
INVALID = "invalid IP"  # Go's text for what an empty one is


def check_all(asked: Mapping[str, EndpointRequest], service: NetworkService) -> None:
    """Refuse what a new container cannot be in its networks; those that are not there yet may be any."""
    wrong = []
    for name, settings in asked.items():
        try:
            network = service.inspect(name)
        except NotFound:
            network = None
        if text := _refusal(name, settings, network):
            wrong.append(f"invalid config for network {name}: {text}")
    if wrong:
        raise InvalidArgument(joined(wrong))


def check(name: str, asked: EndpointRequest, network: NetworkRecord) -> None:
    """Refuse what a container cannot be in a network, with all that is wrong; write addresses as usual."""
    if text := _refusal(name, asked, network):
        raise InvalidArgument(text)


def _refusal(name: str, asked: EndpointRequest, network: NetworkRecord | None) -> str:
    wrong = list(_faults(name, asked, network))
    return f"invalid endpoint settings:\n{joined(wrong)}" if wrong else ""


def _faults(name: str, asked: EndpointRequest, network: NetworkRecord | None) -> Iterator[str]:
    addresses = asked.ipam_config
    if name in PREDEFINED or name.startswith(CONTAINER):
        if addresses is not None and (addresses.ipv4_address or addresses.ipv6_address):
            yield "user-specified IP address is supported on user-defined networks only"
        if asked.aliases:
            yield "network-scoped aliases are only supported for user-defined networks"
    if addresses is not None:
        yield from _normalise(addresses)
        yield from _strangers(addresses, network)
    try:
        options.sysctls(asked.driver_opts or {}, "eth0")
    except InvalidArgument as error:
        yield str(error)


def _normalise(addresses: EndpointIpam) -> Iterator[str]:
    four, six = _parse(addresses.ipv4_address), _parse(addresses.ipv6_address)
    if four is not None and (four.version != 4 or four.is_unspecified):
        yield f"invalid IPv4 address: {addresses.ipv4_address}"
    if six is not None and (six.version != 6 or six.is_unspecified or "%" in str(six)):
        yield f"invalid IPv6 address: {addresses.ipv6_address}"
    local = [_parse(text) for text in addresses.link_local_ips]
    for address in local:
        if address is None or address.is_unspecified:
            yield f"invalid link-local IP address: {address or INVALID}"
    addresses.ipv4_address, addresses.ipv6_address = _text(four), _text(six)
    addresses.link_local_ips = [_text(address) for address in local]


def _parse(text: str) -> Address | None:
    """Return an address, of IPv4 if it is one that is written as one of IPv6."""
    try:
        address = ip_address(text) if text else None
    except ValueError:
        raise InvalidArgument(f'invalid JSON: ParseAddr("{text}"): unable to parse IP') from None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _text(address: Address | None) -> str:
    return str(address) if address is not None else ""


def _strangers(addresses: EndpointIpam, network: NetworkRecord | None) -> Iterator[str]:
    """Yield what is wrong with addresses that are in no subnet of the network."""
    for text in filter(None, (addresses.ipv4_address, addresses.ipv6_address)):
        address = ip_address(text)
        if network is not None and not any(
            address in ip_network(each.subnet) for each in network.subnets(address.version)
        ):
            yield f"no configured subnet contains IP address {text}"
