"""How fast, how late and how surely a container's packets arrive: options of endpoints and networks.

berth.rate    10mbit   in each direction, of its own; kbit, mbit, gbit, or bytes: kbps, mbps, gbps
berth.delay   50ms     of what the container sends; us, ms, s
berth.jitter  5ms      by which that delay varies
berth.loss    1%       of what the container sends
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, NamedTuple

from berth.errors import InvalidArgument, Unsupported
from berth.kernel import rtnetlink, traffic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.kernel.netlink import Message, NetlinkSocket

PREFIX = "berth."
OPTIONS = ("rate", "delay", "jitter", "loss")

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z%]*)")
_RATES = {
    **dict(zip(("bit", "kbit", "mbit", "gbit"), (0.125, 125, 125_000, 125_000_000), strict=True)),
    **dict(zip(("bps", "kbps", "mbps", "gbps"), (1, 1e3, 1e6, 1e9), strict=True)),
    "": 0.125,
}
_TIMES = {"us": 1e3, "ms": 1e6, "s": 1e9, "": 1e3}
_MAX_NS = 60 * 10**9
_LEAST_BURST, _LEAST_LIMIT = 32_768, 131_072


class Shape(NamedTuple):
    """Bytes a second, nanoseconds, and the share that is lost; all 0: as it comes."""

    rate: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0
    loss: float = 0.0


def parse(*places: Mapping[str, str] | None) -> Shape:
    """Read the options, those of later places in place of earlier ones'; InvalidArgument for nonsense."""
    found: dict[str, str] = {}
    for options in places:
        found |= {
            name: value
            for name in OPTIONS
            if (value := (options or {}).get(PREFIX + name)) is not None
        }
    rate = int(_quantity("rate", found.get("rate", "0"), _RATES))
    delay, jitter = (int(_quantity(n, found.get(n, "0"), _TIMES)) for n in ("delay", "jitter"))
    loss = _quantity("loss", found.get("loss", "0"), {"%": 0.01, "": 0.01})
    if max(delay, jitter) > _MAX_NS:
        raise InvalidArgument("berth.delay and berth.jitter are a minute at most")
    if jitter > delay:
        raise InvalidArgument("berth.jitter is more than berth.delay")
    if loss > 1:
        raise InvalidArgument("berth.loss is 100% at most")
    if 0 < rate < 1000:
        raise InvalidArgument("berth.rate is 8kbit at least")
    return Shape(rate, delay, jitter, loss)


def _quantity(name: str, text: str, units: Mapping[str, float]) -> float:
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise InvalidArgument(
            f"invalid value of berth.{name}: {text!r}: a number and one of {known}"
        )
    return float(match[1]) * units[match[2]]


def apply(links: NetlinkSocket, device: str, shape: Shape, *, sends: bool) -> None:
    """Shape what an interface sends; ``sends``: it is the container's own, not the host's end."""
    link = rtnetlink.find_link(links, device)
    if link is None:
        return
    try:
        links.execute([traffic.clear_message(link.index)], f"clear the shape of {device}")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
    for message in _messages(link.index, shape, sends=sends):
        try:
            links.execute([message], f"shape {device}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                kinds = "sch_tbf, for berth.rate, or sch_netem, for the other options"
                raise Unsupported(f"the kernel of this host lacks {kinds}") from None
            raise


def _messages(index: int, shape: Shape, *, sends: bool) -> list[Message]:
    found = []
    if shape.rate:
        burst = max(shape.rate // 100, _LEAST_BURST)
        limit = max(burst + shape.rate // 10, _LEAST_LIMIT)
        found.append(traffic.limit_message(index, shape.rate, burst=burst, limit=limit))
    if sends and (shape.delay_ns or shape.loss):
        found.append(
            traffic.disturb_message(
                index,
                delay_ns=shape.delay_ns,
                jitter_ns=shape.jitter_ns,
                loss=shape.loss,
                is_limited=bool(shape.rate),
            )
        )
    return found
