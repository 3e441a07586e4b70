"""Binds and volumes of a container: what -v, --mount and the image's VOLUME ask for, in one list."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import msgspec

from berth.engine import tmpfs
from berth.engine.models import MountPoint
from berth.errors import InvalidArgument, NotFound
from berth.volumes.service import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
SHARED_LABEL = "z"  # what Docker shows of volumes without a mode, SELinux or not


def requested(
    host: HostConfig, volumes: Iterable[str], borrowed: Iterable[MountPoint] = ()
) -> list[MountPoint]:
    """Return what is to be mounted. ``volumes``: targets of the client's and the image's VOLUMEs.

    A volume without a name has none yet, and its source is empty. A later source of a target replaces
    no earlier one: -v and --mount come first, and two of them for one target are refused; then what is
    ``borrowed`` from other containers, the last of them first.
    """
    points = [_bind(text) for text in host.binds or []]
    asked = [_mount(request) for request in host.mounts or []]
    points += [point for point in asked if point is not None]
    memory = [*(host.tmpfs or {}), *(request.target for request in tmpfs.requested(host))]
    seen: set[str] = set()
    for target in [*(point.target for point in points), *map(clean, memory)]:
        if target in seen:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        seen.add(target)
    for point in reversed(list(borrowed)):
        if point.target not in seen:
            seen.add(point.target)
            points.append(point)
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
        target = clean(parts[0])
        return MountPoint(
            kind="volume", target=target, source="", anonymous=True, options=[SHARED_LABEL]
        )
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
        options=options or ([] if is_path else [SHARED_LABEL]),
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
    try:
        check_name(name)
    except InvalidArgument as error:
        raise InvalidArgument(f"create {name}: {error}") from error


def _clean_source(source: str) -> str:
    return "/" + posixpath.normpath(source).lstrip("/")


def _mount(request: MountRequest) -> MountPoint | None:
    """Return a mount; None for a tmpfs, which is checked only."""
    kind = request.type
    makers = {"bind": _bind_mount, "volume": _volume_mount, "image": _image_mount}
    if kind == "volume" and request.source:
        _check_name(request.source)
    try:
        if not request.target:
            raise InvalidArgument("field Target must not be empty")
        clean(request.target)
        if kind == "tmpfs":
            tmpfs.check(request)
            return None
        if kind not in makers:
            raise InvalidArgument("mount type unknown")
        return makers[kind](request)
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
        if not request.source:
            raise InvalidArgument("must not set Subpath when using anonymous volumes")
        _check_subpath(options.subpath)
    return MountPoint(
        kind="volume",
        target=clean(request.target),
        source="",
        volume=request.source,
        subpath=options.subpath if options else "",
        anonymous=not request.source,
        driver=options.driver_config if options else None,
        labels=options.labels if options else None,
        options=[SHARED_LABEL],
        read_only=request.read_only,
        no_copy=bool(options and options.no_copy),
    )


def _image_mount(request: MountRequest) -> MountPoint:
    if not request.source:
        raise InvalidArgument("field Source must not be empty")
    subpath = request.image_options.subpath if request.image_options else ""
    if subpath:
        _check_subpath(subpath)
    return MountPoint(
        kind="image",
        target=clean(request.target),
        source=request.source,
        subpath=subpath,
        read_only=True,
        propagation="rprivate",
    )


def _check_subpath(subpath: str) -> None:
    path = posixpath.normpath(subpath)
    if path.startswith("/") or path.split("/")[0] == "..":
        raise InvalidArgument("subpath must be a relative path within the volume")


def borrowed(host: HostConfig, find: Callable[[str], ContainerRecord]) -> list[MountPoint]:
    """Return the mounts of other containers that --volumes-from asks for."""
    return [point for entry in host.volumes_from or [] for point in _borrowed(entry, find)]


def _borrowed(entry: str, find: Callable[[str], ContainerRecord]) -> list[MountPoint]:
    ref, _, mode = entry.partition(":")
    if not entry:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    words = mode.split(",")
    if mode and (not _is_mode(mode) or any(word in (*PROPAGATIONS, "nocopy") for word in words)):
        raise InvalidArgument(f"invalid mode: {mode}")
    try:
        other = find(ref)
    except NotFound as error:
        raise InvalidArgument(str(error)) from error
    read_only = "ro" in words
    return [
        msgspec.structs.replace(point, read_only=point.read_only or read_only, no_copy=True)
        for point in other.mount_points
    ]


def documents(record: ContainerRecord) -> list[dict[str, object]]:
    """Return how inspect shows what is mounted into a container."""
    return [*map(document, record.mount_points), *tmpfs.documents(record.host_config)]


def document(point: MountPoint) -> dict[str, object]:
    """Return how inspect shows it."""
    found: dict[str, object] = {"Type": point.kind}
    if point.kind != "bind":
        found["Name"] = point.volume or point.source
    found["Source"] = point.image or point.source
    found["Destination"] = point.target
    if point.kind == "volume":
        found["Driver"] = "local"
    found |= {
        "Mode": ",".join(point.options),
        "RW": not point.read_only,
        "Propagation": point.propagation,
    }
    return found


def volumes(record: ContainerRecord) -> list[str]:
    """Return the names of a container's volumes."""
    return [point.volume for point in record.mount_points if point.kind == "volume"]


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
