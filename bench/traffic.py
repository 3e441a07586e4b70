"""Bytes and connections through the networks of engines: between containers, and by published ports."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from bench.accounts import Cost
from bench.engines import IMAGE, Berth, Dockerd, call
from berth.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.engines import Daemon
    from bench.measure import Bench

HOST, OUTSIDE = "198.18.78.1", "198.18.78.2"
PORT, PUBLISHED = 8000, 18_000
MANY = 50  # ports of one more container
MANY_PUBLISHED = 18_100
BETWEEN, BY_PORT = "between containers", "from outside by a published port"
BY_ONE_OF_MANY, FROM_HOST = f"from outside by one of {MANY} ports", "from the host by 127.0.0.1"
CHUNK = bytearray(1 << 20)
Place = tuple[str, tuple[str, int]]  # the namespace of a client, and where it connects to


def traffic(bench: Bench) -> None:
    """Measure berth and dockerd: the same sockets, in namespaces that each of them made."""
    mebibytes, connections = (64, 200) if bench.quick else (512, 2000)
    with contextlib.ExitStack() as undo:
        worlds = {
            engine.name: undo.enter_context(_world(engine))
            for engine in bench.of(Berth, Dockerd)
            if isinstance(engine, (Berth, Dockerd))
        }
        for name in (BETWEEN, BY_PORT, BY_ONE_OF_MANY, FROM_HOST):
            bench.compare(
                f"{mebibytes} MiB {name}",
                {e: lambda w=w, n=name: w(n, mebibytes, 0) for e, w in worlds.items()},
            )
            bench.compare(
                f"{connections} connections {name}",
                {e: lambda w=w, n=name: w(n, 0, connections) for e, w in worlds.items()},
            )


@contextlib.contextmanager
def _world(engine: Daemon) -> Iterator[Callable[[str, int, int], Cost]]:
    """Two servers and a client in containers of the default network, clients on the host and outside."""
    outside = f"bo{os.getpid()}{engine.name[:1]}"
    many = "-".join(str(MANY_PUBLISHED + i) for i in (0, MANY - 1))
    many += ":" + "-".join(str(PORT + i) for i in (0, MANY - 1))
    containers = [
        engine.ask("run", "-d", *engine.flags(), *flags, IMAGE, "sleep", "3600")
        for flags in (("-p", f"{PUBLISHED}:{PORT}"), (), ("-p", many))
    ]
    try:
        inside = [
            f"/proc/{engine.ask('inspect', '-f', '{{.State.Pid}}', c)}/ns/net" for c in containers
        ]
        form = "{{.NetworkSettings.IPAddress}}"
        address = engine.ask("inspect", "-f", form, containers[0])
        _join(engine, outside)
        one, other = PORT, PORT + MANY // 2
        places = {
            BETWEEN: (inside[1], (address, one)),
            BY_PORT: (f"/run/netns/{outside}", (HOST, PUBLISHED)),
            BY_ONE_OF_MANY: (f"/run/netns/{outside}", (HOST, MANY_PUBLISHED + other - PORT)),
            FROM_HOST: (f"/run/netns/{engine.netns}", ("127.0.0.1", PUBLISHED)),
        }
        with (
            within(inside[0], lambda: socket.create_server(("", one), backlog=512)) as server,
            within(inside[2], lambda: socket.create_server(("", other), backlog=512)) as second,
        ):
            servers = dict.fromkeys(places, server) | {BY_ONE_OF_MANY: second}
            yield lambda name, size, count: _measure(servers[name], places[name], size, count)
    finally:
        for container in containers:
            engine.ask("rm", "-f", container)
        with contextlib.suppress(RuntimeError):
            call("ip", "netns", "delete", outside)


def _join(engine: Daemon, outside: str) -> None:
    """Join the engine's host and a namespace outside of it."""
    call("ip", "netns", "add", outside)
    enter = (*engine.inside(), "ip")
    call(*enter, "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", outside)
    call(*enter, "addr", "add", f"{HOST}/30", "dev", outside)
    call(*enter, "link", "set", outside, "up")
    call("ip", "-n", outside, "addr", "add", f"{OUTSIDE}/30", "dev", "eth0")
    call("ip", "-n", outside, "link", "set", "eth0", "up")


def within(path: str, work: Callable[[], socket.socket]) -> socket.socket:
    """Make a socket in a network namespace."""
    found: list[socket.socket] = []

    def enter() -> None:
        fd = os.open(path, os.O_RDONLY)
        namespaces.setns(fd, namespaces.CLONE_NEWNET)
        os.close(fd)
        found.append(work())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


def _measure(server: socket.socket, place: Place, mebibytes: int, connections: int) -> Cost:
    path, target = place
    begin, used = time.perf_counter(), time.process_time()

    def work() -> socket.socket:
        client = socket.socket()
        for _ in range(connections):
            with socket.create_connection(target):
                server.accept()[0].close()
        if mebibytes:
            client.connect(target)
        return client

    with within(path, work) as client:
        if mebibytes:
            accepted, _ = server.accept()
            with accepted:
                _stream(client, accepted, mebibytes)
    return Cost(time.perf_counter() - begin, time.process_time() - used)


def _stream(client: socket.socket, accepted: socket.socket, mebibytes: int) -> None:
    def send() -> None:
        for _ in range(mebibytes):
            client.sendall(CHUNK)

    thread = threading.Thread(target=send)
    thread.start()
    missing, room = mebibytes << 20, bytearray(1 << 20)
    while missing:
        missing -= accepted.recv_into(room)
    thread.join()
