"""Addresses: which subnet a network gets, and which address a container gets. No I/O."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from berth.errors import Failed, Forbidden, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def default_subnets() -> Iterator[IPv4Network]:
    """Yield the subnets that networks get when none is asked for, in Docker's order."""
    for second in range(17, 32):
        yield IPv4Network((0xAC000000 | second << 16, 16))
    yield from IPv4Network("192.168.0.0/16").subnets(new_prefix=20)


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return the first default subnet that overlaps none of ``taken``."""
    occupied = list(taken)
    for subnet in default_subnets():
        if not any(subnet.overlaps(other) for other in occupied):
            return subnet
    raise Failed("all predefined address pools have been fully subnetted")


def parse_subnet(text: str) -> IPv4Network:
    """Parse what a client gave as subnet."""
    try:
        return IPv4Network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from None


def parse_address(text: str) -> IPv4Address:
    """Parse what a client gave as address."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IPv4 address: {text}") from None


def mac_of(address: IPv4Address) -> str:
    """Return the MAC that Docker derives from an address."""
    return "02:42:" + address.packed.hex(":")


def parse_mac(text: str) -> bytes:
    """Parse a MAC address of six bytes."""
    try:
        packed = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6 or packed[0] & 1:
        raise InvalidArgument(f"invalid MAC address: {text}")
    return packed


class AddressPool:
    """The addresses of one network, handed out round-robin so that a freed one rests a while."""

    def __init__(self, subnet: IPv4Network, *, ip_range: IPv4Network | None = None) -> None:
        if subnet.prefixlen > 30:
            raise InvalidArgument(
                f"invalid subnet {subnet}: too small for a gateway and a container"
            )
        self.subnet = subnet
        span = ip_range or subnet
        if not span.subnet_of(subnet):
            raise InvalidArgument(f"invalid ip-range {span}: not part of the subnet {subnet}")
        self._first = max(int(span.network_address), int(subnet.network_address) + 1)
        self._last = min(int(span.broadcast_address), int(subnet.broadcast_address) - 1)
        self._used: set[int] = set()
        self._next = self._first

    def allocate(self) -> IPv4Address:
        """Take the next free address; Failed when there is none."""
        count = self._last - self._first + 1
        for step in range(count):
            number = self._first + (self._next - self._first + step) % count
            if number not in self._used:
                self._used.add(number)
                self._next = number + 1
                return IPv4Address(number)
        raise Failed("no available IPv4 addresses on this network's address pools")

    def claim(self, address: IPv4Address) -> None:
        """Take this address; Forbidden when it is taken, InvalidArgument when it is not the network's."""
        if address not in self.subnet:
            raise InvalidArgument(
                f"invalid address {address}: It does not belong to any of this network's subnets"
            )
        if int(address) in self._used:
            raise Forbidden("Address already in use")
        self._used.add(int(address))

    def restore(self, address: IPv4Address) -> None:
        """Take the address that a running container has; the next ones come after it."""
        self._used.add(int(address))
        if self._first <= int(address) <= self._last:
            self._next = max(self._next, int(address) + 1)

    def release(self, address: IPv4Address) -> None:
        """Give an address back; nothing when it was free."""
        self._used.discard(int(address))
