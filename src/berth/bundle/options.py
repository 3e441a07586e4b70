"""Mount options of a spec: from words to flags, attributes and data (config.md, "Linux mount options").

Of two words that contradict each other the later one counts.
"""

from __future__ import annotations

from berth.errors import InvalidArgument
from berth.kernel import mounts
from berth.runtime.mountoptions import PROPAGATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MS_MANDLOCK, MS_SILENT, MS_I_VERSION, MS_LAZYTIME = mounts.MS_MANDLOCK, 1 << 15, 1 << 23, 1 << 25
MS_POSIXACL = 1 << 16

# word → (flag, whether it is set)
FLAGS = {
    "ro": (mounts.MS_RDONLY, True),
    "rw": (mounts.MS_RDONLY, False),
    "nosuid": (mounts.MS_NOSUID, True),
    "suid": (mounts.MS_NOSUID, False),
    "nodev": (mounts.MS_NODEV, True),
    "dev": (mounts.MS_NODEV, False),
    "noexec": (mounts.MS_NOEXEC, True),
    "exec": (mounts.MS_NOEXEC, False),
    "sync": (mounts.MS_SYNCHRONOUS, True),
    "async": (mounts.MS_SYNCHRONOUS, False),
    "dirsync": (mounts.MS_DIRSYNC, True),
    "remount": (mounts.MS_REMOUNT, True),
    "mand": (MS_MANDLOCK, True),
    "nomand": (MS_MANDLOCK, False),
    "noatime": (mounts.MS_NOATIME, True),
    "atime": (mounts.MS_NOATIME, False),
    "nodiratime": (mounts.MS_NODIRATIME, True),
    "diratime": (mounts.MS_NODIRATIME, False),
    "relatime": (mounts.MS_RELATIME, True),
    "norelatime": (mounts.MS_RELATIME, False),
    "strictatime": (mounts.MS_STRICTATIME, True),
    "nostrictatime": (mounts.MS_STRICTATIME, False),
    "silent": (MS_SILENT, True),
    "loud": (MS_SILENT, False),
    "iversion": (MS_I_VERSION, True),
    "noiversion": (MS_I_VERSION, False),
    "lazytime": (MS_LAZYTIME, True),
    "nolazytime": (MS_LAZYTIME, False),
    "acl": (MS_POSIXACL, True),
    "noacl": (MS_POSIXACL, False),
    "nosymfollow": (mounts.MS_NOSYMFOLLOW, True),
    "symfollow": (mounts.MS_NOSYMFOLLOW, False),
    "bind": (mounts.MS_BIND, True),
    "rbind": (mounts.MS_BIND | mounts.MS_REC, True),
    "defaults": (0, True),
}
# Flags of mount(2) by the attributes of mount_setattr(2).
ATTRIBUTES = {
    mounts.MS_RDONLY: mounts.MOUNT_ATTR_RDONLY,
    mounts.MS_NOSUID: mounts.MOUNT_ATTR_NOSUID,
    mounts.MS_NODEV: mounts.MOUNT_ATTR_NODEV,
    mounts.MS_NOEXEC: mounts.MOUNT_ATTR_NOEXEC,
    mounts.MS_NODIRATIME: mounts.MOUNT_ATTR_NODIRATIME,
    mounts.MS_NOSYMFOLLOW: mounts.MOUNT_ATTR_NOSYMFOLLOW,
}
ATIMES = {
    mounts.MS_NOATIME: mounts.MOUNT_ATTR_NOATIME,
    mounts.MS_STRICTATIME: mounts.MOUNT_ATTR_STRICTATIME,
    mounts.MS_RELATIME: 0,
}
EXTENSIONS = ("tmpcopyup", "idmap", "ridmap")


class Change:
    """Attributes that mount_setattr(2) sets and clears."""

    __slots__ = ("cleared", "set")

    def __init__(self) -> None:
        self.set = 0
        self.cleared = 0

    def add(self, flag: int, *, wanted: bool) -> None:
        """Take a flag of mount(2) along."""
        attribute = ATTRIBUTES.get(flag, 0)
        if flag in ATIMES:
            # Clearing all of them is how the kernel wants a change of access times told.
            self.cleared |= mounts.MOUNT_ATTR_ATIME
            self.set &= ~mounts.MOUNT_ATTR_ATIME
            self.set |= ATIMES[flag] if wanted else 0
        elif wanted:
            self.set, self.cleared = self.set | attribute, self.cleared & ~attribute
        else:
            self.set, self.cleared = self.set & ~attribute, self.cleared | attribute

    def __bool__(self) -> bool:
        return bool(self.set or self.cleared)


class MountOptions:
    """What the options of one mount say."""

    __slots__ = ("change", "data", "extensions", "flags", "propagations", "recursive")

    def __init__(self, words: Iterable[str]) -> None:
        self.flags = 0
        self.data: list[str] = []
        self.propagations: list[int] = []
        self.extensions: set[str] = set()
        self.change = Change()  # of the mount itself
        self.recursive = Change()  # of it and all below
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if word in FLAGS:
            flag, wanted = FLAGS[word]
            self.flags = self.flags | flag if wanted else self.flags & ~flag
            self.change.add(flag, wanted=wanted)
        elif word in PROPAGATIONS:
            self.propagations.append(PROPAGATIONS[word])
        elif word in EXTENSIONS:
            self.extensions.add(word)
        elif word[:1] == "r" and FLAGS.get(word[1:], (0, True))[0] in _RECURSIVE:
            flag, wanted = FLAGS[word[1:]]
            self.recursive.add(flag, wanted=wanted)
        else:
            self.data.append(word)

    @property
    def is_bind(self) -> bool:
        """Whether it shows something that is there already."""
        return bool(self.flags & mounts.MS_BIND)

    @property
    def is_recursive(self) -> bool:
        """Whether what is mounted below comes along."""
        return bool(self.flags & mounts.MS_REC)

    @property
    def is_read_only(self) -> bool:
        """Whether the mount itself is read-only."""
        return bool(self.flags & mounts.MS_RDONLY)


_RECURSIVE = (*ATTRIBUTES, *ATIMES)


def root_propagation(word: str) -> int:
    """Return the flags for ``linux.rootfsPropagation``; 0 when it says nothing."""
    if word and word not in PROPAGATIONS:
        raise InvalidArgument(f"rootfsPropagation={word} is not supported")
    return PROPAGATIONS.get(word, 0)


def known_words() -> list[str]:
    """Return every word that is not the file system's own, for `features`."""
    recursive = [f"r{word}" for word, (flag, _) in FLAGS.items() if flag in _RECURSIVE]
    return sorted({*FLAGS, *PROPAGATIONS, *EXTENSIONS, *recursive})
