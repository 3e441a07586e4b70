"""Volumes, mounts, devices and their rates, from flags to the API's shapes."""

from __future__ import annotations

import os

from berth.cli import units
from berth.cli.options import UsageError
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.client.documents import Document

MOUNT_KEYS = {
    "type": "Type",
    "source": "Source",
    "src": "Source",
    "target": "Target",
    "destination": "Target",
    "dst": "Target",
    "consistency": "Consistency",
}
TEXT_OPTIONS = {
    "bind-propagation": ("BindOptions", "Propagation"),
    "volume-subpath": ("VolumeOptions", "Subpath"),
    "image-subpath": ("ImageOptions", "Subpath"),
}
# What is read-only or there at all of the mounts below a bind.
RECURSIONS = {
    "enabled": "",
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}
SWITCH_OPTIONS = {
    "bind-nonrecursive": ("BindOptions", "NonRecursive"),
    "bind-create-src": ("BindOptions", "CreateMountpoint"),
    "volume-nocopy": ("VolumeOptions", "NoCopy"),
}
SWITCH_WORDS = {"": True, "true": True, "1": True, "false": False, "0": False}


def volumes(texts: list[str]) -> tuple[list[str], Document]:
    """Return the binds and the anonymous volumes of ``[source:]target[:mode]``."""
    binds: list[str] = []
    anonymous: Document = {}
    for text in texts:
        source, colon, rest = text.partition(":")
        if not colon:
            if not source.startswith("/"):
                raise InvalidArgument(
                    f"invalid volume specification: '{text}': invalid mount config for type"
                    ' "volume": invalid mount path: mount path must be absolute'
                )
            anonymous[source] = {}
            continue
        if source in (".", "..") or source.startswith(("./", "../", "~/")):
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def _fields(text: str) -> list[str]:
    """Split at commas; a field in double quotes may contain some (CSV)."""
    fields, field, quoted = [], "", False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += letter
    return [*fields, field]


def mount(text: str) -> Document:
    """Return one `--mount`."""
    found: Document = {"Type": "volume"}
    for part in _fields(text):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if key in ("readonly", "ro"):
            found["ReadOnly"] = _switch(text, key, value)
        elif key in MOUNT_KEYS and equals:
            found[MOUNT_KEYS[key]] = value
        elif not _option(found, key, value):
            raise _mount_error(
                text,
                f"unexpected key '{key}' in '{part}'"
                if equals
                else f"invalid field '{part}' must be a key=value pair",
            )
    if not found.get("Target"):
        raise _mount_error(text, "target is required")
    source = found.get("Source")
    if found["Type"] == "bind" and isinstance(source, str) and source.startswith("."):
        found["Source"] = os.path.abspath(source)
    return found


def _option(found: Document, key: str, value: str) -> bool:
    """Put an option into its group; False when there is no such one."""
    if key in TEXT_OPTIONS:
        group, name = TEXT_OPTIONS[key]
        _group(found, group)[name] = value
    elif key == "bind-recursive":
        _recursion(found, value)
    elif key in SWITCH_OPTIONS:
        group, name = SWITCH_OPTIONS[key]
        _group(found, group)[name] = _switch(key, key, value)
    elif key == "tmpfs-size":
        _group(found, "TmpfsOptions")["SizeBytes"] = units.size(value)
    elif key == "tmpfs-mode":
        _group(found, "TmpfsOptions")["Mode"] = int(value, 8)
    elif key == "volume-driver":
        _group(_group(found, "VolumeOptions"), "DriverConfig")["Name"] = value
    elif key == "volume-label":
        name, _, label = value.partition("=")
        _group(_group(found, "VolumeOptions"), "Labels")[name] = label
    elif key == "volume-opt":
        name, _, setting = value.partition("=")
        driver = _group(_group(found, "VolumeOptions"), "DriverConfig")
        _group(driver, "Options")[name] = setting
    else:
        return False
    return True


def _recursion(found: Document, value: str) -> None:
    if value not in RECURSIONS:
        raise _mount_error(f"bind-recursive={value}", f"invalid value for bind-recursive: {value}")
    if name := RECURSIONS[value]:
        _group(found, "BindOptions")[name] = True


def _group(found: Document, name: str) -> Document:
    group = found.setdefault(name, {})
    assert isinstance(group, dict)
    return group


def _switch(text: str, key: str, value: str) -> bool:
    if value.lower() not in SWITCH_WORDS:
        raise _mount_error(text, f"invalid value for {key}: {value}")
    return SWITCH_WORDS[value.lower()]


def _mount_error(text: str, cause: str) -> UsageError:
    return UsageError(f'invalid argument "{text}" for "--mount" flag: {cause}')


def is_described(text: str) -> bool:
    """Say whether a device is named as the Container Device Interface does: "vendor.com/kind=name"."""
    return not text.startswith("/") and "/" in text.partition("=")[0] and "=" in text


def device(text: str) -> Document:
    """Return one ``path[:path-in-container][:permissions]``."""
    parts = text.split(":")
    source, target, permissions = parts[0], parts[0], "rwm"
    if len(parts) == 2 and parts[1].strip("rwm"):
        target = parts[1]
    elif len(parts) == 2:
        permissions = parts[1]
    elif len(parts) == 3:
        target, permissions = parts[1], parts[2]
    elif len(parts) > 3:
        raise InvalidArgument(f"invalid device specification: {text}")
    if permissions.strip("rwm"):
        raise InvalidArgument(f"{text} is not a valid device path")
    return {
        "PathOnHost": source,
        "PathInContainer": target or source,
        "CgroupPermissions": permissions,
    }


def throttle(text: str) -> Document:
    """Return one ``path:rate``."""
    path, _, rate = text.rpartition(":")
    try:
        return {"Path": path, "Rate": units.size(rate)}
    except ValueError:
        raise InvalidArgument(f"invalid rate for device: {text}") from None


def weight(text: str) -> Document:
    """Return one ``path:weight``."""
    path, colon, number = text.partition(":")
    if not colon or not path.startswith("/dev/") or not number.isdecimal():
        raise InvalidArgument(f"bad format for weight of a device: {text}")
    return {"Path": path, "Weight": int(number)}


def gpus(text: str) -> Document:
    """Return the request for devices that "all", "2" or "device=0,1" stands for."""
    count, ids = 0, None
    if text == "all":
        count = -1
    elif text.isdecimal():
        count = int(text)
    elif text.strip('"').startswith("device="):
        ids = text.strip('"').removeprefix("device=").split(",")
    else:
        raise InvalidArgument(f'invalid argument "{text}" for "--gpus" flag')
    return {"Driver": "", "Count": count, "DeviceIDs": ids, "Capabilities": [["gpu"]]}
