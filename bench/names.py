"""Questions for a neighbour's name, asked one after the other inside a container."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from bench.accounts import Cost
from bench.engines import IMAGE, Berth, Daemon, Dockerd
from bench.traffic import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Bench

COUNT = 1000
CASE = f"{COUNT} questions for a name"
NETWORK, SERVER = "bench-names", "bench-server"
RESOLVER = ("127.0.0.11", 53)
QUESTION = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + bytes((len(SERVER),)) + SERVER.encode() + b"\0\0\1\0\1"


def names(bench: Bench) -> None:
    """Measure berth and dockerd; podman's server is a program of its own."""
    with contextlib.ExitStack() as undo:
        asking = {
            engine.name: undo.enter_context(_asking(engine))
            for engine in bench.of(Berth, Dockerd)
            if isinstance(engine, Daemon)
        }
        bench.compare(CASE, asking)


@contextlib.contextmanager
def _asking(engine: Daemon) -> Iterator[Callable[[], Cost]]:
    engine.ask("network", "create", NETWORK)
    network = ("--network", NETWORK)
    containers = [
        engine.ask("run", "-d", *engine.flags(), *network, *flags, IMAGE, "sleep", "3600")
        for flags in (("--name", SERVER), ())
    ]
    try:
        pid = engine.ask("inspect", "-f", "{{.State.Pid}}", containers[1])
        with within(
            f"/proc/{pid}/ns/net", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ) as sock:
            sock.settimeout(5)
            sock.connect(RESOLVER)
            yield lambda: _cost(engine, sock)
    finally:
        for container in containers:
            engine.ask("rm", "-f", container)
        engine.ask("network", "rm", NETWORK)


def _cost(engine: Daemon, sock: socket.socket) -> Cost:
    used, own, begin = engine.account.used_s(), time.process_time(), time.perf_counter()
    for _ in range(COUNT):
        sock.send(QUESTION)
        answer = sock.recv(500)
        if answer[3] & 0xF or len(answer) <= len(QUESTION):
            raise RuntimeError(f"{engine.name} does not know {SERVER}")
    wall = time.perf_counter() - begin
    client = time.process_time() - own
    return Cost(wall, engine.account.used_s() - used + client, client)
