"""The sockets an engine listens on: made here, or passed by systemd."""

from __future__ import annotations

import grp
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from berth.configuration.checks import plain_tcp
from berth.errors import Conflict, Failed, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_MODE = 0o660
SOCKET_GROUP = "docker"
BACKLOG = 1024
TCP_PORT, TLS_PORT = "2375", "2376"  # as Docker's
FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def unix_socket(path: Path, group: str | None) -> socket.socket:
    """Listen on a socket file for its owner and group; one that nobody serves is replaced."""
    gid = group_id(group)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~SOCKET_MODE)  # so that the file never has another mode
    try:
        sock.bind(str(path))
        os.chown(path, -1, gid)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Failed(f"listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return sock


def clear(path: Path) -> None:
    """Make the name free: remove a socket that nobody serves; Conflict for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"listen on {path}: the file exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise Conflict(f"listen on {path}: another engine answers there")
    path.unlink(missing_ok=True)


def group_id(group: str | None) -> int:
    """Return the id of the group that may use the socket: a name or a number; None is "docker", if known."""
    if group == "":
        return -1
    try:
        return (
            int(group)
            if group and group.isdecimal()
            else grp.getgrnam(group or SOCKET_GROUP).gr_gid
        )
    except KeyError:
        if group is None:
            return -1
        raise InvalidArgument(f"group {group} not found") from None


def tcp_sockets(address: str, *, default_port: str = TCP_PORT) -> list[socket.socket]:
    """Listen on HOST[:PORT]; an empty host is this machine only."""
    name, colon, port = address.rstrip("/").rpartition(":")
    if not colon or port.endswith("]"):
        name, port = address.rstrip("/"), default_port
    if not port.isdecimal():
        raise InvalidArgument(f"listen on tcp://{address}: invalid port {port!r}")
    host = name.strip("[]") or "127.0.0.1"
    found = []
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, kind, protocol)
            found.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in found:
            sock.close()
        raise Failed(f"listen on tcp://{address}: {error.strerror or error}") from error
    return found


def passed_sockets(wanted: str, *, local_only: bool) -> list[socket.socket]:
    """Return listening sockets that systemd passed (sd_listen_fds(3)).

    ``wanted`` is the name or number of one; empty or "*" means all. InvalidArgument: one is no unix
    socket, with ``local_only``.
    """
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or count == "0":
        raise InvalidArgument(f"listen on fd://{wanted}: no sockets were passed to this process")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)):
        index = fd - FIRST_PASSED_FD
        called = (str(fd), *names[index : index + 1])
        if wanted in ("", "*") or wanted in called:
            os.set_inheritable(fd, False)
            found.append(socket.socket(fileno=os.dup(fd)))
    if not found:
        raise InvalidArgument(f"listen on fd://{wanted}: no such socket was passed")
    if local_only and any(sock.family != socket.AF_UNIX for sock in found):
        for sock in found:
            sock.close()
        raise plain_tcp(f"fd://{wanted}")
    return found


def tell_systemd() -> None:
    """Say that clients can connect, to a systemd that wants to know (sd_notify(3), Type=notify)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
            sock.sendto(b"READY=1", path.replace("@", "\0", 1) if path[0] == "@" else path)
