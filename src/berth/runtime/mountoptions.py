"""The options of OCI's mounts, for mount(2)."""

from __future__ import annotations

from berth.kernel import mounts
from berth.kernel.mounts import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
)

OPTION_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": mounts.MS_SYNCHRONOUS,
    "dirsync": mounts.MS_DIRSYNC,
    "noatime": mounts.MS_NOATIME,
    "nodiratime": mounts.MS_NODIRATIME,
    "relatime": mounts.MS_RELATIME,
    "strictatime": mounts.MS_STRICTATIME,
    "nosymfollow": mounts.MS_NOSYMFOLLOW,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
}
# Options that say what is the case without a flag of their own.
DEFAULT_OPTIONS = ("rw", "suid", "dev", "exec", "async", "atime", "diratime", "defaults")
PROPAGATIONS = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": mounts.MS_SLAVE,
    "rslave": mounts.MS_SLAVE | MS_REC,
    "shared": mounts.MS_SHARED,
    "rshared": mounts.MS_SHARED | MS_REC,
    "unbindable": mounts.MS_UNBINDABLE,
    "runbindable": mounts.MS_UNBINDABLE | MS_REC,
}


def parse_options(options: list[str]) -> tuple[int, str, int]:
    """Split OCI mount options: (mount flags, data for the file system, propagation flags)."""
    flags = propagation = 0
    data: list[str] = []
    for option in options:
        if option in OPTION_FLAGS:
            flags |= OPTION_FLAGS[option]
        elif option in PROPAGATIONS:
            propagation = PROPAGATIONS[option]
        elif option not in DEFAULT_OPTIONS:
            data.append(option)
    return flags, ",".join(data), propagation
