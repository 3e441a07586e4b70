"""A file of the Container Device Interface: its shape, and what makes it one that counts for nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from berth.engine.additions import NO_ACCESS
from berth.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = (
    "0.1.0",
    "0.2.0",
    "0.3.0",
    "0.4.0",
    "0.5.0",
    "0.6.0",
    "0.7.0",
    "0.8.0",
    "1.0.0",
    "1.1.0",
)
VENDOR = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
CLASS = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
HOOKS = (
    *("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
)
NODE_TYPES = ("", "b", "c", "u", "p")


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What is not known here may be needed: such a file is refused, as by others who read it."""


class Node(_Part):
    """A device node; what is not said of it is as on the host."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None

    @property
    def is_complete(self) -> bool:
        """Say whether nothing on the host has to be looked at."""
        return self.type == "p" or bool(self.type and self.major)


class Bind(_Part):
    """A path of the host's in the container, or with another type a file system."""

    host_path: str
    container_path: str
    type: str = ""
    options: list[str] = []

    @property
    def is_bind(self) -> bool:
        """Say whether it is a path of the host's."""
        return self.type in ("", "none", "bind") or bool({"bind", "rbind"} & set(self.options))


class HookEntry(_Part):
    """A program to be run at a point of a container's life."""

    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class NetworkDevice(_Part):
    """A network device of the host's that the container gets."""

    host_interface_name: str
    name: str


class Edits(_Part):
    """What a device adds to a container."""

    env: list[str] = []
    device_nodes: list[Node] = []
    net_devices: list[NetworkDevice] = []
    mounts: list[Bind] = []
    hooks: list[HookEntry] = []
    additional_gids: list[int] = msgspec.field(default_factory=list, name="additionalGids")
    intel_rdt: dict[str, object] | None = None


class Device(_Part):
    """One device of a kind."""

    name: str
    annotations: dict[str, str] = {}
    container_edits: Edits = msgspec.field(default_factory=Edits)


class Description(_Part):
    """A file: a kind, its devices, and what all of them add."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: list[Device] = []
    container_edits: Edits = msgspec.field(default_factory=Edits)


def load(path: Path) -> Description:
    """Read a file, in JSON or YAML; InvalidArgument says what is wrong with it."""
    data = path.read_bytes()
    if path.suffix == ".json":
        found = msgspec.json.decode(data, type=Description)
    else:
        try:
            found = msgspec.yaml.decode(data, type=Description)
        except ImportError as error:
            raise Unsupported("it is YAML, which needs the Python package PyYAML") from error
    _check(found)
    return found


def _check(description: Description) -> None:
    version = description.cdi_version.removeprefix("v")
    if version not in VERSIONS:
        raise InvalidArgument(f'invalid version "{description.cdi_version}"')
    needed = _needed_version(description)
    if VERSIONS.index(version) < VERSIONS.index(needed):
        raise InvalidArgument(f"the spec version must be at least v{needed}")
    vendor, _, class_ = description.kind.partition("/")
    if not VENDOR.fullmatch(vendor):
        raise InvalidArgument(f'invalid vendor "{vendor}"')
    if not CLASS.fullmatch(class_):
        raise InvalidArgument(f'invalid class "{class_}"')
    _check_edits(description.container_edits)
    names = [device.name for device in description.devices]
    if not names:
        raise InvalidArgument("invalid spec, no devices")
    for device in description.devices:
        if not NAME.fullmatch(device.name):
            raise InvalidArgument(f'invalid device name "{device.name}"')
        if names.count(device.name) > 1:
            raise InvalidArgument(f'invalid spec, multiple device "{device.name}"')
        if device.container_edits == Edits():
            raise InvalidArgument("invalid device, empty device edits")
        _check_edits(device.container_edits)


def _needed_version(description: Description) -> str:
    """Return the oldest version that has all that a file says."""
    devices = description.devices
    edits = [description.container_edits, *(device.container_edits for device in devices)]
    rdt = [part.intel_rdt for part in edits if part.intel_rdt is not None]
    rules = (
        ("1.1.0", any(part.net_devices for part in edits)),
        ("1.1.0", any({"schemata", "enableMonitoring"} & part.keys() for part in rdt)),
        ("0.7.0", bool(rdt) or any(part.additional_gids for part in edits)),
        ("0.6.0", bool(description.annotations) or any(d.annotations for d in devices)),
        ("0.6.0", "." in description.kind.partition("/")[2]),
        ("0.5.0", any(device.name[:1].isdigit() for device in devices)),
        ("0.5.0", any(node.host_path for part in edits for node in part.device_nodes)),
        ("0.4.0", any(bind.type for part in edits for bind in part.mounts)),
    )
    return next((version for version, is_needed in rules if is_needed), "0.3.0")


def _check_edits(edits: Edits) -> None:
    _check_variables(edits.env, "container edits")
    for node in edits.device_nodes:
        if not node.path:
            raise InvalidArgument("invalid (empty) device path")
        if node.type not in NODE_TYPES:
            raise InvalidArgument(f'device "{node.path}": invalid type "{node.type}"')
        if node.permissions != NO_ACCESS and node.permissions.strip("rwm"):
            raise InvalidArgument(f'device "{node.path}": invalid permissions "{node.permissions}"')
    for hook in edits.hooks:
        _check_hook(hook)
    for bind in edits.mounts:
        if not bind.host_path or not bind.container_path:
            where = "container" if bind.host_path else "host"
            raise InvalidArgument(f"invalid mount, empty {where} path")
    _check_network_devices(edits.net_devices)


def _check_hook(hook: HookEntry) -> None:
    if hook.hook_name not in HOOKS:
        raise InvalidArgument(f'invalid hook name "{hook.hook_name}"')
    if not hook.path.startswith("/"):
        raise InvalidArgument(
            f'invalid hook "{hook.hook_name}": path "{hook.path}" is not absolute'
        )
    if hook.timeout is not None and hook.timeout <= 0:
        raise InvalidArgument(f'invalid hook "{hook.hook_name}": timeout {hook.timeout}')
    _check_variables(hook.env, f'hook "{hook.hook_name}"')


def _check_variables(entries: list[str], what: str) -> None:
    for entry in entries:
        if entry.find("=") <= 0:
            raise InvalidArgument(f'invalid {what}: invalid environment variable "{entry}"')


def _check_network_devices(devices: list[NetworkDevice]) -> None:
    for names in ([d.host_interface_name for d in devices], [d.name for d in devices]):
        if "" in names or len(set(names)) < len(names):
            raise InvalidArgument(f"invalid linux net device, empty or duplicate name: {names}")
