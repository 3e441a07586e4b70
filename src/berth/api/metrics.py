"""`GET /metrics` on an address of its own: numbers only, and open to whoever can connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from berth.api.exchange import Exchange
    from berth.engine.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def handler_of(engine: Engine) -> Callable[[Exchange], Awaitable[None]]:
    """Return what answers requests there."""

    async def handle(exchange: Exchange) -> None:
        if (
            exchange.method not in ("GET", "HEAD")
            or exchange.target.partition("?")[0] != "/metrics"
        ):
            raise NotFound("page not found")
        await exchange.respond_bytes(200, engine.metrics().encode(), CONTENT_TYPE)

    return handle
