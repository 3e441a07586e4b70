"""berthd: the one place where the engine's parts are built and wired together."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import stat
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from berth.api.protocol import HttpConnection
from berth.api.routes import Router
from berth.engine import defaults, status
from berth.engine.background import Background
from berth.engine.containers import Containers
from berth.engine.engine import Engine
from berth.engine.events import Events
from berth.engine.execs import Execs
from berth.engine.instance import Instance
from berth.engine.services import Services
from berth.errors import Conflict, Forbidden, InvalidArgument
from berth.images import host
from berth.images.service import ImageService
from berth.kernel import cgroups
from berth.runtime.client import Runtime
from berth.state import State
from berth.volumes.service import VolumeService

log = logging.getLogger("berth")

SOCKET_MODE = 0o660
IDLE_CHECK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `berth serve` was told."""

    hosts: tuple[str, ...]
    data_root: Path
    exec_root: Path
    idle_exit_s: float | None = None  # leave when unused for so long and nothing runs
    ready_fd: int | None = None  # gets a byte when clients can connect


class Listeners:
    """The sockets, their connections, and when they were last used."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self.connections = 0

    def _connection(self) -> HttpConnection:
        self.connections += 1
        return HttpConnection(self._router.handle, self._on_close)

    def _on_close(self) -> None:
        self.connections -= 1

    async def open(self, host: str) -> None:
        """Listen on unix://PATH or tcp://HOST:PORT."""
        loop = asyncio.get_running_loop()
        kind, _, address = host.partition("://")
        if kind == "unix":
            path = Path(address)
            _clear_socket(path)
            server = await loop.create_unix_server(self._connection, path, backlog=1024)
            path.chmod(SOCKET_MODE)
            self._paths.append(path)
        elif kind == "tcp":
            name, _, port = address.rpartition(":")
            server = await loop.create_server(self._connection, name or "127.0.0.1", int(port))
        else:
            raise InvalidArgument(f"listen on {host!r}: use unix://PATH or tcp://HOST:PORT")
        self._servers.append(server)

    async def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)


def _clear_socket(path: Path) -> None:
    """Remove a socket nobody serves any more; Conflict when somebody does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise Conflict(f"listen on {path}: the file exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise Conflict(f"listen on {path}: another engine answers there")
    path.unlink()


def lock_data_root(data_root: Path) -> int:
    """Make this process the only writer; Conflict names the one that is."""
    fd = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode().strip()
        os.close(fd)
        raise Conflict(
            f"data root {data_root} is in use by the engine with process id {pid}"
        ) from None
    os.truncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


async def serve(options: Options) -> None:
    """Run an engine until a signal, or idleness, ends it. Containers go on."""
    if os.geteuid() != 0:
        raise Forbidden("start engine: root is needed; use sudo")
    os.umask(0o022)
    data_root, exec_root = options.data_root, options.exec_root
    for root in (data_root, exec_root):
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
    async with AsyncExitStack() as undo:
        undo.callback(os.close, lock_data_root(data_root))
        hidden = host.hidden_paths(data_root, exec_root)
        runtime = await Runtime.open(data_root=data_root, exec_root=exec_root, hidden=hidden)
        undo.push_async_callback(runtime.close)
        state = State(data_root / "state.db")
        undo.callback(state.close)
        background = Background()
        undo.push_async_callback(background.close)
        engine = await _build(options, runtime, state, background)
        listeners = Listeners(Router(engine))
        undo.push_async_callback(listeners.close)
        for address in options.hosts:
            await listeners.open(address)
        if options.ready_fd is not None:
            os.write(options.ready_fd, b"1")
            os.close(options.ready_fd)
        log.info("listening on %s", ", ".join(options.hosts))
        await _until_told(engine, listeners, options.idle_exit_s)


async def _build(
    options: Options, runtime: Runtime, state: State, background: Background
) -> Engine:
    instance = Instance.of(options.data_root)
    hierarchies = cgroups.detect()
    hierarchies.prepare_parent(f"{instance.cgroup}/std", defaults.device_rules())
    hierarchies.prepare_parent(f"{instance.cgroup}/dev", [])
    images = ImageService(state=state, data_root=options.data_root, runtime=runtime)
    await images.open()
    events = Events()
    volumes = VolumeService(state=state, data_root=options.data_root, runtime=runtime)
    volumes.clean()
    services = Services(
        state=state,
        data_root=options.data_root,
        exec_root=options.exec_root,
        instance=instance,
        runtime=runtime,
        images=images,
        volumes=volumes,
        hierarchies=hierarchies,
        events=events,
        background=background,
    )
    containers = Containers(services)
    execs = Execs(
        exec_root=options.exec_root, containers=containers, runtime=runtime, background=background
    )
    await containers.reconcile()
    return Engine(
        containers=containers,
        execs=execs,
        images=images,
        events=events,
        data_root=options.data_root,
    )


async def _until_told(engine: Engine, listeners: Listeners, idle_exit_s: float | None) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    idle_s = 0.0
    while not told.is_set():
        try:
            await asyncio.wait_for(told.wait(), IDLE_CHECK_S if idle_exit_s else None)
        except TimeoutError:
            alive = any(
                r.status in (*status.ALIVE, status.RESTARTING) for r in engine.containers.all()
            )
            idle_s = 0.0 if alive or listeners.connections else idle_s + IDLE_CHECK_S
            if idle_exit_s and idle_s >= idle_exit_s:
                log.info("nothing to do, leaving")
                return


def main(options: Options) -> None:
    """Run berthd in this process."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    asyncio.run(serve(options))
