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

    def run(self, network: str) -> Cost:
        """One container until its exit is known; its removal is not waited for."""
        body = {
            "Image": IMAGE,
            "Cmd": ["true"],
            "HostConfig": {"NetworkMode": network},
        }
        cpu, begin = self._account.used_s(), time.perf_counter()
        own = time.process_time()
        made = self._ask.request("POST", "/containers/create", body=body).document()
        container = made["Id"]
        self._wait.send("POST", f"/containers/{container}/wait", {"condition": "next-exit"})
        self._ask.request("POST", f"/containers/{container}/start").read()
        code = self._wait.receive().require().document()["StatusCode"]
        wall = time.perf_counter() - begin
        cpu = self._account.used_s() - cpu + time.process_time() - own
        self._ask.request("DELETE", f"/containers/{container}").read()
        if code:
            raise RuntimeError(f"true ended with {code}")
        return Cost(wall, cpu)

    def close(self) -> None:
        """Hang up."""
        self._ask.close()
        self._wait.close()
