"""SIGHUP: which settings change in an engine that runs, and what its listeners are told."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import msgspec

from berth.configuration.settings import RELOADABLE
from berth.engine import defaults

if TYPE_CHECKING:
    from berth.configuration.settings import Settings


def reloaded(now: Settings, fresh: Settings) -> Settings:
    """Return the settings that hold from now on."""
    names = [name.replace("-", "_") for name in RELOADABLE]
    return msgspec.structs.replace(now, **{name: getattr(fresh, name) for name in names})


def attributes(settings: Settings) -> dict[str, str]:
    """Return what Docker says in the event."""
    return {
        "name": platform.node(),
        "debug": _text(settings.debug),
        "default-runtime": defaults.RUNTIME,
        "features": _text(settings.features),
        "insecure-registries": _text(settings.insecure_registries),
        "labels": _text(settings.labels),
        "live-restore": _text(True),
        "registry-mirrors": _text(settings.registry_mirrors),
    }


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
