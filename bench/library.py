"""A run over one warm connection: create, wait, start, remove, as the library does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.accounts import Cost
from bench.engines import IMAGE

if TYPE_CHECKING:
    from bench.engines import Berth


class Library:
    """Two kept connections to the engine: one asks, one waits."""

    def __init__(self, engine: Berth) -> None:
        from berth.client.address import Address
        from berth.client.connection import Connection

        address = Address(f"unix://{engine.socket}", path=str(engine.socket))
        self._ask, self._wait = Connection(address), Connection(address)
        self._account = engine.account
        for connection in (self._ask, self._wait):  # both are there when the clock starts
            connection.request("GET", "/_ping").require().read()

    def run(self, network: str) -> Cost:
        """One container until its exit is known; its removal counts as CPU time only."""
        cpu, begin = self._account.used_s(), time.perf_counter()
        own = time.process_time()
        container = self._create(network, ["true"])
        self._wait.send("POST", f"/containers/{container}/wait", {"condition": "next-exit"})
        waiting = (
            self._wait.receive().require()
        )  # the engine waits: the end may come with the start
        self._ask.request("POST", f"/containers/{container}/start").require().read()
        code = waiting.document()["StatusCode"]
        wall = time.perf_counter() - begin
        self.remove(container)
        own = time.process_time() - own
        if code:
            raise RuntimeError(f"true ended with {code}")
        return Cost(wall, self._account.settled_s() - cpu + own)

    def start(self, network: str, command: list[str]) -> str:
        """Start a container and return its id."""
        container = self._create(network, command)
        self._ask.request("POST", f"/containers/{container}/start").require().read()
        return container

    def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        self._ask.request("DELETE", f"/containers/{container}", {"force": "1"}).require().read()

    def _create(self, network: str, command: list[str]) -> str:
        body = {"Image": IMAGE, "Cmd": command, "HostConfig": {"NetworkMode": network}}
        made = self._ask.request("POST", "/containers/create", body=body)
        return str(made.require().document()["Id"])

    def close(self) -> None:
        """Hang up."""
        self._ask.close()
        self._wait.close()
