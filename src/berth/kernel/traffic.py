"""Traffic control over rtnetlink(7): what limits, delays and loses packets, and programs that see them first.

Pure, as :mod:`berth.kernel.rtnetlink`. Source: linux/pkt_sched.h.
"""

from __future__ import annotations

import sys
from struct import Struct

from berth.kernel import netlink
from berth.kernel.netlink import Message, attribute, text, u32

_NEWQDISC, _DELQDISC, _NEWTFILTER, _DELTFILTER = 36, 37, 44, 45
_KIND, _OPTIONS = 1, 2
_ROOT = 0xFFFFFFFF
_FIRST, _SECOND = 1 << 16, 2 << 16  # handles
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # where a program sees packets
_PRIORITY = 0xBE74 << 16  # others may have programs there, too
_BPF_FD, _BPF_NAME, _BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1

_TC = Struct("=BxxxiIII")  # family, interface, handle, parent, info
_RATE = Struct("=BBHhHI")  # cell log, link layer, overhead, cell align, least size, bytes/s
_TBF = Struct("=III")  # limit, buffer, mtu
_NETEM = Struct("=IIIIII")  # latency, limit, loss, gap, duplicate, jitter
_NS = Struct("=q")
_ETHERNET = 1
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_NETEM_LATENCY64, _NETEM_JITTER64 = 10, 11
_MAX_U32 = 0xFFFFFFFF


def _queue(index: int, handle: int, parent: int, kind: str, options: bytes) -> Message:
    body = _TC.pack(0, index, handle, parent, 0) + text(_KIND, kind) + attribute(_OPTIONS, options)
    return Message(_NEWQDISC, body, flags=netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def limit_message(index: int, rate: int, *, burst: int, limit: int) -> Message:
    """Send at most ``rate`` bytes a second, ``burst`` at once; ``limit`` bytes wait, the rest is dropped."""
    own = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(rate, _MAX_U32))
    none = _RATE.pack(0, _ETHERNET, 0, 0, 0, 0)
    options = attribute(_TBF_PARMS, own + none + _TBF.pack(limit, 0, 0))
    options += attribute(_TBF_BURST, u32(burst))
    if rate > _MAX_U32:
        options += attribute(_TBF_RATE64, rate.to_bytes(8, "little"))
    return _queue(index, _FIRST, _ROOT, "tbf", options)


def disturb_message(
    index: int, *, delay_ns: int, jitter_ns: int, loss: float, is_limited: bool
) -> Message:
    """Delay packets and lose a share of them; behind the limit if there is one."""
    lost = min(_MAX_U32, int(loss * _MAX_U32))
    options = _NETEM.pack(0, 10_000, lost, 0, 0, 0)
    options += attribute(_NETEM_LATENCY64, _NS.pack(delay_ns))
    options += attribute(_NETEM_JITTER64, _NS.pack(jitter_ns))
    parent = _FIRST | 1 if is_limited else _ROOT
    return _queue(index, _SECOND, parent, "netem", options)


def hooks_message(index: int) -> Message:
    """Give an interface places for programs; EEXIST when it has them."""
    body = _TC.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + text(_KIND, "clsact")
    return Message(_NEWQDISC, body, flags=netlink.NLM_F_CREATE | netlink.NLM_F_EXCL)


def program_message(index: int, where: int, protocol: bytes, program_fd: int, name: str) -> Message:
    """Have a program (SCHED_CLS) decide about packets of a protocol, in place of an earlier one."""
    options = attribute(_BPF_FD, u32(program_fd)) + text(_BPF_NAME, name)
    options += attribute(_BPF_FLAGS, u32(_DIRECT_ACTION))
    body = _program(index, where, protocol) + attribute(_OPTIONS, options)
    return Message(_NEWTFILTER, body, flags=netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def no_program_message(index: int, where: int, protocol: bytes) -> Message:
    """Take that program away; ENOENT or EINVAL when there is none."""
    return Message(_DELTFILTER, _program(index, where, protocol))


def _program(index: int, where: int, protocol: bytes) -> bytes:
    info = _PRIORITY | int.from_bytes(protocol, sys.byteorder)
    return _TC.pack(0, index, 1, where, info) + text(_KIND, "bpf")


def clear_message(index: int) -> Message:
    """Let everything go as it comes; ENOENT when nothing was set."""
    return Message(_DELQDISC, _TC.pack(0, index, 0, _ROOT, 0))
