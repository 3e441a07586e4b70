"""What a build's client lends by its session: secrets, agents of ssh, credentials of registries."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from berth.buildkit import messages
from berth.buildkit.sessions import ENDS, failure
from berth.errors import Failed
from berth.oci.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from google.protobuf.message import Message
    from grpclib.client import Stream

    from berth.buildkit.sessions import Session

SECRET = "moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - a method's name
CHECK_AGENT = "moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "moby.sshforward.v1.SSH/ForwardAgent"
CREDENTIALS = "moby.filesync.v1.Auth/Credentials"
HUB = "registry-1.docker.io"  # what clients know Docker Hub by
UPLOAD = "moby.upload.v1.Upload/Pull"
SOCKET = "agent"
READ_BYTES = 64 << 10
MAX_CALLERS = 16  # of one agent at once


class Lending:
    """One build's loans."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.folder: Path | None = None  # of the build, once there is one

    async def secret(self, id_: str) -> bytes | None:
        """Return a secret; None when the client has none of this id."""
        if not self._session.serves(SECRET):
            return None
        found = await self._session.ask(SECRET, "SecretRequest", "Secret", ID=id_)
        return None if found is None else bytes(found.data)

    async def credentials(self, server: str) -> str:
        """Return the credentials for a registry as X-Registry-Auth has them; "" for none."""
        if not self._session.serves(CREDENTIALS):
            return ""
        host = HUB if server == DEFAULT_DOMAIN else server
        found = await self._session.ask(CREDENTIALS, "CredentialsRequest", "Credentials", Host=host)
        if found is None or not found.Secret:
            return ""
        entry = {"serveraddress": server, "identitytoken": found.Secret}
        if found.Username:
            entry = {"serveraddress": server, "username": found.Username, "password": found.Secret}
        return encoded(entry)

    async def agent(self, id_: str) -> AbstractAsyncContextManager[Path] | None:
        """Give an agent's socket; None when the client has none of this id."""
        if not self._session.serves(FORWARD_AGENT):
            return None
        try:
            found = await self._session.ask(CHECK_AGENT, "AgentRequest", "Empty", ID=id_)
        except Failed:  # how clients say that
            found = None
        return None if found is None else self._agent(id_)

    @asynccontextmanager
    async def _agent(self, id_: str) -> AsyncIterator[Path]:
        assert self.folder is not None
        folder = self.folder / os.urandom(8).hex()
        folder.mkdir(mode=0o711)
        listener = listening(folder)
        callers: set[asyncio.Task[None] | None] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            try:
                if len(callers) < MAX_CALLERS:
                    callers.add(task)
                    with suppress(*ENDS):
                        await self._forward(id_, reader, writer)
            finally:
                callers.discard(task)
                writer.close()

        server = await asyncio.start_unix_server(connected, sock=listener)
        try:
            yield folder / SOCKET
        finally:
            server.close()
            for (
                task
            ) in callers:  # a connection can outlive the command, if somebody else was given it
                assert task is not None
                task.cancel()

    async def _forward(
        self, id_: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        metadata = [("buildkit.ssh.id", id_)]
        async with self._session.caller.open(
            FORWARD_AGENT, "Bytes", "Bytes", metadata=metadata
        ) as stream:
            await stream.send_request()
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_send(reader, stream))
                async for message in stream:
                    writer.write(message.data)
                    await writer.drain()
                sending.cancel()


async def _send(reader: asyncio.StreamReader, stream: Stream[Message, Message]) -> None:
    while data := await reader.read(READ_BYTES):
        await stream.send_message(messages.of("Bytes")(data=data))
    await stream.end()


def listening(folder: Path) -> socket.socket:
    """Return a listening socket in a directory, however long the path of that is."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{at}/{SOCKET}")
        listener.setblocking(False)
    finally:
        os.close(at)
    return listener


def encoded(entry: dict[str, str]) -> str:
    """Return credentials as X-Registry-Auth."""
    return base64.urlsafe_b64encode(msgspec.json.encode(entry)).decode()


async def pull_upload(session: Session, url: str) -> AsyncIterator[bytes]:
    """Yield what a client sends of its standard input."""
    host, _, path = url.partition("//")[2].partition("/")
    metadata = [("urlpath", f"/{path}"), ("urlhost", host)]
    try:
        async with session.caller.open(UPLOAD, "Bytes", "Bytes", metadata=metadata) as stream:
            await stream.send_request(end=True)
            async for message in stream:
                yield message.data
    except ENDS as error:
        raise failure(error) from error
