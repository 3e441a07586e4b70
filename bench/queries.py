"""Questions over a kept connection: the list of a hundred containers, /info, /_ping; `docker ps`; events."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from typing import TYPE_CHECKING

from bench.accounts import Cost
from bench.engines import IMAGE, Daemon, Podman

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Bench

# A question takes less than the clock's grain of a control group: a cost is the mean of several.
REPEATED = 20


class _Asking(http.client.HTTPConnection):
    """HTTP through a unix socket."""

    def __init__(self, engine: Daemon) -> None:
        super().__init__("localhost")
        self.engine = engine

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.engine.socket))

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Return the answer; RuntimeError for a refusal."""
        headers = {"Content-Type": "application/json"}
        self.request(method, path, json.dumps(body) if body else None, headers if body else {})
        with self.getresponse() as answer:
            data = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode(errors='replace')}")
        return data

    def cost(self, path: str) -> Cost:
        """Return what one answer costs the engine, and how long it takes."""
        used, begin = self.engine.account.used_s(), time.perf_counter()
        for _ in range(REPEATED):
            self.ask("GET", path)
        wall = time.perf_counter() - begin
        return Cost(wall / REPEATED, (self.engine.account.used_s() - used) / REPEATED)


class _Listening:
    """A stream of events, and a connection on which something happens."""

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking
        self._stream = _Asking(asking.engine)
        self._stream.request("GET", "/events?filters=%7B%22event%22%3A%5B%22rename%22%5D%7D")
        self._events = self._stream.getresponse()

    def cost(self, container: str) -> Cost:
        """Return how long it is from a change to the end of its event, and what both cost the engine."""
        account = self._asking.engine.account
        used, begin = account.used_s(), time.perf_counter()
        for number in range(REPEATED):
            self._asking.ask("POST", f"/containers/{container}/rename?name=renamed{number % 2}")
            self._events.readline()
        wall = time.perf_counter() - begin
        return Cost(wall / REPEATED, (account.used_s() - used) / REPEATED)

    def close(self) -> None:
        """End the stream."""
        self._stream.close()


def queries(bench: Bench) -> None:
    """Ask berth and dockerd; podman has no daemon to ask."""
    count = 10 if bench.quick else 100
    with contextlib.ExitStack() as undo:
        asking = {}
        for engine in bench.of(Daemon):
            connection = undo.enter_context(contextlib.closing(_Asking(engine)))
            asking[engine.name] = undo.enter_context(_filled(connection, count))
        for case, path in (
            (f"list of {count}", "/containers/json?all=1"),
            ("info", "/info"),
            ("ping", "/_ping"),
        ):
            bench.compare(case, {name: lambda c=c, p=path: c.cost(p) for name, c in asking.items()})
        bench.each(
            f"ps of {count}",
            lambda e: e.spawner.cost(e.command("ps", "-a")),
            [e for e in bench.engines if not isinstance(e, Podman)],
        )
        heard = {}
        for name, connection in asking.items():
            listening = undo.enter_context(contextlib.closing(_Listening(connection)))
            found = json.loads(connection.ask("GET", "/containers/json?all=1&limit=1"))[0]["Id"]
            heard[name] = lambda one=listening, c=found: one.cost(c)
        bench.compare("event", heard)


@contextlib.contextmanager
def _filled(connection: _Asking, count: int) -> Iterator[_Asking]:
    """Keep ``count`` created containers."""
    made: list[str] = []
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    try:
        made.extend(
            json.loads(connection.ask("POST", "/containers/create", body))["Id"]
            for _ in range(count)
        )
        connection.engine.account.settled_s()
        yield connection
    finally:
        for container in made:
            connection.ask("DELETE", f"/containers/{container}?force=1")
