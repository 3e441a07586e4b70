"""What a container's first process needs, gathered and opened before it is made: it fails here or nowhere.

What the spec names by paths outside is opened by the caller, so that the process made afterwards has only
descriptors.
"""

from __future__ import annotations

import _socket
import os

from berth.bundle import attributes, checks, devices, hooks, mounting
from berth.bundle.warnings import warn
from berth.errors import Failed, InvalidArgument
from berth.kernel import capabilities, cgroups, namespaces, seccomp, sockets
from berth.runtime.accounts import MAX_ID, Account, number, read_entries

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
FIRST_PRESERVED = 3


class Filter:
    """A compiled seccomp filter, its flags, and the agent that is told of calls."""

    __slots__ = ("agent", "flags", "metadata", "program")

    def __init__(self, document: Seccomp) -> None:
        from berth.runtime.seccomp import compiler

        self.flags = 0
        for name in document.get("flags") or ():
            if name not in FILTER_FLAGS:
                raise InvalidArgument(f"seccomp flags: {name!r} is not known here")
            self.flags |= FILTER_FLAGS[name]
        self.agent: _socket.socket | None = None
        self.metadata = document.get("listenerMetadata", "")
        if _notifies(document):
            _check_notified(document)
            self.flags |= seccomp.FLAG_NEW_LISTENER
            self.flags &= ~seccomp.FLAG_TSYNC  # the two exclude each other, and there is one thread
            self.agent = _connect(document.get("listenerPath", ""))
        self.program = compiler.compile_filter(document)


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


def _connect(path: str) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise Failed(
            f"failed to connect with seccomp agent specified in {path!r}: {error}"
        ) from error
    return sock


def compiled(spec: Spec) -> Filter | None:
    """Return the filter of a spec."""
    document = (spec.get("linux") or {}).get("seccomp")
    if not document:
        return None
    if document.get("defaultAction") == NOTIFY:
        raise InvalidArgument("SCMP_ACT_NOTIFY cannot be used as default action")
    return Filter(document)


def account(process: Process) -> Account:
    """Return the ids of a process; called inside the root, whose passwd knows the home directory.

    Groups are those that the spec names: what the root's files say of them gives no rights.
    """
    user = process.get("user") or {}
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    groups = list(user.get("additionalGids") or ())
    for value in (uid, gid, *groups):
        if not 0 <= value <= MAX_ID:
            raise InvalidArgument(f"invalid user or group id {value}")
    home = "/"
    if not any(
        entry.startswith("HOME=") and entry != "HOME=" for entry in process.get("env") or ()
    ):
        rows = (row for row in read_entries("/etc/passwd", 6) if number(row[2]) == uid)
        home = next((row[5] for row in rows if row[5]), "/")
    return Account(uid, gid, groups, home)


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


class Plan:
    """Everything about a process that is about to be made."""

    def __init__(
        self, spec: Spec, *, id_: str, bundle: str, maker: str = "self", group: str = ""
    ) -> None:
        """Gather it; ``group``: the path of its groups where somebody else says it."""
        self.spec = spec
        self.id = id_
        self.bundle = bundle
        self.process: Process = spec.get("process") or {}
        self.linux = spec.get("linux") or {}
        root = spec.get("root") or {}
        path = root.get("path", "")
        self.rootfs = os.path.normpath(path if os.path.isabs(path) else f"{bundle}/{path}")
        drop_unknown_capabilities(self.process)
        self.namespaces = checks.namespace_paths(self.linux)
        attributes.check(self.process, self.linux)
        self.filter = compiled(spec)
        self.entries = mounting.entries(spec)
        self.joined = _open_namespaces(self.namespaces)
        self.hierarchies = cgroups.detect()
        self.group = self.hierarchies.open_group(group or group_path(spec, id_, maker))
        self.has_group = True
        self.has_own_group = False  # nobody else's processes are in it
        self.no_pivot = False
        self.no_new_keyring = False
        self.preserved = 0
        self.terminal = bool(self.process.get("terminal"))
        self.console: _socket.socket | None = None
        self.listener: sockets.Socket | None = None
        self.state: dict[str, object] = {}

    @property
    def in_user_namespace(self) -> bool:
        """Whether it is in another user namespace than its maker."""
        return "user" in self.namespaces

    def is_new(self, kind: str) -> bool:
        """Say whether a namespace of the kind is made for it."""
        return self.namespaces.get(kind, "missing") == ""

    def has_early_hooks(self) -> bool:
        """Say whether hooks have to run before its root becomes the root."""
        return any(hooks.of(self.spec, kind) for kind in hooks.KINDS[:3])

    def resources(self) -> Resources:
        """Return the limits, with the device rules that every container has.

        None of those for an ordinary user, who may set none and make no devices.
        """
        asked = self.linux.get("resources") or {}
        if os.geteuid():
            return {**asked, "devices": []}
        return {**asked, "devices": devices.rules(asked.get("devices") or [])}


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
