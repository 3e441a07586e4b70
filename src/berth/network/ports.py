"""Published ports: which host port, who has it, and a socket that keeps it from the host's processes.

The reservation is a bound socket that never listens; traffic does not reach it, because the firewall
redirects it before. A bound socket without SO_REUSEADDR makes every other bind fail.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from berth.errors import Failed, InvalidArgument
from berth.network.records import PROTOCOLS, PortRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.network.records import PortRequest

ANY = "0.0.0.0"  # noqa: S104 - Docker's default, which clients expect
EPHEMERAL = range(32768, 61000)

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_NUMBERS = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "sctp": getattr(socket, "IPPROTO_SCTP", 132),
}


class Reservation:
    """The published ports of one endpoint with the sockets that hold them on the host."""

    def __init__(self) -> None:
        self.records: list[PortRecord] = []
        self.sockets: list[socket.socket] = []

    def fds(self) -> tuple[int, ...]:
        """Return the descriptors of the sockets."""
        return tuple(sock.fileno() for sock in self.sockets)


class PortRegistry:
    """The ports that containers of this engine publish on the host."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], set[str]] = {}
        self._next = dict.fromkeys(PROTOCOLS, EPHEMERAL.start)

    def reserve(
        self, requests: Iterable[PortRequest], *, endpoint: str, address: str
    ) -> Reservation:
        """Reserve every port or none; Failed with Docker's text when one is taken.

        ``endpoint`` is "NAME (ID)" and ``address`` the container's, for that text.
        """
        reservation = Reservation()
        try:
            for request in requests:
                self._reserve(request, reservation, address)
        except OSError as error:
            self.release(reservation)
            raise Failed(
                f"driver failed programming external connectivity on endpoint {endpoint}: {error.strerror}"
            ) from error
        except BaseException:
            self.release(reservation)
            raise
        return reservation

    def restore(self, records: Iterable[PortRecord]) -> None:
        """Take the ports of a running container, whose monitor holds their sockets."""
        for record in records:
            self._taken.setdefault((record.protocol, record.host_port), set()).add(record.host_ip)

    def release(self, reservation: Reservation) -> None:
        """Give ports back.

        A monitor may hold the same sockets a little longer; SO_REUSEADDR, which belongs to the socket
        and not to the descriptor, lets the next owner bind beside it.
        """
        self.forget(reservation.records)
        for sock in reservation.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.close()

    def forget(self, records: Iterable[PortRecord]) -> None:
        """Give ports back whose sockets this process does not have."""
        for record in records:
            key = (record.protocol, record.host_port)
            hosts = self._taken.get(key, set())
            hosts.discard(record.host_ip)
            if not hosts:
                self._taken.pop(key, None)

    def _reserve(self, request: PortRequest, reservation: Reservation, address: str) -> None:
        if request.protocol not in PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {request.protocol}")
        host_ip = request.host_ip or ANY
        if request.host_port:
            record = _record(request, host_ip, request.host_port)
            if self._is_taken(record):
                message = f"Bind for {host_ip}:{record.host_port} failed: port is already allocated"
                raise OSError(errno.EADDRINUSE, message)
            sock = _bind(record, address)
        else:
            record, sock = self._find(request, host_ip, address)
        if sock:
            reservation.sockets.append(sock)
        reservation.records.append(record)
        self.restore([record])

    def _find(
        self, request: PortRequest, host_ip: str, address: str
    ) -> tuple[PortRecord, socket.socket | None]:
        for _ in EPHEMERAL:
            port = self._next[request.protocol]
            after = port + 1 if port + 1 in EPHEMERAL else EPHEMERAL.start
            self._next[request.protocol] = after
            record = _record(request, host_ip, port)
            if self._is_taken(record):
                continue
            try:
                return record, _bind(record, address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, "all ports are allocated")

    def _is_taken(self, record: PortRecord) -> bool:
        hosts = self._taken.get((record.protocol, record.host_port), set())
        return bool(hosts) and (record.host_ip == ANY or ANY in hosts or record.host_ip in hosts)


def _record(request: PortRequest, host_ip: str, host_port: int) -> PortRecord:
    return PortRecord(
        protocol=request.protocol,
        container_port=request.container_port,
        host_ip=host_ip,
        host_port=host_port,
    )


def _bind(record: PortRecord, address: str) -> socket.socket | None:
    """Bind the host port; None when the kernel has no such protocol for sockets (sctp)."""
    kind, number = _KINDS[record.protocol], _NUMBERS[record.protocol]
    try:
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return None
        raise
    try:
        _bind_alone_or_beside(sock, (record.host_ip, record.host_port))
    except OSError as error:
        sock.close()
        cause = (error.strerror or str(error)).lower()
        if error.errno == errno.EADDRNOTAVAIL:
            cause = "cannot assign requested address"
        ends = f"{record.host_ip}:{record.host_port}:{address}:{record.container_port}"
        message = f"failed to bind host port for {ends}/{record.protocol}: {cause}"
        raise OSError(error.errno, message) from error
    return sock


def _bind_alone_or_beside(sock: socket.socket, address: tuple[str, int]) -> None:
    """Bind; where that fails, beside connections in TIME_WAIT and a reservation just released.

    The kernel refuses the second form too while somebody listens there, and the socket is exclusive
    again afterwards.
    """
    try:
        sock.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
