"""RUN: a container on the image so far, its output to the client, its changes as a layer."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from berth.builds import leftovers
from berth.builds.layers import Layer
from berth.builds.output import CommandFailed, Frames
from berth.engine import admission, pipes
from berth.engine.life import NOTHING_LENT, Loan
from berth.engine.models import ContainerConfig, Healthcheck, HostConfig, LogConfig
from berth.errors import NotFound
from berth.runtime.requests import Attachment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from berth.builds.leftovers import Leftovers
    from berth.builds.output import Output
    from berth.builds.requests import BuildRequest
    from berth.engine.containers import Containers
    from berth.engine.files import Files
    from berth.engine.models import ContainerRecord
    from berth.engine.services import Services
    from berth.images.records import Image
    from berth.oci.image import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One instruction's container."""

    image: Image
    config: ImageConfig
    words: Sequence[str]
    arguments: Mapping[str, str]
    network: str = ""
    hostname: str = ""
    env: Sequence[str] = ()  # beside what the image will have
    loan: Loan = NOTHING_LENT
    targets: Sequence[str] = ()  # where something is mounted
    latest_ns: int | None = None  # no file is said to be younger


class Runs:
    """Runs commands for builds."""

    def __init__(
        self, services: Services, containers: Containers, files: Files, notes: Leftovers
    ) -> None:
        self._services = services
        self._images = services.images
        self._containers = containers
        self._files = files
        self._notes = notes

    @asynccontextmanager
    async def run(self, run: Run, request: BuildRequest, output: Output) -> AsyncIterator[Layer]:
        """Run a command to its end; give what it changed as a layer. CommandFailed: it failed."""
        name = self._notes.note(leftovers.CONTAINER)
        path = self._images.content.temporary()
        removes, done, record = request.remove or request.always_remove, False, None
        strips = removes and self._images.derived.has_layers_as_made and run.latest_ns is None
        try:
            record = await self._create(name, run, request)
            await output.container(record.id)
            await self._run(record, run, output)
            done = True
            found = await self._files.layer(
                record.id,
                path,
                strip=strips,
                targets=run.targets,
                latest_ns=run.latest_ns,
            )
            with ExitStack() as undo:
                tree = None
                if found.is_stripped:
                    tree = undo.enter_context(self._images.derived.detached(record.id, found.files))
                if removes:
                    await self._remove(record)
                    await output.removed(record.id)
                yield Layer(path=path, digest=found.digest, size=found.size, tree=tree)
        except CommandFailed:
            done = True
            raise
        finally:
            path.unlink(missing_ok=True)
            if record is not None and (not done or request.always_remove):
                await self._remove(record)
            self._notes.forget(name)

    async def _create(self, name: str, run: Run, request: BuildRequest) -> ContainerRecord:
        own = run.config
        config = ContainerConfig(
            image=run.image.id,
            hostname=run.hostname,
            cmd=list(run.words),
            entrypoint=[],
            env=[
                *(own.env or ()),
                *(f"{key}={value}" for key, value in run.arguments.items()),
                *run.env,
            ],
            user=own.user,
            working_dir=own.working_dir,
            labels=own.labels,
            shell=own.shell,
            volumes=own.volumes,
            stop_signal=own.stop_signal,
            healthcheck=Healthcheck(test=["NONE"]),
            attach_stdout=True,
            attach_stderr=True,
        )
        host = msgspec.convert(msgspec.to_builtins(request.host), HostConfig)
        host.network_mode = run.network or host.network_mode
        host.log_config = LogConfig(type="none")
        admission.admit(config, host, self._services.support)
        return await self._containers.create(config, name=name, host_config=host, loan=run.loan)

    async def _run(self, record: ContainerRecord, run: Run, output: Output) -> None:
        ours, theirs = socket.socketpair()
        attachment = Attachment(
            fd=theirs.detach(),
            stdin=False,
            stdout=True,
            stderr=True,
            multiplexed=True,
            detach_keys=b"",
            early=b"",
        )
        ended = self._containers.ended(record)  # of this run
        with ours:
            await self._containers.attach(record.id, attachment)
            await self._containers.start(record.id)
            self._containers.take_back(record)
            frames = Frames()
            async for data in pipes.read(ours.fileno()):
                for is_stderr, piece in frames.feed(data):
                    await output.wrote(piece, stderr=is_stderr)
            await ended.wait()
        if record.exit_code:
            raise CommandFailed(" ".join(run.words), record.exit_code)

    async def _remove(self, record: ContainerRecord) -> None:
        try:
            await self._containers.remove(record.id, force=True, volumes=True)
        except NotFound:
            return


def write_document(folder: Path, name: str, text: str, *, mode: int) -> Path:
    """Write a here-document into a new file of a directory of the build's own."""
    path = folder / name
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags), "w", encoding="utf-8") as stream:
        stream.write(text)
    path.chmod(mode)
    return path
