"""Messages between berthd and the processes it has forked, as types. Imported while type checking only.

A request's descriptors follow in the order: control socket, pidfd of the container (exec), one an
attachment (exec), the folder of the checkpoint (restore). A handover's: network namespace (``netns``),
one a tree, what goes with a log server (``has_fd``: the folder of its socket, or a memory file with
:class:`CertificatesMessage`), one an attachment, one an orphan, and those that are only kept.
Those that do not fit come in ``keep`` requests afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from berth.oci.runtime_spec import Process, Spec


class ImageMessage(TypedDict):
    """An image's layers, or what is below ``subpath`` there, to be seen at ``target``; see ImageTree."""

    lower: list[str]
    target: str
    subpath: str
    upper: str
    work: str
    is_root: bool


class RootfsMessage(TypedDict, total=False):
    """A directory (``path``, a copy of ``below``) or an overlay; all paths are below ``base``."""

    base: str
    path: str
    below: str
    lower: list[str]
    upper: str
    work: str
    images: list[ImageMessage]


class TreeMessage(TypedDict):
    """A detached mount from the host. ``stored``: of berth's own, whose owners are containers' ids."""

    target: str
    read_only: bool
    propagation: str
    source: str
    subpath: str
    stored: bool


class AttachmentMessage(TypedDict):
    """A client's connection; bytes as hexadecimal digits."""

    stdin: bool
    stdout: bool
    stderr: bool
    multiplexed: bool
    detach_keys: str
    early: str


class LogMessage(TypedDict):
    """The log on disk: ``json-file``, or ``local``, which is also what clients read of remote logs.

    ``max_buffer``: of the mode ``non-blocking``, else 0.
    """

    driver: str
    path: str
    max_size: int | None
    max_files: int
    compress: bool
    attributes: str
    max_buffer: int


class RemoteLogMessage(TypedDict):
    """A server that gets the log as well. ``address``: host and port, or a name in the folder passed."""

    driver: str
    network: str
    family: int
    address: list[str]
    shown: str
    has_fd: bool
    blocking: bool
    max_buffer: int
    tag: str
    format: str
    facility: int
    hostname: str
    fields: dict[str, str]


class CertificatesMessage(TypedDict):
    """TLS with a log server: in PEM, or empty. ``own`` is a certificate with its key."""

    authorities: str
    own: str
    verify: bool
    name: str


class RequestMessage(TypedDict, total=False):
    """What the zygote is asked: ``op`` is task, restore, exec or job. The next line is the plan, if any.

    A monitor that is free may be asked for a spare, with the first three alone.
    """

    op: str
    cgroups_path: str
    flags: int
    default_namespaces: bool
    remapped: bool
    shows_network: bool
    hooks: bool
    directory: str
    pid_namespace: str | None
    terminal: bool
    stdin: bool
    stdin_once: bool
    log: LogMessage | None
    search: str
    attachments: list[AttachmentMessage]
    entry: str
    template: bool


class PlanMessage(TypedDict):
    """What the process is to make of itself; read by itself alone, so that nobody else keeps it in memory."""

    spec: Spec
    process: Process
    rootfs: RootfsMessage
    netns: bool
    clone_flags: int
    user: str
    groups: list[str]
    size: list[int]
    seccomp: str | None
    init: bool
    default_mounts: bool


class HandoverMessage(TypedDict):
    """What a prepared process gets at its start; the child reads the first two as well."""

    netns: bool
    trees: list[TreeMessage]
    attachments: list[AttachmentMessage]
    orphans: int
    log: RemoteLogMessage | None
