"""What the engine is composed of, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from berth.configuration.settings import Held
    from berth.configuration.subordinate import IdMaps
    from berth.engine.background import Background
    from berth.engine.cdi import Registry
    from berth.engine.events import Events
    from berth.engine.instance import Instance
    from berth.engine.metrics import Metrics
    from berth.engine.support import Support
    from berth.images.service import ImageService
    from berth.kernel.cgroups import Hierarchies
    from berth.network.service import NetworkService
    from berth.registry.client import RegistryClient
    from berth.runtime.client import Runtime
    from berth.snapshots.limits import Limits
    from berth.state import State
    from berth.volumes.service import VolumeService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts below the engine, built by :mod:`berth.berthd`."""

    settings: Held
    state: State
    data_root: Path
    exec_root: Path
    instance: Instance
    runtime: Runtime
    images: ImageService
    registry: RegistryClient
    volumes: VolumeService
    network: NetworkService
    hierarchies: Hierarchies
    support: Support
    cdi: Registry
    events: Events
    metrics: Metrics
    background: Background
    id_maps: IdMaps | None  # of new containers
    limits: Limits
