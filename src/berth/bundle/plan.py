"""Everything about a container's first process that is about to be made."""

from __future__ import annotations

import os

from berth.bundle import names
from berth.errors import InvalidArgument
from berth.runtime.accounts import MAX_ID, Account, number, read_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from berth.bundle.mounting import Entry
    from berth.kernel import cgroups, sockets
    from berth.oci.runtime_spec import Process, Spec

FIRST_PRESERVED = 3
EARLY_HOOKS = ("prestart", "createRuntime", "createContainer")  # before its root becomes the root


class Filter:
    """A compiled seccomp filter, its flags, and the agent that is told of calls."""

    __slots__ = ("agent", "flags", "metadata", "program")

    def __init__(
        self, program: bytes, flags: int, metadata: str, agent: _socket.socket | None
    ) -> None:
        self.program = program
        self.flags = flags
        self.metadata = metadata
        self.agent = agent


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


class Plan:
    """What the spec says of it, and what `berth.bundle.gathering` has opened for it."""

    hierarchies: cgroups.Hierarchies
    group: cgroups.Cgroup

    def __init__(self, spec: Spec, *, id_: str, bundle: str) -> None:
        self.spec = spec
        self.id = id_
        self.bundle = bundle
        self.process: Process = spec.get("process") or {}
        self.linux = spec.get("linux") or {}
        root = spec.get("root") or {}
        path = root.get("path", "")
        self.rootfs = os.path.normpath(path if os.path.isabs(path) else f"{bundle}/{path}")
        self.namespaces = names.namespace_paths(self.linux)
        self._entries: list[Entry] | None = None
        self.joined: dict[str, int] = {}
        self.filter: Filter | None = None
        self.points: dict[str, str] = {}  # where hierarchies are mounted, as their maker sees it
        self.has_group = True
        self.has_own_group = False  # nobody else's processes are in it
        self.no_pivot = False
        self.no_new_keyring = False
        self.preserved = 0
        self.terminal = bool(self.process.get("terminal"))
        self.console: _socket.socket | None = None
        self.listener: sockets.Socket | None = None
        self.lock = -1  # of the container, which its process must not keep
        self.state: dict[str, object] = {}

    @property
    def entries(self) -> list[Entry]:
        """Its mounts. A command that has a deputy mounts nothing, so this is loaded when it is wanted."""
        if self._entries is None:
            from berth.bundle import mounting

            self._entries = mounting.entries(self.spec)
        return self._entries

    @property
    def in_user_namespace(self) -> bool:
        """Whether it is in another user namespace than its maker."""
        return "user" in self.namespaces

    def is_new(self, kind: str) -> bool:
        """Say whether a namespace of the kind is made for it."""
        return self.namespaces.get(kind, "missing") == ""

    def makes(self, kind: str) -> bool:
        """Say whether a new namespace is made with the process, not ahead of it."""
        return self.is_new(kind) and kind not in self.joined

    def has_early_hooks(self) -> bool:
        """Say whether hooks have to run before its root becomes the root."""
        hooks = self.spec.get("hooks") or {}
        return any(hooks.get(kind) for kind in EARLY_HOOKS)

    def has_labels(self) -> bool:
        """Say whether the program runs with a label of a security module."""
        return bool(self.process.get("apparmorProfile") or self.process.get("selinuxLabel"))

    def has_attributes(self) -> bool:
        """Say whether the process is scheduled, or sees the machine, in a way of its own."""
        process, linux = self.process, self.linux
        return bool(
            process.get("scheduler")
            or process.get("ioPriority")
            or linux.get("personality")
            or linux.get("memoryPolicy")
        )
