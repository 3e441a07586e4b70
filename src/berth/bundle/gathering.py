"""What a container's first process needs, gathered and opened before it is made: it fails here or nowhere.

What the spec names by paths outside is opened by the caller, so that the process made afterwards has only
descriptors.
"""

from __future__ import annotations

import _socket
import os

from berth.bundle import device_rules
from berth.bundle.plan import Filter, Plan
from berth.bundle.warnings import warn
from berth.errors import Failed, InvalidArgument
from berth.kernel import capabilities, cgroups, namespaces, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Process, Resources, Seccomp, Spec

NOTIFY = "SCMP_ACT_NOTIFY"
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": seccomp.FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": seccomp.FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": seccomp.FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": seccomp.FLAG_WAIT_KILLABLE_RECV,
}


def _filter(document: Seccomp) -> Filter:
    from berth.runtime.seccomp import compiler

    flags = 0
    for name in document.get("flags") or ():
        if name not in FILTER_FLAGS:
            raise InvalidArgument(f"seccomp flags: {name!r} is not known here")
        flags |= FILTER_FLAGS[name]
    agent: _socket.socket | None = None
    if _notifies(document):
        _check_notified(document)
        flags |= seccomp.FLAG_NEW_LISTENER
        flags &= ~seccomp.FLAG_TSYNC  # the two exclude each other, and there is one thread
        path = document.get("listenerPath", "")
        agent = connect(path, f"failed to connect with seccomp agent specified in {path!r}")
    program = compiler.compile_filter(document)
    return Filter(program, flags, document.get("listenerMetadata", ""), agent)


def _notifies(document: Seccomp) -> bool:
    return any(rule["action"] == NOTIFY for rule in document.get("syscalls") or ())


def _check_notified(document: Seccomp) -> None:
    """Refuse to have those calls notified that the descriptor for it is sent by."""
    if not document.get("listenerPath"):
        raise InvalidArgument("seccomp: listenerPath must be set when SCMP_ACT_NOTIFY is used")
    for rule in document.get("syscalls") or ():
        for name in ("write", "sendmsg"):
            if rule["action"] == NOTIFY and name in rule["names"]:
                raise InvalidArgument(f"SCMP_ACT_NOTIFY cannot be used for the {name} syscall")


def connect(path: str, failure: str) -> _socket.socket:
    """Connect to a socket of the caller's; what cannot be is a ``failure``."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise Failed(f"{failure}: {error.strerror}") from error
    return sock


def compiled(spec: Spec) -> Filter | None:
    """Return the filter of a spec."""
    document = (spec.get("linux") or {}).get("seccomp")
    if not document:
        return None
    if document.get("defaultAction") == NOTIFY:
        raise InvalidArgument("SCMP_ACT_NOTIFY cannot be used as default action")
    return _filter(document)


def drop_unknown_capabilities(process: Process) -> None:
    """Drop from ``process`` the capabilities that this kernel does not know, with a warning."""
    wanted = process.get("capabilities") or {}
    here = capabilities.NAMES[: capabilities.last_cap() + 1]
    unknown: set[str] = set()
    for names in wanted.values():
        assert isinstance(names, list)
        unknown.update(name for name in names if name not in here)
        names[:] = [name for name in names if name in here]
    if unknown:
        warn(f"ignoring unknown or unavailable capabilities: {sorted(unknown)}")


def gather(spec: Spec, *, id_: str, bundle: str, maker: str = "self", group: str = "") -> Plan:
    """Gather it; ``group``: the path of its groups where somebody else says it."""
    plan = Plan(spec, id_=id_, bundle=bundle)
    drop_unknown_capabilities(plan.process)
    if plan.has_attributes():
        from berth.bundle import attributes

        attributes.check(plan.process, plan.linux)
    plan.filter = compiled(spec)
    plan.joined = _open_namespaces(plan.namespaces)
    plan.hierarchies = cgroups.detect()
    plan.group = plan.hierarchies.open_group(group or group_path(spec, id_, maker))
    return plan


def resources(plan: Plan) -> Resources:
    """Return the limits, with the device rules that every container has.

    None of those for an ordinary user, who may set none and make no devices.
    """
    asked = plan.linux.get("resources") or {}
    if os.geteuid():
        return {**asked, "devices": []}
    return {**asked, "devices": device_rules.rules(asked.get("devices") or [])}


def _open_namespaces(paths: dict[str, str]) -> dict[str, int]:
    """Open the namespaces to be joined, and check that each is of its kind."""
    found: dict[str, int] = {}
    for kind, path in paths.items():
        if not path:
            continue
        try:
            found[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            name = os.readlink(f"/proc/self/fd/{found[kind]}")
        except OSError as error:
            raise InvalidArgument(
                f"cannot open {kind} namespace {path}: {error.strerror}"
            ) from error
        wanted = namespaces.NAMESPACES[kind][1]
        if not _is_kind(found[kind], name, wanted):
            raise InvalidArgument(f"namespace path {path} is not a {kind} namespace")
    return found


def _is_kind(fd: int, name: str, wanted: str) -> bool:
    """Say whether a descriptor is a namespace of a kind (ioctl_ns(2))."""
    import fcntl

    if name.startswith(f"{wanted}:["):
        return True
    try:
        return fcntl.ioctl(fd, namespaces.NS_GET_NSTYPE) == namespaces.flag_of(wanted)
    except OSError:
        return False


def group_path(spec: Spec, id_: str, maker: str) -> str:
    """Return the path of the groups from the tops of hierarchies: cgroupsPath, or one below the maker."""
    path = (spec.get("linux") or {}).get("cgroupsPath") or ""
    if ".." in path.split("/"):
        path = os.path.normpath(f"/{path}")
    if path.startswith("/"):
        return path.strip("/") or id_
    return f"{_group_of(maker)}/{path or id_}".strip("/")


def _group_of(maker: str) -> str:
    """Return the group that a process is in, by the hierarchy that counts processes."""
    own = ""
    with open(f"/proc/{maker}/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "pids" in controllers.split(",") or (not controllers and not own):
                own = path
    return own.rstrip("/") if ".." not in own.split("/") else ""
