"""Addresses: which subnet a network gets, and which address a container gets. No I/O."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from berth.errors import BerthError, Failed, Forbidden, InvalidArgument
from berth.oci.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Interface, IPv6Address, IPv6Interface

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network
    Interface = IPv4Interface | IPv6Interface
    Space = tuple[Network, int]  # and the size of the subnets that are taken from it

USED = "Address already in use"
EXHAUSTED = "all predefined address pools have been fully subnetted"
_LONGEST = {4: 31, 6: 126}  # prefix that leaves room for a gateway and a container
_LOCAL_SIZE = 64


def default_spaces() -> list[Space]:
    """Return where networks get subnets when none is asked for, and of which size, in Docker's order."""
    whole = (IPv4Network((0xAC000000 | second << 16, 16)) for second in range(17, 32))
    return [*((network, 16) for network in whole), (IPv4Network("192.168.0.0/16"), 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an engine was told of its networks; nothing of it means Docker's defaults.

    ``pools`` are networks and the size of the subnets taken from them. Most are for the default network: a
    bridge that is there already, or the addresses of its own with their prefixes, ranges for containers,
    whether it has IPv6, other routers than the bridge, whether containers reach each other, and the
    address of the host for ports without one. ``options`` are what networks of a driver have unless told
    otherwise; ``forwards`` says whether the host is made a router.
    """

    pools: tuple[tuple[str, int], ...] = ()
    bridge: str = ""
    bip: str = ""
    range: str = ""
    ipv6: bool = False
    bip6: str = ""
    range6: str = ""
    router: str = ""
    router6: str = ""
    mtu: int = 1500
    icc: bool = True
    masquerade: bool = True
    binding: str = ""
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    forwards: bool = True

    def spaces(self, seed: str, *, version: int = 4, size: int = 0) -> list[Space]:
        """Return where networks get subnets when none is asked for, those of a ``size`` if one is.

        ``seed``: of those of IPv6, which are the engine's own where there is no pool of them.
        """
        spaces: list[Space] = [(ip_network(base), usual) for base, usual in self.pools]
        spaces = [space for space in spaces or default_spaces() if space[0].version == version]
        if version == 6 and not spaces:
            spaces = [(local_prefix(seed), _LOCAL_SIZE)]
        if not size:
            return spaces
        found = [(base, size) for base, _ in spaces if base.prefixlen <= size]
        if not found:
            raise InvalidArgument("invalid address pool")
        return found


def local_prefix(seed: str) -> IPv6Network:
    """Return the prefix of one engine's unique local IPv6 addresses (RFC 4193)."""
    return IPv6Network((b"\xfd" + sha256(seed.encode())[:5] + bytes(10), 48))


def choose_subnet(taken: Iterable[Network], spaces: Iterable[Space]) -> Network:
    """Return the first subnet of these spaces, of their sizes, that overlaps none of ``taken``."""
    occupied = list(taken)
    for base, size in spaces:
        others = [other for other in occupied if overlap(base, other)]
        number, step = int(base.network_address), 1 << (base.max_prefixlen - size)
        while number <= int(base.broadcast_address):
            subnet = ip_network((ip_address(number.to_bytes(base.max_prefixlen // 8)), size))
            ends = [int(o.broadcast_address) for o in others if overlap(subnet, o)]
            if not ends:
                return subnet
            number = (max(*ends, number) // step + 1) * step  # past all: there may be millions
    raise Failed(EXHAUSTED)


def first_address(subnet: Network) -> Address:
    """Return the first address that somebody may have: the very first is the network's or anycast."""
    return subnet[subnet.version == 6 or subnet.prefixlen < 31]


def overlap(one: Network, other: Network) -> bool:
    """Say whether two subnets have an address in common."""
    return one.version == other.version and one.overlaps(other)


def parse_subnet(text: str) -> Network:
    """Parse what a client gave as subnet."""
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from None


def parse_address(text: str, *, version: int = 4) -> Address:
    """Parse what a client gave as address."""
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IPv{version} address: {text}") from None
    if address.version != version:
        raise InvalidArgument(f"invalid IPv{version} address: {text}")
    return address


def parse_link_local(text: str) -> Address:
    """Parse what a client gave as an address of the link."""
    try:
        address = ip_address(ip_address(text).packed)  # without a zone
    except ValueError:
        address = None
    if address is None or not address.is_link_local:
        raise InvalidArgument(f"invalid link local IP address: {text}")
    return address


def mac_of(address: Address) -> str:
    """Return a MAC that belongs to an address: Docker's to one of IPv4."""
    return "02:42:" + address.packed[-4:].hex(":")


def any_mac() -> bytes:
    """Return a MAC for an interface without an address."""
    return b"\x02\x42" + os.urandom(4)


def lasting_mac(seed: str) -> bytes:
    """Return a MAC that is always the same for one ``seed``."""
    return b"\x02\x42" + sha256(seed.encode())[:4]


def parse_mac(text: str) -> bytes:
    """Parse a MAC address of six bytes."""
    try:
        packed = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6 or packed[0] & 1:
        raise InvalidArgument(f"invalid MAC address: {text}")
    return packed


def link_local(mac: bytes) -> bytes:
    """Return the packed IPv6 address that an interface gives itself (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


class AddressPool:
    """The addresses of one subnet, handed out round-robin so that a freed one rests a while."""

    def __init__(self, subnet: Network, *, ip_range: Network | None = None) -> None:
        if subnet.prefixlen > _LONGEST[subnet.version]:
            raise InvalidArgument(
                f"invalid subnet {subnet}: too small for a gateway and a container"
            )
        self.subnet = subnet
        span = ip_range or subnet
        if not overlap(span, subnet) or span.prefixlen < subnet.prefixlen:
            raise InvalidArgument(f"invalid ip-range {span}: not part of the subnet {subnet}")
        has_broadcast = subnet.version == 4 and subnet.prefixlen < 31  # RFC 3021
        last = int(subnet.broadcast_address) - has_broadcast
        self._bounds = range(int(first_address(subnet)), last + 1)
        self._first = max(int(span.network_address), self._bounds.start)
        self._last = min(int(span.broadcast_address), last)
        self._used: set[int] = set()
        self._next = self._first

    def allocate(self) -> Address:
        """Take the next free address; Failed when there is none."""
        count = self._last - self._first + 1
        for step in range(min(count, len(self._used) + 1)):
            number = self._first + (self._next - self._first + step) % count
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return self.subnet[number - int(self.subnet.network_address)]
        version = self.subnet.version
        raise Failed(f"no available IPv{version} addresses on this network's address pools")

    def __len__(self) -> int:
        return len(self._used)

    def claim(self, address: Address) -> None:
        """Take this address; Forbidden when it is taken, InvalidArgument when it is not the network's."""
        if address not in self.subnet:
            raise InvalidArgument(
                f"invalid address {address}: It does not belong to any of this network's subnets"
            )
        if int(address) in self._used or int(address) not in self._bounds:
            raise Forbidden(USED)
        self._used.add(int(address))

    def restore(self, address: Address) -> None:
        """Take the address that a running container has; the next ones come after it."""
        self._used.add(int(address))
        if self._first <= int(address) <= self._last:
            self._next = max(self._next, int(address) + 1)

    def release(self, address: Address) -> None:
        """Give an address back; nothing when it was free."""
        self._used.discard(int(address))


class Pools:
    """The pools of one network and version of IP: addresses come from the first that has any left."""

    def __init__(self, pools: Sequence[AddressPool]) -> None:
        self._pools = pools

    def __len__(self) -> int:
        return sum(map(len, self._pools))

    def allocate(self) -> Address:
        """Take the next free address; Failed when there is none."""
        for pool in self._pools[:-1]:
            try:
                return pool.allocate()
            except Failed:
                continue
        return self._pools[-1].allocate()

    def claim(self, address: Address) -> None:
        """Take this address; Forbidden when it is taken, InvalidArgument when it is not the network's."""
        self._of(address).claim(address)

    def claim_any(self, texts: Iterable[str]) -> Address | None:
        """Take the first of these addresses that is free, if one is."""
        for text in texts:
            try:
                address = ip_address(text)
                self.claim(address)
            except (BerthError, ValueError):
                continue
            return address
        return None

    def restore(self, address: Address) -> None:
        """Take the address that a running container has; the next ones come after it."""
        self._of(address).restore(address)

    def release(self, address: Address) -> None:
        """Give an address back; nothing when it was free."""
        self._of(address).release(address)

    def _of(self, address: Address) -> AddressPool:
        return next((p for p in self._pools if address in p.subnet), self._pools[0])
