"""A host of a test's own: a network namespace with a neighbour, joined by a veth pair."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from types import SimpleNamespace

from berth.kernel import namespaces
from berth.network.records import EndpointRequest, PortRequest, SandboxRequest
from berth.network.service import NetworkService
from berth.state import State
from support.programs import find, run

HOST = "198.51.100.1"
OUTSIDE = "198.51.100.2"
HOST6, OUTSIDE6 = "2001:db8:51::1", "2001:db8:51::2"
TIMEOUT_S = 10.0
NAMES = SimpleNamespace(name="0123456789", bridge="berthtest0", table="berth-test")


def within(fd, work):
    """Call ``work`` in a network namespace; sockets it makes stay there."""
    found = []

    def enter():
        try:
            namespaces.setns(fd, namespaces.CLONE_NEWNET)
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    result, error = found[0]
    if error:
        raise error
    return result


class Neighbourhood:
    """Sockets in namespaces; all of them are closed at the end."""

    def __init__(self, outside_fd):
        self.host_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.outside_fd = outside_fd
        self._sockets = []

    def socket(self, fd, kind=socket.SOCK_STREAM, *, near=""):
        """Return a socket of the family of the address ``near``."""
        family = socket.AF_INET6 if ":" in near else socket.AF_INET
        sock = within(fd, lambda: socket.socket(family, kind))
        sock.settimeout(TIMEOUT_S)
        self._sockets.append(sock)
        return sock

    def raw(self, fd, protocol):
        """Return a socket for packets of a protocol that the kernel may not have."""
        sock = within(fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
        sock.settimeout(TIMEOUT_S)
        self._sockets.append(sock)
        return sock

    def listen(self, fd, port, address="0.0.0.0"):
        sock = self.socket(fd, near=address)
        sock.bind((address, port))
        sock.listen()
        return sock

    def talk(self, server, client_fd, address):
        """Connect, exchange a line each way, and return the address that the server saw."""
        client = self.socket(client_fd, near=address[0])
        client.connect(address)
        accepted, peer = server.accept()
        self._sockets.append(accepted)
        accepted.settimeout(TIMEOUT_S)
        client.sendall(b"question")
        assert accepted.recv(100) == b"question"
        accepted.sendall(b"answer")
        assert client.recv(100) == b"answer"
        return peer[0]

    def is_silent(self, client_fd, address):
        """Say whether a connection attempt gets no answer at all."""
        client = self.socket(client_fd, near=address[0])
        client.settimeout(0.4)
        try:
            client.connect(address)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def close(self):
        while self._sockets:
            self._sockets.pop().close()
        if self.host_fd >= 0:
            os.close(self.host_fd)
            self.host_fd = -1


def connect_neighbour(outside):
    """Join this namespace, the host's part, and ``outside`` by wan0 and lan0."""
    ip, peer = find("ip"), f"/proc/{os.getpid()}/fd/{outside}"
    run(ip, "link", "set", "lo", "up", check=True)
    run(
        ip, "link", "add", "wan0", "type", "veth", "peer", "name", "lan0", "netns", peer, check=True
    )
    run(ip, "addr", "add", f"{HOST}/24", "dev", "wan0", check=True)
    run(ip, "link", "set", "wan0", "up", check=True)
    run(ip, "addr", "add", f"{HOST6}/64", "dev", "wan0", "nodad", check=True)
    within(outside, lambda: run(ip, "addr", "add", f"{OUTSIDE}/24", "dev", "lan0", check=True))
    inside = ("dev", "lan0", "nodad")
    within(outside, lambda: run(ip, "addr", "add", f"{OUTSIDE6}/64", *inside, check=True))
    within(outside, lambda: run(ip, "link", "set", "lan0", "up", check=True))


def sandbox_request(container, endpoints=(), ports=()):
    """Ask for a container to be connected, to the default network unless said."""
    return SandboxRequest(
        container_id=container,
        container_name=container,
        endpoints=endpoints or (EndpointRequest(),),
        ports=ports,
    )


class Engine:
    """A network service with a loop of its own, driven step by step."""

    def __init__(self, path, spares, *, plan=None):
        self._plan = plan
        self._loop = asyncio.new_event_loop()
        self._path = path
        self._spares = spares
        self.service = None

    def run(self, work):
        return self._loop.run_until_complete(work)

    def connect(self, container, *ports, **options):
        """Connect a container by its name; ports are (container port, host port[, protocol[, host ip]])."""
        requests = tuple(
            PortRequest(
                container_port=a,
                host_port=b,
                **dict(zip(("protocol", "host_ip"), rest, strict=False)),
            )
            for a, b, *rest in ports
        )
        networks = options.pop("networks", [options.pop("network", "bridge")])
        endpoints = tuple(EndpointRequest(network=network, **options) for network in networks)
        return self.run(self.service.connect(sandbox_request(container, endpoints, requests)))

    def open(self, *running):
        self._state = State(self._path)
        self.service = NetworkService(
            state=self._state, names=NAMES, plan=self._plan, spares=self._spares
        )
        self.run(self.service.open(running))
        self.run(self._wait_stocked())

    async def _wait_stocked(self):
        shelves = self.service._base.stock._shelves.values()
        while any(len(shelf.spares) < self._spares for shelf in shelves):
            await asyncio.sleep(0.001)

    def close(self, **options):
        self.run(self.service.close(**options))
        self._state.close()
        self.service = None

    def finish(self):
        if self.service:
            self.close()
        self._loop.close()
