"""Routes of containers that last as long as their client: logs, stats, attach, wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.parameters import detach_keys
from berth.api.router import Route
from berth.engine import status
from berth.errors import InvalidArgument
from berth.logs.entries import LogQuery
from berth.runtime.requests import Attachment

if TYPE_CHECKING:
    from berth.api.parameters import Call
    from berth.engine.engine import Engine


class StreamRoutes:
    """``/containers/{}/logs``, ``stats``, ``attach`` and ``wait``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/containers/{}/logs", self.logs, long=True),
            Route("GET", "/containers/{}/stats", self.stats, long=True),
            Route("POST", "/containers/{}/attach", self.attach),
            Route("POST", "/containers/{}/wait", self.wait, long=True),
        ]

    async def logs(self, call: Call) -> None:
        """Stream what the container wrote."""
        query = log_query(call)
        record = self._containers.find(call.name)
        chunks = self._engine.logs(record, query)
        call.exchange.begin(call.stream_type(terminal=record.config.tty))
        async for chunk in chunks:
            await call.exchange.write(chunk)
        await call.exchange.end()

    async def stats(self, call: Call) -> None:
        """Stream what the container uses, or answer it once."""
        stream = call.flag("stream", default=True)
        one_shot = call.flag("one-shot")
        if stream and one_shot:
            raise InvalidArgument("cannot have stream=true and one-shot=true")
        self._containers.find(call.name)
        call.exchange.begin()
        async for document in self._engine.stats(call.name, stream=stream, one_shot=one_shot):
            await call.exchange.write_document(document)
        await call.exchange.end()

    async def attach(self, call: Call) -> None:
        """Hand the connection to the container's monitor."""
        record = self._containers.find(call.name)
        status.require_attachable(record, call.name)
        keys = detach_keys(call.text("detachKeys"))
        terminal = record.config.tty
        fd, early = await call.exchange.upgrade(call.stream_type(terminal=terminal))
        attachment = Attachment(
            fd=fd,
            stdin=call.flag("stdin") and record.config.open_stdin,
            stdout=call.flag("stdout"),
            stderr=call.flag("stderr"),
            multiplexed=not terminal,
            detach_keys=keys,
            early=early,
        )
        await self._containers.attach(call.name, attachment)

    async def wait(self, call: Call) -> None:
        """Answer the head when the wait is registered, and the exit code when there is one."""

        def started() -> int:
            call.exchange.begin(close=True)
            return call.exchange.duplicate()

        condition = call.text("condition") or "not-running"
        code = await self._containers.wait(call.name, condition=condition, started=started)
        await call.exchange.write_document({"StatusCode": code})
        await call.exchange.end()


def log_query(call: Call) -> LogQuery:
    """Return what a client wants of a log."""
    tail = call.text("tail", "all")
    query = LogQuery(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        tail=int(tail) if tail.isdecimal() else None,
        since_ns=call.time_ns("since"),
        until_ns=call.time_ns("until"),
    )
    if not (query.stdout or query.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    return query
