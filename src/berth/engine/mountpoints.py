"""Binds and volumes of a container: what -v, --mount and the image's VOLUME ask for, in one list."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

import msgspec

from berth.engine.models import MountPoint
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.engine.events import Events
    from berth.engine.models import BindOptions, ContainerRecord, HostConfig, MountRequest

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
# The words of -v, by what they are about: one of each may be said.
MODES = (
    ("ro", "rw"),
    ("z", "Z"),
    ("nocopy",),
    ("cached", "delegated", "consistent", "default"),
    ("bind", "rbind"),
    PROPAGATIONS,
)
MOUNT_TYPES = ("bind", "volume", "tmpfs")
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def requested(host: HostConfig, volumes: Iterable[str]) -> list[MountPoint]:
    """Return what is to be mounted. ``volumes``: targets of the client's and the image's VOLUMEs.

    A volume without a name has none yet, and its source is empty. A later source of a target replaces
    no earlier one: -v and --mount come first, and two of them for one target are refused.
    """
    points = [_bind(text) for text in host.binds or []]
    points += [_mount(request) for request in host.mounts or [] if request.type != "tmpfs"]
    tmpfs = [*(host.tmpfs or {}), *(m.target for m in host.mounts or [] if m.type == "tmpfs")]
    seen: set[str] = set()
    for target in [*(point.target for point in points), *map(clean, tmpfs)]:
        if target in seen:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        seen.add(target)
    for target in map(clean, volumes):
        if target not in seen:
            seen.add(target)
            points.append(MountPoint(kind="volume", target=target, source="", anonymous=True))
    return points


def clean(target: str) -> str:
    """Return an absolute path without doubled or trailing slashes or steps upwards."""
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
    parts = [part for part in posixpath.normpath(target).split("/") if part]
    if not parts:
        raise InvalidArgument("invalid specification: destination can't be '/'")
    return "/" + "/".join(parts)


def _bind(text: str) -> MountPoint:
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountPoint(kind="volume", target=clean(parts[0]), source="", anonymous=True)
    if len(parts) == 2 and _is_mode(parts[1]):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    options = parts[2].split(",") if len(parts) == 3 else []
    if options and not _is_mode(parts[2]):
        raise InvalidArgument(f"invalid mode: {parts[2]}")
    source = parts[0]
    is_path = source.startswith("/")
    kind = "bind" if is_path else "volume"
    try:
        target = clean(parts[1])
        if not is_path and any(option in PROPAGATIONS for option in options):
            raise InvalidArgument("field BindOptions must not be specified")
    except InvalidArgument as error:
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {error}"
        ) from error
    if not is_path:
        _check_name(source)
    return MountPoint(
        kind=kind,
        target=target,
        source=_clean_source(source) if is_path else "",
        volume="" if is_path else source,
        options=options,
        read_only="ro" in options,
        propagation=next((o for o in options if o in PROPAGATIONS), "rprivate" if is_path else ""),
        recursive="bind" not in options,
        make_source=is_path,
        no_copy="nocopy" in options,
    )


def _is_mode(text: str) -> bool:
    words = text.split(",")
    known = all(any(word in mode for mode in MODES) for word in words)
    return known and all(sum(word in mode for word in words) <= 1 for mode in MODES)


def _check_name(name: str) -> None:
    if not VOLUME_NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only'
            ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory,'
            " use absolute path"
        )


def _clean_source(source: str) -> str:
    return "/" + "/".join(part for part in source.split("/") if part not in ("", "."))


def _mount(request: MountRequest) -> MountPoint:
    kind = request.type
    if kind not in MOUNT_TYPES:
        raise InvalidArgument(f'invalid mount config for type "{kind}": mount type unknown')
    if kind == "volume" and request.source:
        _check_name(request.source)
    try:
        if not request.target:
            raise InvalidArgument("field Target must not be empty")
        return _bind_mount(request) if kind == "bind" else _volume_mount(request)
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid mount config for type "{kind}": {error}') from error


def _bind_mount(request: MountRequest) -> MountPoint:
    if not request.source:
        raise InvalidArgument("field Source must not be empty")
    if not request.source.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{request.source}' mount path must be absolute")
    options = request.bind_options
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f"invalid propagation mode: {propagation}")
    if options and options.read_only_force_recursive:
        _check_forced(request, options)
    return MountPoint(
        kind="bind",
        target=clean(request.target),
        source=_clean_source(request.source),
        read_only=request.read_only,
        propagation=propagation,
        recursive=not (options and options.non_recursive),
        read_only_recursive=not (options and options.read_only_non_recursive),
        make_source=bool(options and options.create_mountpoint),
    )


def _check_forced(request: MountRequest, options: BindOptions) -> None:
    if not request.read_only:
        raise InvalidArgument("ReadOnlyForceRecursive must be used with ReadOnly")
    if options.read_only_non_recursive:
        raise InvalidArgument("ReadOnlyForceRecursive must not be used with ReadOnlyNonRecursive")
    if options.propagation not in ("rprivate", ""):
        raise InvalidArgument("ReadOnlyForceRecursive must be used with Propagation rprivate")


def _volume_mount(request: MountRequest) -> MountPoint:
    options = request.volume_options
    if options is not None and options.subpath:
        raise InvalidArgument("field Subpath is not supported by this engine")
    return MountPoint(
        kind="volume",
        target=clean(request.target),
        source="",
        volume=request.source,
        anonymous=not request.source,
        driver=options.driver_config if options else None,
        labels=options.labels if options else None,
        read_only=request.read_only,
        no_copy=bool(options and options.no_copy),
    )


def borrowed(point: MountPoint, *, read_only: bool) -> MountPoint:
    """Return the mount as another container has it by --volumes-from."""
    return msgspec.structs.replace(point, read_only=point.read_only or read_only, no_copy=True)


def document(point: MountPoint) -> dict[str, object]:
    """Return how inspect shows it."""
    found: dict[str, object] = {"Type": point.kind}
    if point.kind == "volume":
        found["Name"] = point.volume
    found["Source"] = point.source
    found["Destination"] = point.target
    if point.kind == "volume":
        found["Driver"] = "local"
    mode = ",".join(point.options) or ("z" if point.kind == "volume" else "")
    found |= {"Mode": mode, "RW": not point.read_only, "Propagation": point.propagation}
    return found


def emit(events: Events, record: ContainerRecord, action: str) -> None:
    """Tell listeners that the volumes of a container are mounted or unmounted."""
    for point in record.mount_points:
        if point.kind != "volume":
            continue
        attributes = {"driver": "local", "container": record.id}
        if action == "mount":
            attributes |= {"destination": point.target, "propagation": point.propagation}
            attributes["read/write"] = str(not point.read_only).lower()
        events.emit("volume", action, point.volume, attributes)
