"""Sessions: connections over which a build's client serves what it lends to the build."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from berth.buildkit.grpc import Caller
from berth.errors import BerthError, Conflict, Failed, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from google.protobuf.message import Message

# A build may ask for a session that is just about to be opened.
WAIT_S = 10.0
GONE = "the build's client is gone"
LOST = (StreamTerminatedError, OSError)
ENDS = (GRPCError, *LOST, ExceptionGroup)  # of a call


class Session:
    """One client's side."""

    def __init__(self, caller: Caller, methods: Iterable[str]) -> None:
        self.caller = caller
        self._methods = frozenset(method.lower() for method in methods)

    def serves(self, method: str) -> bool:
        """Say whether the client serves a method, ``package.Service/Method``."""
        return f"/{method}".lower() in self._methods

    async def ask(self, method: str, request: str, answer: str, **fields: object) -> Message | None:
        """Ask once; None when the client has no such thing."""
        try:
            return await self.caller.ask(method, request, answer, **fields)
        except GRPCError as error:
            if error.status in (Status.NOT_FOUND, Status.UNIMPLEMENTED):
                return None
            raise failure(error) from error
        except LOST as error:
            raise failure(error) from error


def failure(error: Exception) -> BerthError:
    """Return what ended a call as an error of ours: what the other side says, or that it is gone."""
    if isinstance(error, ExceptionGroup):
        return failure(error.exceptions[0])
    if isinstance(error, BerthError):
        return error
    if isinstance(error, GRPCError):
        return Failed(error.message or error.status.name.lower().replace("_", " "))
    if isinstance(error, LOST):
        return Unavailable(GONE)
    raise error


class Sessions:
    """The sessions of an engine."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._opened = asyncio.Condition()

    async def serve(
        self, id_: str, methods: Iterable[str], sock: socket.socket, early: bytes
    ) -> None:
        """Keep a session until its client hangs up. Who knows its id may use it: it has to have one."""
        if not id_:
            sock.close()
            raise InvalidArgument("a session needs an id")
        caller = await Caller.on(sock, early)
        session = Session(caller, methods)
        if self._sessions.setdefault(id_, session) is not session:
            caller.close()
            raise Conflict(f"session {id_} already exists")
        try:
            async with self._opened:
                self._opened.notify_all()
            await caller.wait_gone()
        finally:
            del self._sessions[id_]
            caller.close()

    async def find(self, id_: str) -> Session:
        """Return a session; wait a while for one that is not there yet."""
        if not id_:
            raise InvalidArgument(
                "BuildKit asks its client for files: a build needs a session",
                hint="build with docker's CLI, or without version=2",
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S), self._opened:
                await self._opened.wait_for(lambda: id_ in self._sessions)
        if id_ not in self._sessions:
            raise NotFound(f"no active session for {id_}")
        return self._sessions[id_]
