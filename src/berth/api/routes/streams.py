"""Routes of containers that last as long as their client: logs, stats, attach, wait."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from berth.api.parameters import detach_keys
from berth.api.relay import Relay
from berth.api.router import Route
from berth.engine import status
from berth.errors import InvalidArgument
from berth.logs.entries import LogQuery
from berth.runtime.requests import Attachment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from berth.api.parameters import Call
    from berth.api.websocket import WebSocket
    from berth.engine.engine import Engine
    from berth.engine.models import ContainerRecord

STREAMS_CHOSEN_SINCE = (1, 42)


class StreamRoutes:
    """``/containers/{}/logs``, ``stats``, ``attach``, ``attach/ws`` and ``wait``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/containers/{}/logs", self.logs, long=True),
            Route("DELETE", "/containers/{}/logs", self.clear_logs),
            Route("GET", "/containers/{}/stats", self.stats, long=True),
            Route("POST", "/containers/{}/attach", self.attach),
            Route("GET", "/containers/{}/attach/ws", self.attach_websocket, long=True),
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

    async def clear_logs(self, call: Call) -> None:
        """Forget the log: an operation of berth's own."""
        await self._engine.clear_logs(call.name)
        await call.exchange.respond(204)

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
        """Replay the log if asked for, then hand the connection to the container's monitor."""
        record = self._containers.find(call.name)
        status.require_attachable(record, call.name)
        keys = detach_keys(call.text("detachKeys"))
        terminal = record.config.tty
        stdout, stderr = call.flag("stdout"), call.flag("stderr")
        fd, early = await call.exchange.upgrade(
            call.stream_type(terminal=terminal),
            ahead=self._replay(call, record, stdout=stdout, stderr=stderr, raw=terminal),
        )
        if not call.flag("stream"):
            hang_up(fd)
            return
        attachment = Attachment(
            fd=fd,
            stdin=call.flag("stdin") and record.config.open_stdin,
            stdout=stdout,
            stderr=stderr,
            multiplexed=not terminal,
            detach_keys=keys,
            early=early,
        )
        await self._containers.attach(record.id, attachment)

    def _replay(
        self, call: Call, record: ContainerRecord, *, stdout: bool, stderr: bool, raw: bool
    ) -> AsyncIterator[bytes] | None:
        if not call.flag("logs"):
            return None
        return self._engine.logs(record, LogQuery(stdout=stdout, stderr=stderr), raw=raw)

    async def attach_websocket(self, call: Call) -> None:
        """Attach by WebSocket: messages carry the streams unframed. berthd relays them."""
        # Not before it is needed: what it imports is a megabyte.
        from berth.api.websocket import WebSocket

        record = self._containers.find(call.name)
        status.require_attachable(record, call.name)
        keys = detach_keys(call.text("detachKeys"))
        # Older clients could not choose the streams.
        chosen = call.version >= STREAMS_CHOSEN_SINCE
        stdout, stderr = (not chosen or call.flag(name) for name in ("stdout", "stderr"))
        ws = WebSocket(call.exchange)
        replay = self._replay(call, record, stdout=stdout, stderr=stderr, raw=True)
        inner, handed_out = socket.socketpair()

        async def attach() -> None:
            if not call.flag("stream"):
                handed_out.close()
                return
            attachment = Attachment(
                fd=handed_out.detach(),
                stdin=(not chosen or call.flag("stdin")) and record.config.open_stdin,
                stdout=stdout,
                stderr=stderr,
                multiplexed=False,
                detach_keys=keys,
            )
            await self._containers.attach(record.id, attachment)

        with contextlib.ExitStack() as ends:
            for end in (inner, handed_out):
                ends.callback(end.close)
            if replay is None:
                await attach()  # before the answer, whose reader is to miss nothing
            fd, early = await call.exchange.switch(ws.head, wrapped(ws, replay))
            outer = ends.enter_context(socket.socket(fileno=fd))
            if replay is not None:
                await attach()
            for sock in (outer, inner):
                sock.setblocking(False)
            await Relay(outer, inner, ws).run(early)

    async def wait(self, call: Call) -> None:
        """Answer the head when the wait is registered, and the exit code when there is one."""

        def started() -> int:
            call.exchange.begin(close=True)
            return call.exchange.duplicate()

        condition = call.text("condition") or "not-running"
        code = await self._containers.wait(call.name, condition=condition, started=started)
        await call.exchange.end({"StatusCode": code})


def hang_up(fd: int) -> None:
    """Close a connection that was taken out of HTTP."""
    with socket.socket(fileno=fd) as sock:
        sock.shutdown(socket.SHUT_WR)


async def wrapped(ws: WebSocket, replay: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    """Yield a log as messages of a WebSocket."""
    if replay is not None:
        async for chunk in replay:
            ws.send(chunk)
            yield ws.outgoing()


def log_query(call: Call) -> LogQuery:
    """Return what a client wants of a log."""
    tail = call.text("tail", "all")
    query = LogQuery(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        follow=call.flag("follow"),
        joined=not call.flag("follow"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        tail=int(tail) if tail.isdecimal() else None,
        since_ns=call.time_ns("since"),
        until_ns=call.time_ns("until"),
    )
    if not (query.stdout or query.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    return query
