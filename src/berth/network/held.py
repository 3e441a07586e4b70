"""What berthd holds for a connected container: its namespace, its ports, and who answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.network.ports import Reservation

if TYPE_CHECKING:
    from berth.network.records import SandboxRequest
    from berth.network.resolver import Resolver


class Held:
    """Descriptors and sockets; they are closed with it, but the container goes on."""

    __slots__ = ("netns_fd", "request", "reservation", "resolver")

    def __init__(self, request: SandboxRequest) -> None:
        self.request = request
        self.netns_fd: int | None = None
        self.reservation = Reservation()
        self.resolver: Resolver | None = None
