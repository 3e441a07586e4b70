"""The files of containers: looked at, taken out, put in, compared, by workers inside their roots."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import msgspec

from berth.engine import hostfiles, imagemounts, mountpoints, pipes, status
from berth.errors import Failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from berth.engine.containers import Containers
    from berth.engine.models import ContainerRecord
    from berth.engine.services import Services
    from berth.runtime.jobs import Job
    from berth.runtime.requests import Tree

    Document = dict[str, object]

INSPECT = "berth.files.archives:inspect"
USER = "berth.files.archives:find_user"
READ = "berth.files.archives:read"
WRITE = "berth.files.archives:write"
EXPORT = "berth.files.archives:export"
LAYER = "berth.files.differences:layer"
COMPARE = "berth.files.differences:compare"


class WrittenLayer(msgspec.Struct, frozen=True):
    """A layer that was written: the digest and size of its tar, the bytes in its files.

    ``is_stripped``: the container's upper directory is its files now, and nobody can change them.
    """

    digest: str
    size: int
    files: int
    is_stripped: bool = False


class Files:
    """Every container's files."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._containers = containers

    async def inspect(self, ref: str, path: str) -> Mapping[str, object]:
        """Return what ``path`` in a container is: name, size, mode (Go's), mtime_ns, linkTarget."""
        record = self._containers.find(ref)
        async with (
            self._root(record) as (argument, fds),
            self._job(INSPECT, {**argument, "path": path, "name": ref}, fds) as job,
        ):
            return await job.result()

    async def find_user(self, ref: str, user: str) -> None:
        """Refuse a user that a running container does not know."""
        record = self._containers.find(ref)
        async with (
            self._root(record) as (argument, fds),
            self._job(USER, {**argument, "user": user}, fds) as job,
        ):
            await job.result()

    @asynccontextmanager
    async def read(
        self, ref: str, path: str
    ) -> AsyncIterator[tuple[Mapping[str, object], AsyncIterator[bytes]]]:
        """Give what ``path`` is and an archive of it, while the context lasts."""
        record = self._containers.find(ref)
        async with self._root(record) as (argument, fds):
            wanted = {**argument, "path": path, "name": ref}
            async with self._stream(READ, wanted, fds) as (first, chunks):
                self._containers.emit(record, "archive-path")
                found = first["stat"]
                assert isinstance(found, dict)
                yield found, chunks

    @asynccontextmanager
    async def export(self, ref: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give an archive of a container's own root, while the context lasts."""
        record = self._containers.find(ref)
        async with (
            self._root(record, bare=True) as (argument, fds),
            self._stream(EXPORT, argument, fds) as (_, chunks),
        ):
            self._containers.emit(record, "export")
            yield chunks

    @asynccontextmanager
    async def export_root(self, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give an archive of a root of the store's that is no container's, while the context lasts."""
        rootfs = self._services.images.rootfs(key)
        argument: Document = {"running": False, "rootfs": rootfs.document(), "trees": []}
        async with self._stream(EXPORT, argument, []) as (_, chunks):
            yield chunks

    async def write(
        self, ref: str, path: str, body: AsyncIterator[bytes], *, keeps: bool, owned: bool
    ) -> None:
        """Extract an archive into the directory ``path``.

        ``keeps``: no file becomes a directory or the other way round. ``owned``: everything becomes the
        container's user's.
        """
        record = self._containers.find(ref)
        async with self._root(record) as (argument, fds):
            wanted: Document = {
                **argument,
                "path": path,
                "name": ref,
                "keeps": keeps,
                "user": record.config.user if owned else "",
                "volumes": [[p.target, p.read_only] for p in record.mount_points],
                "read_only": record.host_config.readonly_rootfs,
            }
            reading, writing = pipes.make()
            try:
                async with self._job(WRITE, wanted, [*fds, reading]) as job:
                    os.close(reading)
                    reading = -1
                    await job.first()  # it is ready to extract
                    await pipes.write(writing, body)
                    os.close(writing)
                    writing = -1
                    await job.result()
            finally:
                _close(reading, writing)
        self._containers.emit(record, "extract-to-dir")

    async def changes(self, ref: str) -> AsyncIterator[tuple[str, str]]:
        """Yield what a container has changed, by path: (C, A or D, path as far as it is UTF-8)."""
        record = self._containers.find(ref)
        argument: Document = {"rootfs": self._services.images.rootfs(record.id).document()}
        rest = b""
        async with self._stream(COMPARE, argument, []) as (_, chunks):
            async for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\0")
                for entry in whole:
                    yield chr(entry[0]), entry[1:].decode(errors="replace")

    async def layer(
        self,
        id_: str,
        path: Path,
        *,
        strip: bool = False,
        targets: Sequence[str] = (),
        latest_ns: int | None = None,
    ) -> WrittenLayer:
        """Write what a container has changed as an image's layer to a new file.

        ``strip``: its upper directory becomes the layer's files, unless somebody has it still. ``targets``:
        where something was mounted, for which places may have been made. ``latest_ns``: no file is said to
        be younger.
        """
        rootfs = self._services.images.rootfs(id_)
        argument: Document = {
            "rootfs": rootfs.document(),
            "strips": strip,
            "targets": list(targets),
            "latest_ns": latest_ns,
        }
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with self._job(LAYER, argument, [fd]) as job:
                return msgspec.convert(await job.result(), WrittenLayer)
        finally:
            os.close(fd)

    # Into roots

    @asynccontextmanager
    async def _root(
        self, record: ContainerRecord, *, bare: bool = False
    ) -> AsyncIterator[tuple[Document, list[int]]]:
        """Give what a worker needs to enter a container's root; one that does not run cannot start meanwhile.

        ``bare``: without what comes from the host.
        """
        if record.status in status.ALIVE:
            with self._namespaces(record) as fds:
                yield {"running": True}, fds
            return
        async with self._containers.hold(record):
            if record.status in status.ALIVE:  # it was just being started
                with self._namespaces(record) as fds:
                    yield {"running": True}, fds
                return
            images = self._services.images
            if bare:
                rootfs = images.rootfs(record.id)
                yield {"running": False, "rootfs": rootfs.document(), "trees": []}, []
                return
            argument: Document = {
                "running": False,
                "rootfs": imagemounts.rootfs(record, images).document(),
            }
            async with self._trees(record) as trees:
                argument["trees"] = [tree.document() for tree in trees]
                yield argument, [tree.fd for tree in trees]

    @asynccontextmanager
    async def _trees(self, record: ContainerRecord) -> AsyncIterator[tuple[Tree, ...]]:
        """Open what comes from the host; the container's own files are there after its first start."""
        folder = self._containers.data_folder(record)
        if not (folder / hostfiles.RESOLV_CONF).exists():
            gateways = self._services.settings.now.host_gateway_ips
            hostfiles.write(folder, record, host_gateways=gateways)
        volumes, user = self._services.volumes, f"files of {record.id}"
        trees: tuple[Tree, ...] = ()
        try:
            await volumes.hold(mountpoints.volumes(record), user)
            added = self._services.cdi.edits(record.host_config)
            trees = hostfiles.open_trees(folder, record, added)
            yield trees
        finally:
            for tree in trees:
                os.close(tree.fd)
            await volumes.release(user)

    @contextmanager
    def _namespaces(self, record: ContainerRecord) -> Iterator[list[int]]:
        """Open the mount namespace of a running container, and its user namespace if it has one."""
        task = self._containers.task(record)
        fds: list[int] = []
        kinds = ("mnt", "user") if record.id_maps is not None else ("mnt",)
        try:
            for kind in kinds:
                try:
                    fds.append(task.open_file(f"ns/{kind}"))
                except OSError as error:  # it has ended, and others may have its id
                    raise Failed(f"container {record.id} is not running") from error
            yield fds
        finally:
            _close(*fds)

    # Workers

    @asynccontextmanager
    async def _job(self, entry: str, argument: Document, fds: list[int]) -> AsyncIterator[Job]:
        """Start a worker, which ends with the context."""
        job = await self._services.runtime.run_job(entry, argument, fds=fds, template=True)
        try:
            yield job
        finally:
            await job.end()

    @asynccontextmanager
    async def _stream(
        self, entry: str, argument: Document, fds: list[int]
    ) -> AsyncIterator[tuple[Mapping[str, object], AsyncIterator[bytes]]]:
        """Start a worker that writes to a pipe; give what it reports first, and what it writes.

        The end of what it writes raises what went wrong.
        """
        reading, writing = pipes.make()
        try:
            async with self._job(entry, argument, [*fds, writing]) as job:
                os.close(writing)
                writing = -1
                first = await job.first()

                async def chunks() -> AsyncIterator[bytes]:
                    async for chunk in pipes.read(reading):
                        yield chunk
                    await job.result()

                yield first, chunks()
        finally:
            _close(reading, writing)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
