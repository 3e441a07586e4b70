"""Published ports: which host port, who has it, and a socket that keeps it from the host's processes.

The reservation is a bound socket that never listens; traffic does not reach it, because the firewall
redirects it before. A bound socket without SO_REUSEADDR makes every other bind fail.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from berth.errors import Failed, InvalidArgument
from berth.network.records import PROTOCOLS, PortRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from berth.network.records import PortRequest

ANY = "0.0.0.0"  # noqa: S104 - Docker's default, which clients expect
ANY6 = "::"
EVERY = (ANY, ANY6)
EPHEMERAL = range(32768, 61000)

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_NUMBERS = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "sctp": getattr(socket, "IPPROTO_SCTP", 132),
}


class Inside(NamedTuple):
    """The container, to its ports in one version of IP. If ``is_routed``, the host has no part in it."""

    address: str = ""
    is_routed: bool = False


class Reservation:
    """The published ports of one endpoint with the sockets that hold them on the host."""

    def __init__(self) -> None:
        self.records: list[PortRecord] = []
        self.sockets: list[socket.socket] = []

    def take(self, *versions: int) -> Reservation:
        """Return the part of it that is of these versions of IP, and keep the rest."""
        taken, families = Reservation(), [_FAMILIES[version] for version in versions]
        taken.records = [record for record in self.records if record.version in versions]
        taken.sockets = [sock for sock in self.sockets if sock.family in families]
        self.records = [record for record in self.records if record.version not in versions]
        self.sockets = [sock for sock in self.sockets if sock.family not in families]
        return taken


class _Taken(OSError):
    """A port that another container of ours publishes."""

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(errno.EADDRINUSE, message)
        self.owner = owner


class PortRegistry:
    """The ports that containers of this engine publish on the host."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], dict[str, str]] = {}  # by address, whose it is
        self._next = dict.fromkeys(PROTOCOLS, EPHEMERAL.start)

    def reserve(
        self, requests: Iterable[PortRequest], inside: Mapping[int, Inside], *, endpoint: str
    ) -> Reservation:
        """Reserve every port or none; Failed with Docker's text when one is taken.

        ``endpoint`` is "NAME (ID)" for that text. ``inside`` is the container by versions of IP: a port
        without an address of the host is published in each of them, under the same number; one on an
        address of another version is left out.
        """
        reservation = Reservation()
        try:
            for request in requests:
                asked = (_host_address(request.host_ip),) if request.host_ip else EVERY
                versions = {host: ip_address(host).version for host in asked}
                routed = [v for v in versions.values() if v in inside and inside[v].is_routed]
                reservation.records += [_routed(request, version) for version in routed]
                hosts = [h for h, v in versions.items() if v in inside and v not in routed]
                if hosts:
                    addresses = {version: place.address for version, place in inside.items()}
                    self._reserve(request, hosts, reservation, addresses)
                    self.restore(reservation.records, owner=endpoint.partition(" ")[0])
        except OSError as error:
            self.release(reservation)
            hint = f"{error.owner} publishes it" if isinstance(error, _Taken) else None
            raise Failed(
                f"driver failed programming external connectivity on endpoint {endpoint}: {error.strerror}",
                hint=hint,
            ) from error
        except BaseException:
            self.release(reservation)
            raise
        return reservation

    def restore(self, records: Iterable[PortRecord], *, owner: str) -> None:
        """Take the ports of a running container, whose monitor holds their sockets."""
        for record in filter(_has_host_port, records):
            key = (record.protocol, record.host_port)
            self._taken.setdefault(key, {})[record.host_ip] = owner

    def hold(self, records: Iterable[PortRecord]) -> list[socket.socket]:
        """Bind the ports of a running container that nobody holds: it got them while it ran."""
        found: list[socket.socket] = []
        for record in filter(_has_host_port, records):
            try:
                sock = _bind(record, "")
            except OSError:  # its monitor has it
                continue
            if sock is not None:
                found.append(sock)
        return found

    def release(self, reservation: Reservation) -> None:
        """Give ports back.

        A monitor may hold the same sockets a little longer; SO_REUSEADDR, which belongs to the socket
        and not to the descriptor, lets the next owner bind beside it.
        """
        self.forget(reservation.records)
        for sock in reservation.sockets:
            let_go(sock)

    def forget(self, records: Iterable[PortRecord]) -> None:
        """Give ports back whose sockets this process does not have."""
        for record in filter(_has_host_port, records):
            key = (record.protocol, record.host_port)
            hosts = self._taken.get(key, {})
            hosts.pop(record.host_ip, None)
            if not hosts:
                self._taken.pop(key, None)

    def _reserve(
        self,
        request: PortRequest,
        hosts: Sequence[str],
        reservation: Reservation,
        inside: dict[int, str],
    ) -> None:
        if request.protocol not in PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {request.protocol}")
        if request.host_port:
            records, sockets = self._first_free(request, hosts, inside)
        else:
            records, sockets = self._find(request, hosts, inside)
        reservation.sockets += sockets
        reservation.records += records

    def _first_free(
        self, request: PortRequest, hosts: Sequence[str], inside: dict[int, str]
    ) -> tuple[list[PortRecord], list[socket.socket]]:
        port = request.host_port
        while True:
            try:
                return self._claim(request, hosts, inside, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or request.last_host_port <= request.host_port:
                    raise
                if port == request.last_host_port:
                    raise OSError(errno.EADDRINUSE, "all ports are allocated") from error
            port += 1

    def _claim(
        self, request: PortRequest, hosts: Sequence[str], inside: dict[int, str], port: int
    ) -> tuple[list[PortRecord], list[socket.socket]]:
        records = [_record(request, host, port) for host in hosts]
        for record in records:
            if owner := self._owner(record):
                ends = f"{_shown(record.host_ip)}:{record.host_port}"
                raise _Taken(f"Bind for {ends} failed: port is already allocated", owner)
        return records, _bind_all(records, inside)

    def _find(
        self, request: PortRequest, hosts: Sequence[str], inside: dict[int, str]
    ) -> tuple[list[PortRecord], list[socket.socket]]:
        for _ in EPHEMERAL:
            port = self._next[request.protocol]
            after = port + 1 if port + 1 in EPHEMERAL else EPHEMERAL.start
            self._next[request.protocol] = after
            try:
                return self._claim(request, hosts, inside, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, "all ports are allocated")

    def _owner(self, record: PortRecord) -> str | None:
        """Return whose a port is, None when it is free."""
        taken = self._taken.get((record.protocol, record.host_port), {})
        every = ANY if record.version == 4 else ANY6
        for host, owner in taken.items():
            if ip_address(host).version == record.version and (
                record.host_ip == every or host in (every, record.host_ip)
            ):
                return owner
        return None


def let_go(sock: socket.socket) -> None:
    """Close a reservation's socket; who else has it hinders no other that binds beside."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.close()


def place_of(record: PortRecord) -> tuple[int, str, int]:
    """Return what the socket of a port is bound to, with the number of its protocol."""
    return _NUMBERS[record.protocol], record.host_ip, record.host_port


def bound_to(sock: socket.socket) -> tuple[int, str, int]:
    """Return what a socket is bound to, with the number of its protocol."""
    address, port = sock.getsockname()[:2]
    return sock.proto, str(ip_address(address)), port


def _routed(request: PortRequest, version: int) -> PortRecord:
    """Return a port that is reached at the container's own address."""
    return _record(request, ANY if version == 4 else ANY6, 0)


def _host_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def _has_host_port(record: PortRecord) -> bool:
    return record.host_port != 0


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _bind_all(records: Iterable[PortRecord], inside: dict[int, str]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for record in records:
            sock = _bind(record, inside[ip_address(record.host_ip).version])
            if sock is not None:
                sockets.append(sock)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


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
    family = _FAMILIES[record.version]
    try:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind_alone_or_beside(sock, (record.host_ip, record.host_port))
    except OSError as error:
        sock.close()
        cause = (error.strerror or str(error)).lower()
        if error.errno == errno.EADDRNOTAVAIL:
            cause = "cannot assign requested address"
        host, container = _shown(record.host_ip), _shown(address)
        ends = f"{host}:{record.host_port}:{container}:{record.container_port}"
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
