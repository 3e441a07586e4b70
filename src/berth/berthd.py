"""berthd: the one place where the engine's parts are built and wired together."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.api import listeners, metrics
from berth.api.router import Router
from berth.api.routes.table import routes_of
from berth.api.server import Server
from berth.buildkit.service import BuildKit
from berth.builds.service import Builds
from berth.configuration import checks, subordinate
from berth.configuration.settings import Held, Settings
from berth.engine import defaults, identity, spec, status, support
from berth.engine.background import Background
from berth.engine.cdi import Registry
from berth.engine.containers import Containers
from berth.engine.engine import Engine
from berth.engine.events import Events
from berth.engine.execs import Execs
from berth.engine.health import Health
from berth.engine.instance import Instance
from berth.engine.metrics import Metrics
from berth.engine.services import Services
from berth.errors import BerthError, Conflict, Failed, Unsupported
from berth.images import host
from berth.images.service import ImageService
from berth.kernel import cgroups, processes
from berth.network.ipam import Plan
from berth.network.service import NetworkService
from berth.registry.begun import BegunUploads
from berth.registry.client import RegistryClient
from berth.runtime.client import Runtime
from berth.snapshots import limits
from berth.snapshots.choice import check_id_maps, open_snapshots
from berth.state import State
from berth.volumes.service import VolumeService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from berth.configuration.subordinate import IdMaps
    from berth.kernel.cgroups import Hierarchies


log = logging.getLogger("berth")

# Requests leave hardly any cycles (asyncio's: one a connection), and by default a tenth of the time goes into
# looking for them.
GC_THRESHOLD = 2_000
IDLE_CHECKS = 10  # in the time after which an idle engine leaves
ROOT_MODE = 0o711
UMASK = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `berth serve` was told."""

    settings: Settings
    reread: Callable[[], Settings]  # the same flags and file once more, for SIGHUP
    hosts: tuple[str, ...]
    data_root: Path
    exec_root: Path
    network_spares: int = 2  # network namespaces of each common kind that are kept ready
    idle_exit_s: float | None = None  # leave when unused for so long and nothing runs
    ready_fd: int | None = None  # gets a byte when clients can connect


class LineFormatter(logging.Formatter):
    """One line a record, also for tracebacks: what reads logs reads lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime
        self.datefmt = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; line ends in it are written as two characters."""
        return super().format(record).replace("\n", "\\n")


def lock_data_root(data_root: Path) -> int:
    """Make this process the only writer; Conflict names the one that is."""
    fd = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 32, 0).decode().strip()
        os.close(fd)
        raise Conflict(
            f"data root {data_root} is in use by the engine with process id {pid}",
            hint="stop that one, or choose another --data-root and --exec-root",
        ) from None
    os.truncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def make_roots(*roots: Path) -> None:
    """Make the directories that everything is under."""
    for root in roots:
        try:
            root.mkdir(mode=ROOT_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise Failed(f"make directory {root}: {error.strerror}") from error


async def serve(options: Options) -> None:
    """Run an engine until a signal, or idleness, ends it. Containers go on."""
    os.umask(UMASK)
    data_root, exec_root = options.data_root, options.exec_root
    id_maps = subordinate.resolve(options.settings.userns_remap)
    make_roots(data_root, exec_root)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with AsyncExitStack() as undo:
        undo.callback(os.close, lock_data_root(data_root))
        undo.callback(identity.hold(Instance.of(data_root), data_root).close)
        # Before anything is made: an engine that nobody could reach leaves nothing on the host.
        server, numbers = Server(), Server()
        undo.callback(server.close)
        undo.callback(numbers.close)
        await _listen(server, numbers, options)
        hidden = host.hidden_paths(data_root, exec_root)
        hierarchies = cgroups.detect()
        runtime = await Runtime.open(
            data_root=data_root,
            exec_root=exec_root,
            hidden=hidden,
            descriptors=processes.raise_descriptor_limit(),
            hierarchies=hierarchies,
            defaults=spec.default(Instance.of(data_root).cgroup, ahead=id_maps is None),
        )
        undo.push_async_callback(runtime.close)
        state = State(data_root / "state.db")
        undo.callback(state.close)
        background = Background()
        undo.push_async_callback(background.close)
        engine, builds, buildkit = await _build(
            options, hierarchies, runtime, state, background, id_maps
        )
        undo.push_async_callback(engine.close)
        undo.push_async_callback(buildkit.close)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, reload, engine, options)
        await undo.enter_async_context(numbers.serving(metrics.handler_of(engine)))
        handle = Router(routes_of(engine, builds, buildkit)).handle
        await undo.enter_async_context(server.serving(handle))
        _say_ready(options)
        await _until_told(told, engine, server, options.idle_exit_s)


