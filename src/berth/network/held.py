"""What berthd holds for a connected container: its namespace, its ports, and who answers it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from berth.network import ports
from berth.network.ports import Reservation
from berth.network.wiring import RESOLVER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.network.records import PortRecord, SandboxRequest
    from berth.network.resolver import Resolver


class Held:
    """Descriptors and sockets; they are closed with it, but the container goes on.

    Its monitor has the sockets too, so that ports stay taken and questions for names wait while berthd is
    away, and a later berthd goes on with the same ones.
    """

    __slots__ = ("_kept", "has_released", "names", "netns_fd", "request", "reservation", "resolver")

    def __init__(self, request: SandboxRequest) -> None:
        self.request = request
        self.netns_fd = request.own_netns_fd
        self.reservation = Reservation()
        self.resolver: Resolver | None = None
        self.names: list[
            socket.socket
        ] = []  # at which questions arrive, by datagrams and connections
        self._kept: set[socket.socket] = set()
        self.has_released = False  # the monitor keeps what is no more

    def restore(self, fds: Iterable[int], published: Iterable[PortRecord]) -> None:
        """Own the sockets that the monitor kept, of a container with these published ports.

        Those of ports that it has no more are let go: it left the network that led to them.
        """
        self.reservation.records = list(published)
        places = {ports.place_of(port) for port in self.reservation.records}
        for fd in fds:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            if ports.bound_to(sock) in places:
                self.reservation.sockets.append(sock)
            elif sock.getsockname()[0] == RESOLVER:
                self.names.append(sock)
            else:
                ports.let_go(sock)
                self.has_released = True
                continue
            self._kept.add(sock)

    def give_up(self, *versions: int) -> Reservation:
        """Part with the published ports of these versions of IP."""
        given = self.reservation.take(*versions)
        self.has_released |= not self._kept.isdisjoint(given.sockets)
        self._kept.difference_update(given.sockets)
        return given

    def unkept(self) -> tuple[int, ...]:
        """Return the descriptors of the sockets that were made since this was asked before.

        All of them, when some that the monitor keeps are no more.
        """
        if self.has_released:
            self._kept.clear()
            self.has_released = False
        found = [s for s in (*self.reservation.sockets, *self.names) if s not in self._kept]
        self._kept.update(found)
        return tuple(sock.fileno() for sock in found)

    def close(self) -> None:
        """Let go of everything but the published ports."""
        if self.resolver is not None:
            self.resolver.close()
        for sock in self.names:
            sock.close()
        if self.netns_fd is not None:
            os.close(self.netns_fd)
