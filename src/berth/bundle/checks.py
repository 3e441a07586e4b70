"""What is refused before anything is made: a spec that says nonsense, and what this kernel cannot do.

Fields that the specification does not know are passed over.
"""

from __future__ import annotations

import os

from berth.bundle import labels, options
from berth.bundle.names import namespace_paths, sysctl_path
from berth.errors import InvalidArgument, Unsupported
from berth.kernel import namespaces
from berth.runtime import hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.oci.runtime_spec import Linux, Process, Spec

IPC_SYSCTLS = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
MAJOR_VERSION = "1"
DEVICE_TYPES = ("b", "c", "p", "u")
NUMA = "/proc/self/numa_maps"


def check(spec: Spec, bundle: str) -> None:
    """Refuse what cannot be, naming it."""
    _check_version(spec.get("ociVersion", ""))
    _check_root(spec, bundle)
    if spec.get("process"):
        check_process(spec["process"])
    linux = spec.get("linux") or {}
    kinds = namespace_paths(linux)
    for name, table in (("hostname", "uts"), ("domainname", "uts")):
        if spec.get(name) and table not in kinds:
            raise InvalidArgument(f"unable to set {name} without a private UTS namespace")
    if (linux.get("maskedPaths") or linux.get("readonlyPaths")) and "mount" not in kinds:
        raise InvalidArgument("unable to restrict sys entries without a private MNT namespace")
    _check_sysctls(linux, kinds)
    _check_user_namespace(linux, kinds)
    _check_mounts(spec)
    _check_devices(linux)
    _check_hooks(spec)
    options.root_propagation(linux.get("rootfsPropagation", ""))
    _check_kernel(linux, kinds)


def check_process(process: Process) -> None:
    """Refuse a process that cannot be started."""
    if not process.get("cwd"):
        raise InvalidArgument("Cwd property must not be empty")
    if not os.path.isabs(process["cwd"]):
        raise InvalidArgument("Cwd must be an absolute path")
    if not process.get("args"):
        raise InvalidArgument("args must not be empty")
    for entry in process.get("env") or ():
        if entry.find("=") < 1:
            raise InvalidArgument(f'invalid environment variable: "{entry}"')
    labels.check(process)
    seen: set[str] = set()
    for limit in process.get("rlimits") or ():
        if limit["type"] in seen:
            raise InvalidArgument(f"rlimit {limit['type']} is given twice")
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            raise InvalidArgument(f"rlimit {limit['type']}: soft limit is above the hard one")


def _check_version(version: str) -> None:
    parts = version.split("-")[0].split("+")[0].split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise InvalidArgument(f"unsupported ociVersion {version!r}: not a semantic version")
    if parts[0] not in ("0", MAJOR_VERSION):
        raise Unsupported(f"unsupported ociVersion {version!r}: only 1.x is known here")


def _check_root(spec: Spec, bundle: str) -> None:
    path = (spec.get("root") or {}).get("path", "")
    if not path:
        raise InvalidArgument("root must be specified")
    if namespace_paths(spec.get("linux") or {}).get("mount"):
        return  # it is a path in there
    place = path if os.path.isabs(path) else f"{bundle}/{path}"
    if not os.path.isdir(place):
        raise InvalidArgument(f"invalid rootfs: {place} is not a directory")


def _check_sysctls(linux: Linux, kinds: Mapping[str, str]) -> None:
    for name in linux.get("sysctl") or {}:
        key = sysctl_path(name).replace("/", ".")
        is_ipc = key in IPC_SYSCTLS or key.startswith("fs.mqueue.")
        kind = key.partition(".")[0]
        needed = "ipc" if is_ipc else {"net": "network", "user": "user"}.get(kind, "uts")
        if needed == "uts" and not (
            key.startswith("kernel.domainname") or key == "kernel.hostname"
        ):
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
        if key == "kernel.hostname":
            raise InvalidArgument(
                f'sysctl "{name}" is not allowed as it conflicts with the hostname field'
            )
        if needed not in kinds or _is_own(kinds[needed], needed):
            raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts {needed} namespace')


def _is_own(path: str, kind: str) -> bool:
    """Say whether a namespace that is to be joined is the caller's."""
    try:
        return bool(path) and os.path.samefile(
            path, f"/proc/self/ns/{namespaces.NAMESPACES[kind][1]}"
        )
    except OSError:  # told of where it is opened
        return False


def _check_user_namespace(linux: Linux, kinds: Mapping[str, str]) -> None:
    mapped = linux.get("uidMappings") or linux.get("gidMappings")
    if "user" not in kinds:
        if mapped:
            raise InvalidArgument(
                "User namespace mappings specified, but USER namespace isn't enabled"
            )
        return
    if not kinds["user"] and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise InvalidArgument("user namespaces enabled, but no uid or gid mappings found")


def _check_mounts(spec: Spec) -> None:
    for mount in spec.get("mounts") or ():
        where = mount.get("destination", "")
        if not where:
            raise InvalidArgument("invalid mount: it has no destination")
        found = options.MountOptions(mount.get("options") or ())
        if {"idmap", "ridmap"} & found.extensions and not found.is_bind:
            raise InvalidArgument(f"mount {where}: id-mapped mounts are only for bind mounts")
        if not found.is_bind and not mount.get("type") and not found.flags:
            raise InvalidArgument(f"mount {where}: it has neither a type nor the option bind")


def _check_devices(linux: Linux) -> None:
    for device in linux.get("devices") or ():
        if device.get("type") not in DEVICE_TYPES:
            raise InvalidArgument(f"invalid device type {device.get('type')!r}")


def _check_hooks(spec: Spec) -> None:
    for kind in hooks.KINDS:
        for hook in hooks.of(spec, kind):
            path = hook.get("path", "")
            if not os.path.isabs(path):
                raise InvalidArgument(f"{kind} hook: path {path!r} is not absolute")
            if hook.get("timeout", 1) <= 0:
                raise InvalidArgument(f"{kind} hook {path}: timeout must be greater than zero")


def _check_kernel(linux: Linux, kinds: Mapping[str, str]) -> None:
    for kind in kinds:
        if not os.path.exists(f"/proc/self/ns/{namespaces.NAMESPACES[kind][1]}"):
            raise Unsupported(f"kernel does not support {kind} namespaces")
    if linux.get("timeOffsets") and kinds.get("time", "missing"):
        raise InvalidArgument("time offsets specified, but no new time namespace")
    if linux.get("intelRdt"):
        raise Unsupported(
            "intelRdt is specified, but berth-oci does not control resource allocation (RDT)"
        )
    if linux.get("memoryPolicy") and not os.path.exists(NUMA):
        raise Unsupported("memoryPolicy is specified but this kernel has no NUMA")
    if devices := linux.get("netDevices"):
        from berth.runtime import netdevices

        netdevices.check(devices, kinds)
    if linux.get("mountLabel") and not labels.has_selinux():
        raise Unsupported("mountLabel is specified but selinux is not supported on the host")