async def _listen(server: Server, numbers: Server, options: Options) -> None:
    settings, tls = options.settings, None
    if settings.uses_tls:
        from berth.api.tls import server_context

        ca = settings.tlscacert if settings.tlsverify else None
        tls = server_context(cert=settings.tlscert, key=settings.tlskey, ca=ca)
    for address in options.hosts:
        await server.listen(
            address, group=settings.group, tls=tls, local_only=not settings.allows_tcp
        )
    if settings.metrics_addr:
        await numbers.listen(f"tcp://{settings.metrics_addr}")


def _say_ready(options: Options) -> None:
    # What was made while starting stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    log.info("listening on %s", ", ".join(options.hosts))
    listeners.tell_systemd()
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"1")
        os.close(options.ready_fd)


async def _build(
    options: Options,
    hierarchies: Hierarchies,
    runtime: Runtime,
    state: State,
    background: Background,
    id_maps: IdMaps | None,
) -> tuple[Engine, Builds, BuildKit]:
    instance = Instance.of(options.data_root)
    hierarchies.prepare_parent(f"{instance.cgroup}/std", defaults.device_rules())
    hierarchies.prepare_parent(f"{instance.cgroup}/dev", [])
    snapshots = await open_snapshots(
        state=state,
        data_root=options.data_root,
        runtime=runtime,
        wanted=options.settings.storage_driver,
    )
    if checks.default_size(options.settings) and not snapshots.limits.are_possible:
        raise Unsupported(
            "Storage option overlay2.size not supported. Filesystem does not support Project Quota",
            hint=limits.REMEDY,
        )
    if id_maps is not None:
        await check_id_maps(snapshots, runtime, id_maps)
    images = ImageService(
        state=state, data_root=options.data_root, runtime=runtime, snapshots=snapshots
    )
    await images.open()
    volumes = VolumeService(state=state, data_root=options.data_root, runtime=runtime)
    volumes.clean()
    services = Services(
        settings=Held(options.settings),
        state=state,
        data_root=options.data_root,
        exec_root=options.exec_root,
        instance=instance,
        runtime=runtime,
        images=images,
        registry=RegistryClient(
            mirrors=options.settings.registry_mirrors,
            insecure=options.settings.insecure_registries,
            begun=BegunUploads(state),
        ),
        volumes=volumes,
        network=NetworkService(
            state=state,
            names=instance,
            plan=_plan(options.settings),
            spares=options.network_spares,
        ),
        hierarchies=hierarchies,
        support=support.detect(hierarchies.open_group(f"{instance.cgroup}/std")),
        cdi=Registry.of(options.settings),
        events=Events(),
        metrics=Metrics(),
        background=background,
        id_maps=id_maps,
        limits=snapshots.limits,
    )
    containers = Containers(services)
    execs = Execs(
        exec_root=options.exec_root, containers=containers, runtime=runtime, background=background
    )
    await containers.reconcile()
    await execs.adopt()
    health = Health(
        containers=containers,
        execs=execs,
        events=services.events,
        metrics=services.metrics,
        background=background,
    )
    background.start(health.run(), name="health")
    engine = Engine(services, containers=containers, execs=execs, health=health)
    builds = Builds(services, engine)
    await builds.open()
    return engine, builds, BuildKit(services, engine, builds)


def _plan(settings: Settings) -> Plan:
    pools = tuple((pool.base, pool.size) for pool in settings.default_address_pools)
    return Plan(
        pools=pools,
        bridge=settings.bridge,
        bip=settings.bip,
        range=settings.fixed_cidr,
        ipv6=settings.ipv6,
        bip6=settings.bip6,
        range6=settings.fixed_cidr_v6,
        router=settings.default_gateway,
        router6=settings.default_gateway_v6,
        mtu=settings.mtu,
        icc=settings.icc,
        masquerade=settings.ip_masq,
        binding=settings.ip,
        options=settings.default_network_opts,
        forwards=settings.ip_forward,
    )


async def _until_told(
    told: asyncio.Event, engine: Engine, server: Server, idle_exit_s: float | None
) -> None:
    while not told.is_set():
        try:
            async with asyncio.timeout(idle_exit_s and idle_exit_s / IDLE_CHECKS):
                await told.wait()
        except TimeoutError:
            alive = (*status.ALIVE, status.RESTARTING)
            runs = any(record.status in alive for record in engine.containers.all())
            if idle_exit_s and not runs and server.idle_s >= idle_exit_s:
                log.info("nothing to do for %g s, leaving", idle_exit_s)
                return
    log.info("leaving; containers go on")


def reload(engine: Engine, options: Options) -> None:
    """Read the settings again; those that make no sense change nothing."""
    try:
        fresh = options.reread()
        engine.reload(fresh)
    except (BerthError, OSError) as error:
        log.warning("settings stay as they are: %s", error)
        return
    logging.getLogger().setLevel(level_of(fresh))
    log.info("settings reloaded")


def level_of(settings: Settings) -> int:
    """Return the level of the log; asyncio's names for Docker's."""
    return logging.getLevelNamesMapping()[settings.level.upper()]


def main(options: Options) -> None:
    """Run berthd in this process. Raises the kind of what keeps it from starting."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler], level=level_of(options.settings))
    asyncio.run(serve(options))
