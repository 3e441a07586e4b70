"""What berthd asks of the runtime, as values. Imported by berthd only, never by the zygote."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from berth.oci.runtime_spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """The layers of an image, topmost first, or what is below ``subpath`` there, at ``target``.

    Read-only but with ``upper`` and ``work``, where what is written goes. ``is_root``: for the links in
    ``subpath`` it is the root; else none may lead out.
    """

    lower: tuple[str, ...]
    target: str
    subpath: str = ""
    upper: str = ""
    work: str = ""
    is_root: bool = False

    def document(self) -> dict[str, object]:
        """Return it as messages have it."""
        return {
            "lower": list(self.lower),
            "target": self.target,
            "subpath": self.subpath,
            "upper": self.upper,
            "work": self.work,
            "is_root": self.is_root,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRootfs:
    """An overlay to be mounted inside the container's own mount namespace.

    ``lower`` is ordered topmost first. Names are relative to ``base`` and short: together they must
    fit the 4096 bytes that mount(2) takes. An entry that starts with ``/`` is absolute.
    """

    base: Path
    lower: tuple[str, ...]
    upper: str
    work: str
    images: tuple[ImageTree, ...] = ()

    def document(self) -> dict[str, object]:
        """Return it as messages have it."""
        return {
            "base": str(self.base),
            "lower": list(self.lower),
            "upper": self.upper,
            "work": self.work,
            "images": [image.document() for image in self.images],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRootfs:
    """A directory that is the root itself: a copy of the image that the directory ``below`` has.

    Both are relative to ``base``.
    """

    base: Path
    path: str
    below: str
    images: tuple[ImageTree, ...] = ()

    def document(self) -> dict[str, object]:
        """Return it as messages have it."""
        return {
            "base": str(self.base),
            "path": self.path,
            "below": self.below,
            "images": [image.document() for image in self.images],
        }


Rootfs = OverlayRootfs | DirectoryRootfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A host file or directory for the container, as a detached mount.

    ``fd`` comes from :func:`berth.kernel.mounts.open_tree` with ``OPEN_TREE_CLONE``, so the path was
    resolved on the host, by berthd. The runtime attaches it at ``target`` inside the root (created
    there when missing). ``propagation`` is one of mount(2)'s names, ``rprivate`` unless said. With
    ``subpath`` it is what lies there in the mount, links followed inside of it.
    """

    fd: int
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    source: str = ""  # for messages
    subpath: str = ""
    stored: bool = False  # by berth, with the owners that containers see, also in user namespaces

    def document(self) -> dict[str, object]:
        """Return it as messages have it."""
        return {
            "target": self.target,
            "read_only": self.read_only,
            "propagation": self.propagation,
            "source": self.source,
            "subpath": self.subpath,
            "stored": self.stored,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTarget:
    """Where and how the monitor writes a log on disk."""

    path: Path
    driver: str = "json-file"  # or local
    max_size_bytes: int | None = None
    max_files: int = 1
    compress: bool = False
    attributes: str = ""  # a JSON object for each entry
    max_buffer_bytes: int = 0  # of what waits for the disk; 0: the container does


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLog:
    """A server that gets the log as well; a unix socket's ``address`` is its name in the folder.

    ``fd``, the caller's to close, is that folder, or for TLS a memory file with certificates.
    """

    driver: str  # syslog, journald
    network: str
    family: int
    address: tuple[str, ...]
    shown: str  # the address, for people
    fd: int | None = None
    blocking: bool = True
    max_buffer_bytes: int = 1 << 20
    tag: str = ""
    format: str = ""
    facility: int = 3
    hostname: str = ""
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A client's connection that the monitor serves from now on.

    ``fd`` is a connected stream socket whose protocol head has been written; it is duplicated into the
    monitor, and the caller closes its own. ``early`` are bytes the client sent already. With
    ``multiplexed`` output is framed as the Engine API describes (8-byte header: stream, 0, 0, 0, size).
    """

    fd: int
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    multiplexed: bool = True
    detach_keys: bytes = b"\x10\x11"
    early: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultSpec:
    """What most containers are like: by this, processes are made ahead of them."""

    spec: Spec  # namespaces, mounts, devices, hidden paths
    group: str  # that containers' groups are made in, by their ids
    ahead: bool = True  # make them: new containers are like this


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """Prepare the process of a container, with a monitor of its own: everything but :class:`Handover`."""

    id: str
    directory: Path  # made by the caller, empty: control socket and records live there
    spec: Spec
    rootfs: Rootfs
    netns: bool = (
        False  # the handover brings a network namespace to join; with mapped ids, it shows its own
    )
    user: str = ""  # as image or client wrote it: "", "1000", "name", "name:group"; resolved inside the root
    groups: tuple[str, ...] = ()  # --group-add, names or numbers, resolved inside the root
    terminal: bool = False
    terminal_size: tuple[int, int] = (0, 0)  # rows, columns
    stdin: bool = False  # keep a stdin open (-i)
    stdin_once: bool = False  # the first attached client's end of input closes it
    log: LogTarget | None = None
    seccomp: bytes | None = None  # compiled filter (struct sock_filter[]), None for unconfined
    init: bool = False  # --init: a reaping pid 1 of ours that forwards signals
    checkpoint: Path | None = None  # go on from there


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What a prepared process gets at its start. The caller closes its own copies of the descriptors."""

    trees: tuple[Tree, ...] = ()
    netns_fd: int | None = None  # join this network namespace
    attachments: tuple[Attachment, ...] = ()
    orphans: tuple[int, ...] = ()  # connections of /wait, see Task.answer_if_orphaned
    log: RemoteLog | None = None
    keep_fds: tuple[int, ...] = ()  # held by the monitor till the end of the process


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """Start one more process in a running task, with a monitor of its own."""

    id: str
    container_id: str
    directory: Path
    pid: int  # the task's pid 1, with its pidfd
    pidfd: int
    process: dict[str, object] = field(default_factory=dict)  # spec.process
    cgroups_path: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    terminal: bool = False
    terminal_size: tuple[int, int] = (0, 0)
    stdin: bool = False
    seccomp: bytes | None = None
    remapped: bool = False  # the container is in a user namespace, with the maps of
    linux: dict[str, object] = field(default_factory=dict)  # spec.linux
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a process ended. ``exit_code`` is 128+n after signal n.

    137 with a ``reason`` when its monitor died.
    """

    exit_code: int
    finished_at_ns: int
    started_at_ns: int = 0
    oom_killed: bool = False
    reason: str | None = None
