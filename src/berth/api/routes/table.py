"""All routes of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.routes.archives import ArchiveRoutes
from berth.api.routes.builds import BuildRoutes
from berth.api.routes.checkpoints import CheckpointRoutes
from berth.api.routes.containers import ContainerRoutes
from berth.api.routes.execs import ExecRoutes
from berth.api.routes.images import ImageRoutes
from berth.api.routes.networks import NetworkRoutes
from berth.api.routes.sessions import SessionRoutes
from berth.api.routes.streams import StreamRoutes
from berth.api.routes.swarm import PluginRoutes, SwarmRoutes
from berth.api.routes.system import SystemRoutes
from berth.api.routes.volumes import VolumeRoutes

if TYPE_CHECKING:
    from berth.api.router import Route
    from berth.buildkit.service import BuildKit
    from berth.builds.service import Builds
    from berth.engine.engine import Engine


def routes_of(engine: Engine, builds: Builds, buildkit: BuildKit) -> list[Route]:
    """Return the table."""
    return [
        *SystemRoutes(engine, builds).routes(),
        *StreamRoutes(engine).routes(),
        *CheckpointRoutes(engine).routes(),
        *ContainerRoutes(engine).routes(),
        *ArchiveRoutes(engine).routes(),
        *ExecRoutes(engine).routes(),
        *ImageRoutes(engine).routes(),
        *BuildRoutes(builds, buildkit).routes(),
        *SessionRoutes(buildkit).routes(),
        *NetworkRoutes(engine).routes(),
        *VolumeRoutes(engine).routes(),
        *SwarmRoutes().routes(),
        *PluginRoutes().routes(),
    ]
