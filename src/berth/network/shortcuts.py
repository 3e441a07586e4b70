"""Leads packets past the bridge, between a container and the host: programs of BPF at both ends.

A container's packet of IPv4 to the bridge's own MAC goes at once where the bridge would bring it after it
had asked its table, the rules for bridges and br_netfilter: into the host, as from the bridge. It must come
from an interface, MAC and address that belong together (:mod:`berth.network.guards`); all else goes by the
bridge and its rules. What the host sends to a container's MAC goes into that container's interface. Two
maps of the kernel say what belongs together; who is not in them goes by the bridge. So nothing depends on
this, and where it cannot be (no `sch_ingress` or `cls_bpf`, an ordinary user) it is left.

    senders    interface . MAC . type . IPv4 address → bridge . MAC of the bridge
    receivers  bridge . MAC                          → interface
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.kernel import bpf, netlink, rtnetlink, traffic
from berth.kernel.netlink import NetlinkSocket

if TYPE_CHECKING:
    from berth.network.guards import Guard

log = logging.getLogger("berth")

NAME = "berth"
GONE = (errno.ENODEV, errno.ENXIO)  # what an interface is whose container ends this moment
MOST = 65_536
IPV4, EVERY_PROTOCOL = b"\x08\0", b"\0\x03"
# Offsets in struct __sk_buff, in a frame, and the kernel's functions that programs call.
_VLAN_PRESENT, _INTERFACE, _DATA, _DATA_END = 20, 40, 76, 80
_MAC_BYTES, _HEADER_BYTES, _HEADERS_BYTES, _SENDER_ADDRESS = 6, 14, 34, 26
_LOOK_UP, _REDIRECT = 1, 23
_INTO_THE_HOST, _OUT = 1, 0
_GO_ON = -1  # TC_ACT_UNSPEC
_RESULT, _FIRST, _SECOND, _PACKET, _FRAME, _END = 0, 1, 2, 6, 7, 8


class Shortcuts:
    """The programs and maps of one engine. Everything runs in the thread that changes the kernel."""

    def __init__(self) -> None:
        self._links = NetlinkSocket(netlink.NETLINK_ROUTE)
        self._bridges: dict[int, bytes] = {}  # index → what the senders' map has of it
        self._fds: list[int] = []
        try:
            self._senders = self._keep(bpf.create_map(key_bytes=16, value_bytes=12, most=MOST))
            self._receivers = self._keep(bpf.create_map(key_bytes=12, value_bytes=4, most=MOST))
            self._outward = self._keep(_load(_outward(self._senders)))
            self._inward = self._keep(_load(_inward(self._receivers)))
        except OSError as error:
            self._give_up(error)

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Let go of them; what is attached stays."""
        while self._fds:
            os.close(self._fds.pop())
        self._links.close()

    def clear(self, bridge: int) -> None:
        """Have the host's packets to a bridge go by it: an earlier berthd's map says what was."""
        self._bridges.pop(bridge, None)
        message = traffic.no_program_message(bridge, traffic.EGRESS, EVERY_PROTOCOL)
        with suppress(OSError):  # there is none
            self._links.execute([message], "delete program")

    def _give_up(self, error: OSError) -> None:
        log.debug("containers and host reach each other by their bridges: %s", error)
        for bridge in list(self._bridges):
            self.clear(bridge)
        while self._fds:
            os.close(self._fds.pop())

    def add(self, guard: Guard) -> None:
        """Give an interface the shortcut, in place of one that an earlier berthd gave it."""
        if not self._fds or not guard.bridge:
            return
        try:
            bridge = self._ensure(guard.bridge)
            for key in _sender_keys(guard):
                bpf.update_map(self._senders, key, bridge)
            self._attach(guard.interface, traffic.INGRESS, IPV4, self._outward)
            bpf.update_map(self._receivers, _receiver_key(guard), _u32(guard.interface))
        except OSError as error:
            if error.errno not in GONE:
                self._give_up(error)

    def remove(self, guard: Guard) -> None:
        """Forget an interface that is gone. What stays in a map harms nobody."""
        if self._fds and guard.bridge:
            with suppress(OSError):
                for key in _sender_keys(guard):
                    bpf.delete_from_map(self._senders, key)
                bpf.delete_from_map(self._receivers, _receiver_key(guard))

    def _ensure(self, index: int) -> bytes:
        """Have the host's packets to a bridge looked at; return what the senders' map has of it."""
        if index not in self._bridges:
            link = rtnetlink.find_link(self._links, socket.if_indextoname(index))
            if link is None:
                raise OSError(errno.ENODEV, f"bridge {index} is gone")
            self._attach(index, traffic.EGRESS, EVERY_PROTOCOL, self._inward)
            self._bridges[index] = _u32(index) + link.address + bytes(2)
        return self._bridges[index]

    def _attach(self, index: int, where: int, protocol: bytes, program: int) -> None:
        message = traffic.program_message(index, where, protocol, program, NAME)
        try:
            self._links.execute([traffic.hooks_message(index), message], "attach program")
        except FileExistsError:  # the hooks
            self._links.execute([message], "attach program")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _sender_keys(guard: Guard) -> list[bytes]:
    start = _u32(guard.interface) + guard.mac + IPV4
    return [start + packed for packed in guard.addresses if len(packed) == 4]


