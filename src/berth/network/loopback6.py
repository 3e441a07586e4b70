"""Published ports at the host's ::1: rules beside those of :mod:`berth.network.firewall`.

The kernel lets no packet from or to ::1 come by another interface than its loopback, and where bridges
show their packets to ip6tables the answers of containers have that address too early. So such a
connection goes by the detour, as one from ``asker`` to ``asked``; there and back each half of the way
has a connection record of its own:

    ::1 → ::1:PORT          leaves the host as  asker → asked:PORT        by the entry
    asker → asked:PORT      comes by the exit, and is redirected as  gateway → container

Nobody else reaches these two addresses: it would be the host to the container.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from berth.kernel import nftables as nft
from berth.network import detour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.network.detour import Detour

_WORD = nft.REG32
ADDRESS = IPv6Address("::1")
_ADDRESS_WORDS = 4
_ACCEPT, _DROP = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)


def lead(
    rules: dict[str, list[bytes]],
    way: Detour,
    *,
    taken: Sequence[bytes],
    targets: Sequence[bytes],
) -> None:
    """Put the rules before the others of each chain.

    ``taken`` load what may be the key of a published port and ask whether it is one; ``targets`` look
    up where one of ::1 leads.
    """
    source = nft.source_address(family=nft.IPV6)
    from_loopback = source + nft.compare(nft.CMP_EQ, ADDRESS.packed)
    from_asker = source + nft.compare(nft.CMP_EQ, way.asker)
    to_loopback, to_asked = _sent_to(ADDRESS.packed), _sent_to(way.asked)
    aside = nft.load(way.asked, _WORD[0]) + nft.dnat(_WORD[0], family=nft.IPV6)
    inside = nft.dnat(_WORD[8], _WORD[8 + _ADDRESS_WORDS], family=nft.IPV6)
    before = {
        "output": [*(to_loopback + is_taken + aside for is_taken in taken), to_loopback + _ACCEPT],
        "prerouting": [
            to_asked + detour.came_by_other_than(way.exit) + _DROP,
            *(to_asked + target + inside for target in targets),
            to_asked + _DROP,
        ],
        "postrouting": [
            detour.goes_by(way.entry)
            + from_loopback
            + nft.load(way.asker, _WORD[0])
            + nft.snat(_WORD[0], family=nft.IPV6)
        ],
        "inward_source": [from_asker + nft.masquerade()],
    }
    for chain, found in before.items():
        rules[chain] = found + rules[chain]
    # Behind "established": only answers are forwarded there.
    rules["forward"][1:1] = [detour.goes_by(end) + _DROP for end in (way.entry, way.exit)]


def _sent_to(address: bytes) -> bytes:
    return nft.destination_address(family=nft.IPV6) + nft.compare(nft.CMP_EQ, address)
