"""The container's root: made inside a changed root, so that no path of it leads out, then pivoted to."""

from __future__ import annotations

import os

from berth.bundle import devices, mounting, options
from berth.bundle.warnings import warn
from berth.kernel import mounts
from berth.kernel.mounts import MS_BIND, MS_MOVE, MS_PRIVATE, MS_REC, MS_SLAVE, mount
from berth.runtime import hiding, places
from berth.runtime.mountpoints import points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.plan import Plan

KERNELS = ("proc", "sysfs")


class Root:
    """The root of one container's process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # In a namespace that others are in, nothing is mounted and no root moved: it would be theirs too.
        self._has_mounts = plan.is_new("mount")
        self._outside = -1
        self._inside = -1
        self._nodes: devices.Nodes | None = None
        self._mounter: mounting.Mounter | None = None

    def open_sources(self, mapped: list[int], opened: list[int]) -> None:
        """Open everything of the host's that will be mounted, while it can be seen.

        ``mapped``: id-mapped trees that the maker has opened; ``opened``: the rest, if it has.
        """
        plan = self._plan
        self._outside = _open_directory("/")
        if not self._has_mounts:
            self._inside = _open_directory(plan.rootfs)
            if plan.entries:
                warn("mounts are passed over: the container has no mount namespace of its own")
            return
        os.chdir(plan.bundle)
        propagation = options.root_propagation(plan.linux.get("rootfsPropagation", ""))
        if plan.is_new("mount"):
            is_late = propagation & mounts.MS_UNBINDABLE  # it could not be bound
            flags = MS_PRIVATE | MS_REC if is_late else propagation or MS_SLAVE | MS_REC
            mount("", "/", flags=flags)
        for entry in plan.entries:
            if entry.is_mapped:
                entry.tree = mapped.pop(0)
            elif entry.is_bind and opened:
                entry.source = opened.pop(0)
            elif entry.is_bind:
                mounting.open_source(entry)
            elif entry.fstype in mounting.GROUPS and "cgroup" not in plan.namespaces:
                mounting.open_group_trees(entry, plan.group, plan.points, has_group=plan.has_group)
        self._nodes = devices.Nodes(plan.spec, bind=plan.in_user_namespace)
        _make_parent_private(plan.rootfs, propagation)
        mount(plan.rootfs, plan.rootfs, flags=MS_BIND | MS_REC)
        # Now: in a user namespace, the way to it may be closed to who it is afterwards.
        self._inside = _open_directory(plan.rootfs)

    def make(self) -> None:
        """Enter the root and put everything into it."""
        self.enter()
        if not self._has_mounts:
            return
        self._mounter = mounting.Mounter(
            self._plan.hierarchies.mount_options(), self._plan.linux.get("mountLabel", "")
        )
        for entry in self._plan.entries:
            self._mounter.mount(entry)
        assert self._nodes is not None
        self._nodes.make()

    def enter(self) -> None:
        """Make it the root of this process, for paths only."""
        os.fchdir(self._inside)
        os.chroot(".")
        os.chdir("/")

    def leave(self) -> None:
        """Make the host's root the root of this process again, the container's the working directory.

        So hooks find them.
        """
        os.fchdir(self._outside)
        os.chroot(".")
        os.fchdir(self._inside)

    def become_root(self) -> None:
        """Leave nothing of the host's tree in this mount namespace."""
        if not self._has_mounts:
            return  # it has changed its root, and the host's mounts are its own as well
        os.fchdir(self._outside)
        os.chroot(".")
        os.fchdir(self._inside)
        if self._plan.no_pivot:
            self._cover_kernel_file_systems()
            mount(".", "/", flags=MS_MOVE)
            os.chroot(".")
        else:
            mounts.pivot_root(".", ".")
            os.fchdir(self._outside)
            mount(
                "", ".", flags=MS_SLAVE | MS_REC
            )  # so that what is unmounted here stays elsewhere
            mounts.umount2(".", mounts.MNT_DETACH)
        os.chdir("/")
        word = self._plan.linux.get("rootfsPropagation", "")
        if word in ("shared", "rshared", "unbindable", "runbindable"):
            mount("", "/", flags=options.root_propagation(word))

    def _cover_kernel_file_systems(self) -> None:
        """Take away the host's /proc and /sys: below a moved root they stay, and permit fresh ones."""
        found = [point.path for point in points("self") if point.fstype in KERNELS]
        own = f"{self._plan.rootfs}/"
        for point in sorted((p for p in found if not p.startswith(own)), key=len, reverse=True):
            try:
                mount("", point, flags=MS_SLAVE | MS_REC)
                mounts.umount2(point, mounts.MNT_DETACH)
            except OSError:  # locked in a user namespace: then nobody may look below this
                mount("tmpfs", point, "tmpfs")

    def restrict(self) -> None:
        """Hide and protect what the spec says."""
        linux = self._plan.linux
        if not self._has_mounts:
            return
        if self._mounter is not None:
            self._mounter.finish()
        hiding.make_read_only(linux.get("readonlyPaths") or [])
        hiding.mask(linux.get("maskedPaths") or [])
        if (self._plan.spec.get("root") or {}).get("readonly"):
            root = os.open("/", os.O_PATH | os.O_CLOEXEC)
            mounts.mount_setattr(root, attr_set=mounts.MOUNT_ATTR_RDONLY)
            os.close(root)

    def bind_console(self, slave: int) -> None:
        """Show the terminal as /dev/console."""
        if not self._has_mounts:
            return
        tree = mounts.open_tree("", dir_fd=slave, recursive=False)
        place = places.open_place("/dev/console", directory=False, clear=False)
        mounts.move_mount(tree, "", dir_fd=place)
        for fd in (tree, place, slave):
            os.close(fd)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_parent_private(path: str, propagation: int) -> None:
    """Make the mount that ``path`` is in private, if it may be shared: pivot_root(2) takes no other."""
    if not propagation & mounts.MS_SHARED:
        return
    found = [point.path for point in points("self")]
    around = [p for p in found if path == p or path.startswith(f"{p.rstrip('/')}/")]
    mount("", max(around, key=len), flags=MS_PRIVATE)
