"""What the API asks of an engine: one protocol a noun. The engine's services satisfy these as they are.

References (``ref``) are what the client wrote: a full id, a unique prefix of one, or a name. Every
method raises the kinds of :mod:`berth.errors`, worded as Docker words them; the API maps kinds to
statuses in one place. Bodies are the structs of :mod:`berth.engine.models`, whose JSON names are Docker's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from berth.engine import models

# name → values, as `filters={"label": ["a=b"]}` says; the older {"label": {"a=b": true}} is normalised.
Filters = Mapping[str, Sequence[str]]


class Connection(Protocol):
    """A client's HTTP connection that a request wants to take over."""

    async def upgrade(self, *, multiplexed: bool) -> tuple[int, bytes]:
        """Answer 101 (or 200, as the client asked), leave HTTP and hand over the socket.

        Returns a duplicated descriptor, owned by the caller, and the bytes that came after the head.
        """
        ...

    def duplicate(self) -> int:
        """Return a duplicate of the socket for a monitor to answer on should berthd die meanwhile."""
        ...


class Progress(Protocol):
    """Receives a long operation's JSON messages (``status``, ``progressDetail``, ``id``, ``stream``…)."""

    def __call__(self, message: Mapping[str, object]) -> None:
        """Queue one message for the client; never blocks."""
        ...


class Containers(Protocol):
    """The lives of containers."""

    async def create(
        self,
        config: models.ContainerConfig,
        *,
        name: str | None,
        host_config: models.HostConfig,
        networking: models.NetworkingConfig,
        platform: str | None,
    ) -> models.CreatedContainer: ...
    async def start(self, ref: str) -> None: ...
    async def stop(self, ref: str, *, signal: str | None, timeout_s: int | None) -> None: ...
    async def restart(self, ref: str, *, signal: str | None, timeout_s: int | None) -> None: ...
    async def kill(self, ref: str, *, signal: str) -> None: ...
    async def pause(self, ref: str) -> None: ...
    async def unpause(self, ref: str) -> None: ...
    async def rename(self, ref: str, *, name: str) -> None: ...
    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None: ...
    async def wait(
        self, ref: str, *, condition: str, started: Callable[[], int | None]
    ) -> models.WaitResult:
        """Wait for ``not-running``, ``next-exit`` or ``removed``.

        ``started`` is called once, when the container is known to exist and the wait is registered: it
        sends the response head and returns a duplicate of the client's socket (or None), on which the
        monitor answers if berthd is gone when the container ends.
        """
        ...

    async def list(
        self, *, all: bool, limit: int | None, filters: Filters, size: bool
    ) -> list[models.ContainerSummary]: ...
    async def inspect(self, ref: str, *, size: bool) -> models.ContainerInspect: ...
    async def top(self, ref: str, *, ps_args: str) -> models.Top: ...
    def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[models.Stats]: ...
    async def logs(self, ref: str, *, options: models.LogOptions) -> AsyncIterator[bytes]:
        """Return the log as it goes to the client: multiplexed unless the container has a terminal."""
        ...

    async def is_terminal(self, ref: str) -> bool: ...
    async def attach(
        self, ref: str, *, options: models.AttachOptions, connection: Connection
    ) -> None: ...
    async def resize(self, ref: str, *, height: int, width: int) -> None: ...
    async def update(self, ref: str, *, update: models.UpdateConfig) -> list[str]: ...
    async def prune(self, *, filters: Filters) -> models.ContainersPruned: ...


class Execs(Protocol):
    """Extra processes in running containers."""

    async def create(self, ref: str, *, config: models.ExecConfig) -> str: ...
    async def start(
        self, exec_id: str, *, options: models.ExecStart, connection: Connection | None
    ) -> None:
        """Start it; with a connection, upgrade that and hand it to the monitor. Detached: None."""
        ...

    async def inspect(self, exec_id: str) -> models.ExecInspect: ...
    async def resize(self, exec_id: str, *, height: int, width: int) -> None: ...


class Images(Protocol):
    """Images by reference, id or id prefix."""

    async def list(self, *, all: bool, filters: Filters) -> list[models.ImageSummary]: ...
    async def inspect(self, ref: str) -> models.ImageInspect: ...
    async def history(self, ref: str) -> list[models.HistoryItem]: ...
    async def tag(self, ref: str, *, repository: str, tag: str) -> None: ...
    async def remove(self, ref: str, *, force: bool, prune: bool) -> list[models.ImageDeleted]: ...
    async def pull(
        self, reference: str, *, platform: str | None, auth: str | None, progress: Progress
    ) -> None: ...
    async def import_rootfs(
        self,
        body: AsyncIterator[bytes],
        *,
        reference: str | None,
        message: str,
        changes: Sequence[str],
        platform: str | None,
        progress: Progress,
    ) -> None: ...
    async def load(self, body: AsyncIterator[bytes], *, progress: Progress) -> None: ...
    async def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]:
        """Return a docker-archive that is an OCI layout as well."""
        ...

    async def prune(self, *, filters: Filters) -> models.ImagesPruned: ...


class Networks(Protocol):
    """Networks that containers connect to."""

    async def list(self, *, filters: Filters) -> list[models.NetworkResource]: ...
    async def inspect(self, ref: str) -> models.NetworkResource: ...
    async def create(self, config: models.NetworkCreate) -> models.NetworkCreated: ...
    async def remove(self, ref: str) -> None: ...


class Volumes(Protocol):
    """Named volumes."""

    async def list(self, *, filters: Filters) -> models.VolumeList: ...
    async def inspect(self, name: str) -> models.Volume: ...
    async def create(self, config: models.VolumeCreate) -> models.Volume: ...
    async def remove(self, name: str, *, force: bool) -> None: ...
    async def prune(self, *, filters: Filters) -> models.VolumesPruned: ...


class System(Protocol):
    """The engine itself."""

    async def info(self) -> models.SystemInfo: ...
    async def version(self) -> models.SystemVersion: ...
    async def disk_usage(self) -> models.DiskUsage: ...
    def events(
        self, *, since_ns: int | None, until_ns: int | None, filters: Filters
    ) -> AsyncIterator[models.Event]: ...


class Engine(Protocol):
    """The whole of it."""

    containers: Containers
    execs: Execs
    images: Images
    networks: Networks
    volumes: Volumes
    system: System