def _receiver_key(guard: Guard) -> bytes:
    return _u32(guard.bridge) + guard.mac + bytes(2)


def _load(program: bytes) -> int:
    return bpf.load_program(bpf.PROG_TYPE_SCHED_CLS, program)


def _outward(senders: int) -> bytes:
    """Return the program that sees what comes out of a container's interface."""
    into = bpf.instruction
    key = b"".join(
        (
            into(bpf.LOAD_WORD, _SECOND, source=_PACKET, offset=_INTERFACE),
            into(bpf.STORE_WORD, bpf.FRAME, source=_SECOND, offset=-16),
            *_copied((_MAC_BYTES, -12), (_MAC_BYTES + 4, -8), (_SENDER_ADDRESS, -4)),
        )
    )
    return _assembled(
        into(bpf.LOAD_WORD, _SECOND, source=_PACKET, offset=_VLAN_PRESENT),
        (bpf.JUMP_NOT_EQUAL, _SECOND, 0, 0),
        *_bounds(_HEADERS_BYTES),
        key + _looked_up(senders, 16),
        (bpf.JUMP_EQUAL, _RESULT, 0, 0),
        into(bpf.LOAD_WORD, _FIRST, source=_RESULT, offset=4)
        + into(bpf.LOAD_WORD, _SECOND, source=_FRAME, offset=0),
        (bpf.JUMP_NOT_EQUAL_REGISTER, _FIRST, _SECOND, 0),
        into(bpf.LOAD_HALF, _FIRST, source=_RESULT, offset=8)
        + into(bpf.LOAD_HALF, _SECOND, source=_FRAME, offset=4),
        (bpf.JUMP_NOT_EQUAL_REGISTER, _FIRST, _SECOND, 0),
        _redirected(_INTO_THE_HOST),
    )


def _inward(receivers: int) -> bytes:
    """Return the program that sees what the host sends to a bridge."""
    into = bpf.instruction
    key = b"".join(
        (
            into(bpf.LOAD_WORD, _SECOND, source=_PACKET, offset=_INTERFACE),
            into(bpf.STORE_WORD, bpf.FRAME, source=_SECOND, offset=-12),
            *_copied((0, -8)),
            into(bpf.LOAD_HALF, _SECOND, source=_FRAME, offset=4),
            into(bpf.STORE_WORD, bpf.FRAME, source=_SECOND, offset=-4),
        )
    )
    return _assembled(
        *_bounds(_HEADER_BYTES),
        key + _looked_up(receivers, 12),
        (bpf.JUMP_EQUAL, _RESULT, 0, 0),
        _redirected(_OUT),
    )


# Code, register, source, value: a jump to the end, where the packet goes on.
Jump = tuple[int, int, int, int]


def _bounds(size: int) -> tuple[bytes, Jump]:
    """Load where the packet begins and ends; one that is shorter, or in pieces, goes on."""
    into = bpf.instruction
    start = b"".join(
        (
            into(bpf.LOAD_WORD, _FRAME, source=_PACKET, offset=_DATA),
            into(bpf.LOAD_WORD, _END, source=_PACKET, offset=_DATA_END),
            into(bpf.MOVE_REGISTER, _SECOND, source=_FRAME),
            into(bpf.ADD, _SECOND, value=size),
        )
    )
    return start, (bpf.JUMP_GREATER_REGISTER, _SECOND, _END, 0)


def _copied(*places: tuple[int, int]) -> list[bytes]:
    """Copy words of the frame to the stack."""
    found = []
    for offset, place in places:
        found.append(bpf.instruction(bpf.LOAD_WORD, _SECOND, source=_FRAME, offset=offset))
        found.append(bpf.instruction(bpf.STORE_WORD, bpf.FRAME, source=_SECOND, offset=place))
    return found


def _looked_up(map_fd: int, key_bytes: int) -> bytes:
    return b"".join(
        (
            bpf.load_map(_FIRST, map_fd),
            bpf.instruction(bpf.MOVE_REGISTER, _SECOND, source=bpf.FRAME),
            bpf.instruction(bpf.ADD, _SECOND, value=-key_bytes),
            bpf.instruction(bpf.CALL, value=_LOOK_UP),
        )
    )


def _redirected(how: int) -> bytes:
    """Redirect to the interface that the value found begins with."""
    return b"".join(
        (
            bpf.instruction(bpf.LOAD_WORD, _FIRST, source=_RESULT, offset=0),
            bpf.instruction(bpf.MOVE, _SECOND, value=how),
            bpf.instruction(bpf.CALL, value=_REDIRECT),
            bpf.instruction(bpf.EXIT),
        )
    )


def _assembled(*parts: bytes | Jump) -> bytes:
    """Return a program: the parts, and the end that all jumps lead to."""
    body = bpf.instruction(bpf.MOVE, _RESULT, value=_GO_ON) + bpf.instruction(bpf.EXIT)
    size = 0
    for part in reversed(parts):
        if isinstance(part, bytes):
            body = part + body
            size += len(part)
        else:
            code, register, source, value = part
            over = size // bpf.INSTRUCTION_BYTES
            body = bpf.instruction(code, register, source=source, offset=over, value=value) + body
            size += bpf.INSTRUCTION_BYTES
    return bpf.instruction(bpf.MOVE_REGISTER, _PACKET, source=_FIRST) + body
