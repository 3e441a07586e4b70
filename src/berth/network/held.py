"""What berthd holds for a connected container: its namespace, its ports, and who answers it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

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

    __slots__ = ("_kept", "names", "netns_fd", "request", "reservation", "resolver")

    def __init__(self, request: SandboxRequest) -> None:
        self.request = request
        self.netns_fd = request.own_netns_fd
        self.reservation = Reservation()
        self.resolver: Resolver | None = None
        self.names: list[
            socket.socket
        ] = []  # at which questions arrive, by datagrams and connections
        self._kept: set[socket.socket] = set()

    def restore(self, fds: Iterable[int], ports: Iterable[PortRecord]) -> None:
        """Own the sockets that the monitor kept, of a container with these published ports."""
        self.reservation.records = list(ports)
        published = {(port.host_ip, port.host_port) for port in self.reservation.records}
        for fd in fds:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            place = sock.getsockname()[:2]
            is_for_names = place[0] == RESOLVER and place not in published
            (self.names if is_for_names else self.reservation.sockets).append(sock)
            self._kept.add(sock)

    def unkept(self) -> tuple[int, ...]:
        """Return the descriptors of the sockets that were made since this was asked before."""
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
