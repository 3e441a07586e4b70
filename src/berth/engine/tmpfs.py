"""`--tmpfs` and `--mount type=tmpfs`: what is asked for, checked and in the runtime's words."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.engine.models import HostConfig, MountRequest, TmpfsOptions
    from berth.oci.runtime_spec import Mount

SAFE = ("noexec", "nosuid", "nodev")
# Words by what they are about: the last one of each counts.
SWITCHES = (
    ("ro", "rw"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("exec", "noexec"),
    ("sync", "async"),
    ("dirsync",),
    ("atime", "noatime"),
    ("diratime", "nodiratime"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
    ("mand", "nomand"),
    ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"),
)
VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
OWN_WORDS = ("exec", "noexec")  # that --mount takes besides its own fields
# Of no effect in the kernel of today, and unknown to a mount(2) of tmpfs.
PAST = ("norelatime", "nostrictatime", "mand", "nomand", "defaults")


def mounts(host: HostConfig) -> list[Mount]:
    """Return the file systems to mount; InvalidArgument in Docker's words."""
    found = [_mount(target, text.split(",")) for target, text in (host.tmpfs or {}).items()]
    return found + [_mount(m.target, _words(m)) for m in requested(host)]


def requested(host: HostConfig) -> list[MountRequest]:
    """Return those that came as mounts."""
    return [request for request in host.mounts or [] if request.type == "tmpfs"]


def documents(host: HostConfig) -> list[dict[str, object]]:
    """Return how inspect shows those that came as mounts; the others are in the host configuration only."""
    return [
        {
            "Type": "tmpfs",
            "Source": "",
            "Destination": posixpath.normpath(request.target),
            "Mode": "",
            "RW": not request.read_only,
            "Propagation": "",
        }
        for request in requested(host)
    ]


def check(request: MountRequest) -> None:
    """Refuse a mount that makes no sense."""
    if request.source:
        raise InvalidArgument("field Source must not be specified")
    for pair in request.tmpfs_options.options or [] if request.tmpfs_options else []:
        if len(pair) not in (1, 2):
            raise InvalidArgument("invalid option array length")
        if pair[0] not in OWN_WORDS:
            raise InvalidArgument(f"invalid option: {pair[0]}")


def _words(request: MountRequest) -> list[str]:
    words = ["ro"] if request.read_only else []
    options: TmpfsOptions | None = request.tmpfs_options
    if options is None:
        return words
    if options.mode:
        words.append(f"mode={options.mode:o}")
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    return words + ["=".join(pair) for pair in options.options or []]


def _mount(target: str, asked: list[str]) -> Mount:
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{target}' mount path must be absolute")
    kept: dict[object, str] = {}
    for word in [*SAFE, *filter(None, asked)]:
        about = next((switch for switch in SWITCHES if word in switch), None)
        name, equals, _ = word.partition("=")
        if about is None and word != "defaults" and not (equals and name in VALUES):
            raise InvalidArgument(f'invalid tmpfs option "{name}"')
        kept[about or name] = word
    options = [word for word in kept.values() if word not in PAST]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
