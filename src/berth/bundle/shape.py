"""The shape of a spec: which names take what. A document is checked once, and made what the rest relies on.

As in Go, names match without regard to case, null is "not said", and unknown names are passed over.
"""

from __future__ import annotations

from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.oci.runtime_spec import Process, Resources, Spec

    # A type, a list of one shape, a map of names to one shape (key "*"), or names ("!": it must be there).
    Shape = type | list["Shape"] | dict[str, "Shape"]

TEXTS: Shape = [str]
IDS: Shape = [{"containerID!": int, "hostID!": int, "size!": int}]
NAMED_TEXTS: Shape = {"*": str}
RATES: Shape = [{"major!": int, "minor!": int, "rate!": int}]
PROCESS: dict[str, Shape] = {
    "terminal": bool,
    "consoleSize": {"height": int, "width": int},
    "cwd": str,
    "env": TEXTS,
    "args": TEXTS,
    "user": {"uid": int, "gid": int, "umask": int, "additionalGids": [int]},
    "capabilities": dict.fromkeys(
        ("bounding", "effective", "inheritable", "permitted", "ambient"), TEXTS
    ),
    "rlimits": [{"type!": str, "soft!": int, "hard!": int}],
    "noNewPrivileges": bool,
    "oomScoreAdj": int,
    "apparmorProfile": str,
    "selinuxLabel": str,
    "scheduler": {
        "policy!": str,
        "nice": int,
        "priority": int,
        "flags": TEXTS,
        "runtime": int,
        "deadline": int,
        "period": int,
    },
    "ioPriority": {"class!": str, "priority": int},
    "execCPUAffinity": {"initial": str, "final": str},
}
RESOURCES: dict[str, Shape] = {
    "devices": [{"allow": bool, "type": str, "major": int, "minor": int, "access": str}],
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP", "swappiness"), int),
        "disableOOMKiller": bool,
        "checkBeforeUpdate": bool,
    },
    "cpu": {
        **dict.fromkeys(("shares", "quota", "burst", "period", "idle"), int),
        **dict.fromkeys(("realtimeRuntime", "realtimePeriod"), int),
        "cpus": str,
        "mems": str,
    },
    "pids": {"limit": int},
    "blockIO": {
        "weight": int,
        "leafWeight": int,
        "weightDevice": [{"major!": int, "minor!": int, "weight": int, "leafWeight": int}],
        "throttleReadBpsDevice": RATES,
        "throttleWriteBpsDevice": RATES,
        "throttleReadIOPSDevice": RATES,
        "throttleWriteIOPSDevice": RATES,
    },
    "hugepageLimits": [{"pageSize!": str, "limit!": int}],
    "network": {"classID": int, "priorities": [{"name!": str, "priority!": int}]},
    "rdma": {"*": {"hcaHandles": int, "hcaObjects": int}},
    "unified": NAMED_TEXTS,
}
SECCOMP: dict[str, Shape] = {
    "defaultAction!": str,
    "defaultErrnoRet": int,
    "architectures": TEXTS,
    "flags": TEXTS,
    "listenerPath": str,
    "listenerMetadata": str,
    "syscalls": [
        {
            "names!": TEXTS,
            "action!": str,
            "errnoRet": int,
            "args": [{"index!": int, "value!": int, "valueTwo": int, "op!": str}],
        }
    ],
}
LINUX: dict[str, Shape] = {
    "namespaces": [{"type!": str, "path": str}],
    "uidMappings": IDS,
    "gidMappings": IDS,
    "timeOffsets": {"*": {"secs": int, "nanosecs": int}},
    "devices": [
        {
            "path!": str,
            "type!": str,
            **dict.fromkeys(("major", "minor", "fileMode", "uid", "gid"), int),
        }
    ],
    "cgroupsPath": str,
    "resources": RESOURCES,
    "sysctl": NAMED_TEXTS,
    "seccomp": SECCOMP,
    "rootfsPropagation": str,
    "maskedPaths": TEXTS,
    "readonlyPaths": TEXTS,
    "mountLabel": str,
    "personality": {"domain!": str, "flags": TEXTS},
    "netDevices": {"*": {"name": str}},
    "intelRdt": {"closID": str},
    "memoryPolicy": {"mode!": str, "nodes": str, "flags": TEXTS},
}
HOOKS: Shape = [{"path!": str, "args": TEXTS, "env": TEXTS, "timeout": int}]
SPEC: dict[str, Shape] = {
    "ociVersion!": str,
    "root": {"path!": str, "readonly": bool},
    "mounts": [
        {
            "destination!": str,
            "type": str,
            "source": str,
            "options": TEXTS,
            "uidMappings": IDS,
            "gidMappings": IDS,
        }
    ],
    "process": PROCESS,
    "hostname": str,
    "domainname": str,
    "linux": LINUX,
    "hooks": dict.fromkeys(
        ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
        HOOKS,
    ),
    "annotations": NAMED_TEXTS,
}
NAMES = {str: "a string", int: "a whole number", bool: "true or false"}
MAX_NUMBER = (1 << 64) - 1


def spec(document: object) -> Spec:
    """Return a config.json that is as it has to be; InvalidArgument names the place that is not."""
    found: Spec = _object(document, SPEC, "config.json")  # type: ignore[assignment]
    return found


def process(document: object) -> Process:
    """Return a process.json."""
    found: Process = _object(document, PROCESS, "process")  # type: ignore[assignment]
    return found


def resources(document: object) -> Resources:
    """Return the resources of `update`."""
    found: Resources = _object(document, RESOURCES, "resources")  # type: ignore[assignment]
    return found


def _object(value: object, shape: Mapping[str, Shape], place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{place} must be an object")
    if any_shape := shape.get("*"):
        return {str(k): _checked(v, any_shape, f"{place}.{k}") for k, v in value.items()}
    exact = {name.rstrip("!"): wanted for name, wanted in shape.items()}
    folded = {name.lower(): name for name in exact}
    found: dict[str, object] = {}
    for key, item in value.items():
        name = key if key in exact else folded.get(key.lower(), "")
        if name and item is not None:
            found[name] = _checked(item, exact[name], f"{place}.{name}")
    for name in shape:
        if name.endswith("!") and name[:-1] not in found:
            raise InvalidArgument(f"{place}.{name[:-1]} is missing")
    return found


def _checked(value: object, shape: Shape, place: str) -> object:
    if isinstance(shape, dict):
        return _object(value, shape, place)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise InvalidArgument(f"{place} must be a list")
        return [_checked(item, shape[0], f"{place}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        raise InvalidArgument(f"{place} must be {NAMES[shape]}")
    if isinstance(value, str) and ("\0" in value or not _is_text(value)):
        raise InvalidArgument(f"{place} has a character that no path or argument can have")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise InvalidArgument(f"{place} is too large a number")
    return value


def _is_text(value: str) -> bool:
    """Say whether it can be given to the kernel: JSON can have halves of characters."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
