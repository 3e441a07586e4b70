"""The mounts of a spec, in their order, on places inside the root.

What is bound comes from outside, so it is opened first; then the process changes its root, and every path of
the root is resolved there (see `berth.runtime.places`).
"""

from __future__ import annotations

import os
import stat

from berth.bundle.options import MountOptions
from berth.errors import InvalidArgument
from berth.kernel import mounts
from berth.kernel.mounts import MS_BIND, MS_REC, MS_REMOUNT, mount
from berth.runtime import groupmounts, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.kernel.cgroups import Cgroup, Hierarchy
    from berth.oci.runtime_spec import Mount, Spec

# mount(2) knows these on a new file system; the others are attributes set afterwards.
PER_MOUNT = MS_REC | MS_BIND
GROUPS = ("cgroup", "cgroup2")
UNLABELLED = ("proc", "sysfs", "mqueue")  # they have labels of their own (SELinux)


class Entry:
    """One mount: what the spec says, what its options mean, and what it binds.

    That is a ``source``, which becomes a detached ``tree`` only when it is its turn: mountinfo has mounts in
    the order in which they were made.
    """

    __slots__ = ("group_trees", "options", "source", "spec", "target", "tree")

    def __init__(self, spec: Mount) -> None:
        self.spec = spec
        self.options = MountOptions(spec.get("options") or ())
        self.target = "/" + os.path.normpath(spec["destination"]).lstrip("/")
        self.source = -1
        self.tree = -1
        self.group_trees: list[tuple[str, int]] = []  # (name, tree)

    @property
    def is_bind(self) -> bool:
        """Whether it shows something of the host's; `remount` only changes what is there."""
        return self.options.is_bind and not self.options.flags & MS_REMOUNT

    @property
    def is_mapped(self) -> bool:
        """Whether it shows that with other owners."""
        return self.is_bind and bool({"idmap", "ridmap"} & self.options.extensions)

    @property
    def fstype(self) -> str:
        """The kind of file system."""
        return self.spec.get("type", "")


def mount_label(label: str) -> str:
    """Return the option by which a new file system's files all have a label."""
    return f'context="{label}"' if label else ""


def entries(spec: Spec) -> list[Entry]:
    """Return the mounts of a spec."""
    return [Entry(mount_) for mount_ in spec.get("mounts") or ()]


def open_source(entry: Entry) -> None:
    """Open what an entry binds, in the mount namespace that the process is in."""
    source = entry.spec.get("source", "")
    try:
        entry.source = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InvalidArgument(
            f'error mounting "{source}" to rootfs at "{entry.target}": stat {source}: {why.lower()}'
        ) from error


def open_tree(entry: Entry) -> None:
    """Make the detached mount of what an entry binds."""
    entry.tree = mounts.open_tree("", dir_fd=entry.source, recursive=entry.options.is_recursive)
    os.close(entry.source)
    entry.source = -1


def open_group_trees(
    entry: Entry, group: Cgroup, points: Mapping[str, str], *, has_group: bool
) -> None:
    """Open the container's own groups, to be bound where it has no cgroup namespace.

    ``points`` are from before this mount namespace: here a changed root would be part of the paths. A
    container for which none could be made is in its caller's.
    """
    for hierarchy in group.hierarchies.found:
        if hierarchy.unified and not group.hierarchies.only_unified:
            continue
        # By its path: the descriptor is in another mount namespace.
        path = group.path if has_group else _own_path(hierarchy)
        tree = mounts.open_tree(f"{points[hierarchy.name]}/{path}", recursive=False)
        entry.group_trees.append((hierarchy.name, tree))


def _own_path(hierarchy: Hierarchy) -> str:
    """Return the path of the group that this process is in."""
    controllers = "" if hierarchy.unified else hierarchy.options
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, of, path = line.rstrip("\n").split(":", 2)
            if set(of.split(",")) == set(controllers.split(",")):
                return path.lstrip("/")
    return ""


