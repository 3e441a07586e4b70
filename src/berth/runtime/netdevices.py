"""Network devices of the host that a container gets (config-linux.md, "Network Devices").

They keep their hardware address, their MTU and the addresses that are known beyond their link, and are up.
"""

from __future__ import annotations

from berth.errors import Failed, InvalidArgument
from berth.kernel import namespaces, rtnetlink
from berth.kernel.netlink import NetlinkSocket
from berth.runtime.forks import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.kernel.rtnetlink import Address
    from berth.oci.runtime_spec import NetDevice

MAX_NAME_BYTES = 15
NETLINK_ROUTE = 0
EVERYWHERE = 0  # a scope
FORBIDDEN = frozenset("/:")


def check(devices: Mapping[str, NetDevice], kinds: Mapping[str, str]) -> None:
    """Refuse what cannot be moved, or could not be called so."""
    if "network" not in kinds:
        raise InvalidArgument("unable to move network devices without a NET namespace")
    names: dict[str, str] = {}
    for outside, device in devices.items():
        inside = device.get("name") or outside
        for name in (outside, inside):
            if not _is_name(name):
                raise InvalidArgument(f"invalid network device name {name!r}")
        if inside in names:
            raise InvalidArgument(f"netDevices: {names[inside]} and {outside} both become {inside}")
        names[inside] = outside


def _is_name(name: str) -> bool:
    return (
        0 < len(name.encode()) <= MAX_NAME_BYTES
        and name not in (".", "..")
        and FORBIDDEN.isdisjoint(name)
        and not any(character.isspace() for character in name)
    )


def move(devices: Mapping[str, NetDevice], netns_fd: int) -> None:
    """Move them from the caller's network namespace to another one."""
    for outside, device in devices.items():
        inside = device.get("name") or outside
        try:
            _move(outside, inside, netns_fd)
        except OSError as error:
            raise Failed(f"cannot move network device {outside}: {error}") from error


def _move(outside: str, inside: str, netns_fd: int) -> None:
    with NetlinkSocket(NETLINK_ROUTE) as sock:
        link = rtnetlink.find_link(sock, outside)
        if link is None:
            raise Failed(f"cannot move network device {outside}: there is no such device")
        found = [
            address
            for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6)
            for address in rtnetlink.addresses(sock, family=family)
            if address.index == link.index and address.scope == EVERYWHERE
        ]
        message = rtnetlink.move_message(link.index, netns_fd, inside)
        sock.execute([message], f"move {outside}")
    in_child(lambda: _bring_up(inside, netns_fd, found))


def _bring_up(name: str, netns_fd: int, addresses: list[Address]) -> None:
    """Make it in there what it was."""
    namespaces.setns(netns_fd, namespaces.CLONE_NEWNET)
    with NetlinkSocket(NETLINK_ROUTE) as sock:
        link = rtnetlink.find_link(sock, name)
        if link is None:
            raise Failed(f"network device {name} is gone")
        messages = [
            rtnetlink.address_message(link.index, a.address, a.prefix_length) for a in addresses
        ]
        sock.execute([*messages, rtnetlink.up_message(link.index)], f"set up {name}")
