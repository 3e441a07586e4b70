"""Devices that vendors describe for containers: the Container Device Interface, specification 1.1.

A file describes the devices of one kind ("vendor.com/gpu"), and what each adds to a container.
https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from berth.engine import gpus
from berth.errors import BerthError, Failed, InvalidArgument, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from berth.configuration.settings import Settings
    from berth.engine.cdifiles import Description, Device, Edits
    from berth.engine.models import DeviceRequest, HostConfig

    Found = tuple[Description, Device]

log = logging.getLogger("berth")

DRIVER = "cdi"
FEATURE = "cdi"
FAILED = "CDI device injection failed: "
SUFFIXES = (".json", ".yaml")


class Registry:
    """The devices that files describe now; those of the later folders count more."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)
        self._read_as: list[tuple[Path, int, int]] = []
        self._devices: dict[str, Found] = {}
        self._problems: dict[Path, str] = {}

    @classmethod
    def of(cls, settings: Settings) -> Registry:
        """Return that of an engine; without folders, or with the feature off, there are no devices."""
        is_on = settings.features.get(FEATURE, True)
        return cls([folder for folder in settings.cdi_spec_dirs if folder] if is_on else ())

    def names(self) -> list[str]:
        """Return the devices' full names, in order."""
        self._refresh()
        return sorted(self._devices)

    def problems(self) -> list[str]:
        """Return what is wrong with files, for people."""
        self._refresh()
        said = self._problems.items()
        return [f"CDI: Error associated with spec file {path}: {why}" for path, why in said]

    def edits(self, host: HostConfig) -> Edits | None:
        """Return all that the devices of a container add to it, None when it has none.

        Errors are in Docker's words.
        """
        names: list[str] = []
        for request in host.device_requests or []:
            names += self._requested(request)
        return self._merged(list(dict.fromkeys(names))) if names else None

    def _requested(self, request: DeviceRequest) -> list[str]:
        if request.driver != DRIVER:
            self._refresh()
            kinds = {name.partition("=")[0] for name in self._devices}
            kind = gpus.kind_for(request, kinds) if self.folders else None
            if kind is None:
                _refuse(request)
            return gpus.names(request, kind)
        if not self.folders:
            _refuse(request)
        if request.count:
            raise InvalidArgument("unexpected count in CDI device request")
        if request.options:
            raise InvalidArgument("unexpected options in CDI device request")
        return request.device_ids or []

    def _merged(self, names: list[str]) -> Edits:
        from berth.engine.cdifiles import Edits

        self._refresh()
        missing = [name for name in names if name not in self._devices]
        if missing:
            why = f"{FAILED}unresolvable CDI devices {', '.join(missing)}"
            raise Failed(why, hint="; ".join(self.problems()) or None)
        found = Edits()
        described: list[Description] = []
        for name in names:
            description, device = self._devices[name]
            if description not in described:
                described.append(description)
                _add(found, description.container_edits)
            _add(found, device.container_edits)
        if found.intel_rdt is not None:
            raise Unsupported(f"{FAILED}intelRdt is not supported by this engine")
        return found

    def _refresh(self) -> None:
        """Read the files anew, if there are others or one has changed."""
        read_as = [_state(path) for path in _files(self.folders)]
        if read_as != self._read_as:
            self._devices, self._problems = _read([path for path, *_ in read_as])
            self._read_as = read_as


def _refuse(request: DeviceRequest) -> NoReturn:
    wanted = " ".join(f"[{' '.join(words)}]" for words in request.capabilities or [])
    raise Unsupported(
        f'could not select device driver "{request.driver}" with capabilities: [{wanted}]'
    )


def _add(found: Edits, edits: Edits) -> None:
    found.env += edits.env
    found.device_nodes += edits.device_nodes
    found.net_devices += edits.net_devices
    found.mounts += edits.mounts
    found.hooks += edits.hooks
    found.additional_gids += edits.additional_gids
    if edits.intel_rdt is not None:
        found.intel_rdt = edits.intel_rdt


def _read(files: Iterable[Path]) -> tuple[dict[str, Found], dict[Path, str]]:
    """Return the devices by name, and what is wrong with files. What two of a folder describe is nobody's."""
    from berth.engine.cdifiles import load

    devices: dict[str, Found] = {}
    places: dict[str, Path] = {}
    problems: dict[Path, str] = {}
    conflicts: set[str] = set()
    for path in files:
        try:
            description = load(path)
        except (OSError, msgspec.DecodeError, BerthError) as error:
            problems[path] = f"failed to load CDI Spec: {error}"
            log.warning("%s: %s", path, error)
            continue
        for device in description.devices:
            name = f"{description.kind}={device.name}"
            if name in places and places[name].parent == path.parent:
                conflicts.add(name)
                why = f'conflicting device "{name}" (specs "{path}", "{places[name]}")'
                problems[path] = problems[places[name]] = why
                continue
            devices[name], places[name] = (description, device), path
    return {name: devices[name] for name in devices.keys() - conflicts}, problems


def _state(path: Path) -> tuple[Path, int, int]:
    """Return a file with what changes when it is another one, or is written to."""
    try:
        status = path.stat()
    except OSError:  # it is gone; its reader says so
        return path, 0, 0
    return path, status.st_mtime_ns, status.st_ino


def _files(folders: Iterable[str]) -> Iterator[Path]:
    for folder in map(Path, folders):
        if folder.is_dir():
            yield from (path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES)