class Mounter:
    """Mounts entries inside the root."""

    def __init__(self, controllers: list[str], label: str = "") -> None:
        self._controllers = controllers
        self._label = mount_label(label)
        self._later: list[Entry] = []  # what becomes read-only when everything is in its place

    def mount(self, entry: Entry) -> None:
        """Mount one entry."""
        try:
            self._mount(entry)
        except OSError as error:
            source = entry.spec.get("source", "")
            why = os.strerror(error.errno or 0)
            raise InvalidArgument(
                f'error mounting "{source}" to rootfs at "{entry.target}": {error.strerror or why}'
            ) from error

    def _mount(self, entry: Entry) -> None:
        if entry.source >= 0:
            open_tree(entry)
        if entry.tree >= 0:
            self._bind(entry)
        elif entry.fstype in GROUPS:
            self._mount_groups(entry)
            return
        else:
            self._mount_file_system(entry)
        place = entry.tree if entry.tree >= 0 else places.open_mounted(entry.target)
        try:
            _change(place, entry, also_itself=entry.tree >= 0)
        finally:
            os.close(place)

    def _bind(self, entry: Entry) -> None:
        status = os.fstat(entry.tree)
        directory = stat.S_ISDIR(status.st_mode)
        is_proc = mounts.filesystem_type(entry.tree) == mounts.PROC_MAGIC
        place = places.open_place(entry.target, directory=directory, proc=is_proc, clear=False)
        try:
            if directory != stat.S_ISDIR(os.fstat(place).st_mode):
                raise InvalidArgument(
                    f'error mounting "{entry.spec.get("source")}" to rootfs at "{entry.target}":'
                    " not a directory"
                )
            mounts.move_mount(entry.tree, "", dir_fd=place)
        finally:
            os.close(place)

    def _mount_file_system(self, entry: Entry) -> None:
        options, fstype = entry.options, entry.fstype
        labelled = [self._label] if self._label and fstype not in UNLABELLED else []
        flags, data = options.flags & ~PER_MOUNT, ",".join([*options.data, *labelled])
        existed = os.path.isdir(entry.target)
        if fstype in ("proc", "sysfs") and os.path.lexists(entry.target):
            _check_plain(entry.target, fstype)
        if options.flags & MS_REMOUNT:
            place = places.open_plain(entry.target)
            if place is None:
                raise InvalidArgument(f"cannot remount {entry.target!r}: it is not there")
        else:
            place = places.open_place(
                entry.target,
                directory=True,
                proc=fstype == "proc",
                clear=fstype in ("proc", "sysfs"),
            )
        if fstype == "tmpfs" and existed and "mode=" not in data:
            mode = stat.S_IMODE(os.fstat(place).st_mode)
            data = f"{data},mode={mode:o}" if data else f"mode={mode:o}"
        below = -1
        if "tmpcopyup" in options.extensions:
            below = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
        if options.is_read_only and (fstype == "tmpfs" or entry.target == "/dev"):
            flags &= ~mounts.MS_RDONLY  # things have to be put into it first
            self._later.append(entry)
        os.chdir(place)  # "." is the place itself, wherever its path leads by now
        mount(entry.spec.get("source") or fstype, ".", fstype, flags, data)
        os.chdir("/")
        os.close(place)
        if below >= 0:
            mounted = places.open_mounted(entry.target)
            from berth.runtime.treecopy import TreeCopy

            TreeCopy(below, mounted).whole()
            os.chdir("/")
            os.close(mounted)
            os.close(below)

    def _mount_groups(self, entry: Entry) -> None:
        flags = entry.options.flags & ~PER_MOUNT
        if not entry.group_trees:
            os.close(places.open_place(entry.target, directory=True, clear=False))
            groupmounts.mount_groups(entry.target, flags, self._controllers)
            return
        place = places.open_place(entry.target, directory=True, clear=False)
        only_one = len(entry.group_trees) == 1
        if not only_one:
            os.chdir(place)
            mount("tmpfs", ".", "tmpfs", groupmounts.SAFE_FLAGS, "mode=755,size=64k")
            os.chdir("/")
        os.close(place)
        for name, tree in entry.group_trees:
            target = entry.target if only_one else f"{entry.target}/{name}"
            if not only_one:
                os.mkdir(target, 0o755)  # in the tmpfs that was just mounted
            wanted = mounts.MOUNT_ATTR_RDONLY if entry.options.is_read_only else 0
            mounts.mount_setattr(tree, attr_set=wanted | groupmounts.SAFE_ATTRIBUTES)
            mounts.move_mount(tree, target)
            os.close(tree)
        if entry.options.is_read_only and not only_one:
            mount(
                "",
                entry.target,
                flags=MS_REMOUNT | MS_BIND | mounts.MS_RDONLY | groupmounts.SAFE_FLAGS,
            )

    def finish(self) -> None:
        """Make read-only what had to stay writable while others were put into it."""
        for entry in self._later:
            place = places.open_mounted(entry.target)
            mounts.mount_setattr(place, attr_set=mounts.MOUNT_ATTR_RDONLY)
            os.close(place)


def _check_plain(path: str, fstype: str) -> None:
    """Refuse links and files where the kernel's file systems go: what comes after relies on them."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise InvalidArgument(f"filesystem {fstype!r} must be mounted on ordinary directory")


def _change(place: int, entry: Entry, *, also_itself: bool) -> None:
    """Set the attributes and the propagation of a mount that is in its place."""
    options = entry.options
    if also_itself and options.change:
        mounts.mount_setattr(place, attr_set=options.change.set, attr_clr=options.change.cleared)
    if options.recursive:
        mounts.mount_setattr(
            place,
            attr_set=options.recursive.set,
            attr_clr=options.recursive.cleared,
            recursive=True,
        )
    for flags in options.propagations:
        mounts.mount_setattr(place, propagation=flags & ~MS_REC, recursive=bool(flags & MS_REC))
