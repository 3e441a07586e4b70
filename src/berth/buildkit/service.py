"""BuildKit's protocol on connections that were taken out of HTTP. It is loaded when the first one comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from berth.buildkit import grpc
    from berth.buildkit.older import Older
    from berth.buildkit.sessions import Sessions
    from berth.buildkit.solving import Solver
    from berth.builds.output import Listener
    from berth.builds.service import Builds
    from berth.engine.engine import Engine
    from berth.engine.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderBuild:
    """What a client from before buildx asks for."""

    session_id: str
    options: Mapping[str, str]
    outputs: Sequence[Mapping[str, object]]
    quiet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The parts, once there are any."""

    sessions: Sessions
    services: grpc.Services
    solver: Solver
    older: Older


class BuildKit:
    """Serves clients that build as with BuildKit."""

    def __init__(self, services: Services, engine: Engine, builds: Builds) -> None:
        self._services = services
        self._engine = engine
        self._builds = builds
        self._loaded: Loaded | None = None

    def _load(self) -> Loaded:
        if self._loaded is None:
            # Megabytes, for those who build this way.
            from berth.buildkit import grpc
            from berth.buildkit.bridge import Bridge
            from berth.buildkit.control import Control
            from berth.buildkit.exporting import Exporters
            from berth.buildkit.health import Health
            from berth.buildkit.jobs import Jobs
            from berth.buildkit.older import Older
            from berth.buildkit.sessions import Sessions
            from berth.buildkit.solving import Solver
            from berth.buildkit.store import Store

            sessions, jobs = Sessions(), Jobs()
            solver = Solver(self._services.runtime, sessions, self._builds)
            exporters = Exporters(self._services, self._engine, self._builds)
            store = Store(self._services, self._builds)
            control = Control(sessions, jobs, solver, exporters, store)
            bridge = Bridge(jobs, solver)
            tables = {one.NAME: one.methods() for one in (control, bridge, Health())}
            self._loaded = Loaded(
                sessions=sessions,
                services=grpc.Services(tables),
                solver=solver,
                older=Older(sessions, jobs, solver, exporters),
            )
        return self._loaded

    async def serve(self, sock: socket.socket, early: bytes) -> None:
        """Serve a client until it hangs up. ``early``: what was read of it already."""
        await self._load().services.serve(sock, early)

    async def keep(
        self, id_: str, methods: Sequence[str], sock: socket.socket, early: bytes
    ) -> None:
        """Keep the session ``id_`` of a client, which serves ``methods``, until it hangs up."""
        await self._load().sessions.serve(id_, methods, sock, early)

    async def build(self, wanted: OlderBuild, listener: Listener) -> None:
        """Build for a client from before buildx. Raises kinds."""
        try:
            await self._load().older.build(wanted, listener)
        except ExceptionGroup as group:  # of one, for the other task has none of its own
            raise group.exceptions[0] from group

    async def close(self) -> None:
        """End the builds that are under way."""
        if self._loaded is not None:
            await self._loaded.solver.close()
