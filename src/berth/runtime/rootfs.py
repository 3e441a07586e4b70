"""The container's root: mounted in its own mount namespace, then completed from inside.

Runs in the child after clone3. First the root itself and the pivot; everything else is mounted after
the pivot, when no path can lead out of the root any more. What comes from the host comes as detached
mounts, opened before. Where it goes is `berth.runtime.places`.
"""

from __future__ import annotations

import os
import stat

from berth.errors import MountMismatch
from berth.kernel import mounts, namespaces
from berth.kernel.mounts import (
    MS_BIND,
    MS_MOVE,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
)
from berth.runtime import groupmounts, hiding, nodes, places
from berth.runtime.mountoptions import PROPAGATIONS, parse_options
from berth.runtime.template import EMPTY, HIDING, HOST_ROOT, MACHINE, ROOTFS, STAGE, STAGED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.oci.runtime_spec import Mount, Spec
    from berth.runtime.messages import RootfsMessage, TreeMessage

SHM = "/dev/shm"  # noqa: S108 - the container's
ASIDE = "/dev/.cgroup"
PART = "/dev/.part"
OVERLAY_OPTIONS = "index=off,metacopy=off,redirect_dir=off"


class Tree:
    """A detached mount from the host and where it goes."""

    __slots__ = ("fd", "propagation", "read_only", "source", "subpath", "target")

    def __init__(
        self, fd: int, target: str, read_only: bool, propagation: str, source: str = ""
    ) -> None:
        self.fd = fd
        self.target = target
        self.read_only = read_only
        self.propagation = propagation
        self.source = source  # for messages
        self.subpath = ""


class Staged:
    """A mount, with what is below it, that waits outside the root."""

    __slots__ = ("fd", "target")

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self.target = path.removeprefix(STAGE)


def tree_of(fd: int, message: TreeMessage) -> Tree:
    """Return the tree that a message and its descriptor stand for."""
    source = message.get("source", "")
    tree = Tree(fd, message["target"], message["read_only"], message["propagation"], source)
    tree.subpath = message.get("subpath", "")
    return tree


def shared_memory(namespace: str) -> list[Tree]:
    """Return /dev/shm of the mount namespace ``namespace``, for who joins the ipc namespace there.

    A copy of a mount can be made in its own namespace only. Its path is not trusted: nothing but a mount's
    root of a tmpfs is taken.
    """
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(theirs, namespaces.CLONE_NEWNS)
    place = places.open_plain(SHM)
    is_memory = place is not None and mounts.filesystem_type(place) == mounts.TMPFS_MAGIC
    tree = mounts.open_tree("", dir_fd=place, recursive=False) if is_memory and place else None
    namespaces.setns(own, namespaces.CLONE_NEWNS)
    for fd in (own, theirs, place):
        if fd is not None:
            os.close(fd)
    return [] if tree is None else [Tree(tree, SHM, False, "rprivate")]


def open_images(rootfs: RootfsMessage) -> list[Tree]:
    """Return the images that are to be seen in the container: mounted at ROOTFS for a moment each.

    As overlays, which nobody can make writable: a bind is read-only until somebody in the container who may
    mount says otherwise. Where containers are copies there may be no overlayfs.
    """
    trees = []
    for image in rootfs.get("images", ()):
        os.chdir(rootfs["base"])
        upper = image["upper"]
        if upper:
            mount_overlay(image["lower"], upper=upper, work=image["work"])
        else:
            mount_lower(image["lower"] if "path" in rootfs else [*image["lower"], EMPTY])
        part = places.open_below(ROOTFS, image["subpath"], is_root=image["is_root"])
        trees.append(Tree(part, image["target"], not upper, ""))
        mounts.umount2(ROOTFS, mounts.MNT_DETACH)
    return trees


def mount_root(rootfs: RootfsMessage, staged: Sequence[Staged] = ()) -> None:
    """Mount the root at ROOTFS and make it the root of this mount namespace.

    A read-only root stays writable until :func:`seal_root`, for mount points have to be made in it.
    """
    mount_at_rootfs(rootfs)
    enter_root(staged)


def mount_at_rootfs(rootfs: RootfsMessage) -> None:
    """Mount the root at ROOTFS."""
    os.chdir(rootfs["base"])
    if "path" in rootfs:
        mount(rootfs["path"], ROOTFS, flags=MS_BIND | MS_REC)
    else:
        mount_machine(rootfs["lower"])
        mount_overlay(rootfs["lower"], upper=rootfs["upper"], work=rootfs["work"])


def enter_root(staged: Sequence[Staged] = (), *, place: str | int = ROOTFS) -> None:
    """Make what is mounted at ``place`` the root of this mount namespace, with what is staged in it."""
    os.chdir(place)
    mounts.pivot_root(".", ".")
    for tree in staged:
        place = places.open_place(tree.target, directory=True, proc=tree.target == "/proc")
        mounts.move_mount(tree.fd, "", dir_fd=place)
        os.close(place)
        os.close(tree.fd)
    mounts.umount2(".", mounts.MNT_DETACH)
    os.chdir("/")


def mount_lower(lower: list[str]) -> None:
    """Mount an image at ROOTFS, to be read."""
    if len(lower) == 1:  # overlayfs wants two
        mount(lower[0], ROOTFS, flags=MS_BIND)
    else:
        mount_machine(lower)
        mount_overlay(lower)


def mount_overlay(
    lower: list[str], *, upper: str = "", work: str = "", target: str = ROOTFS
) -> None:
    """Mount directories, the topmost first, as one; without ``upper`` to be read only."""
    own = f",upperdir={upper},workdir={work}" if upper else ""
    data = f"lowerdir={':'.join(lower)}{own},{OVERLAY_OPTIONS}"
    if len(data) < mounts.DATA_BYTES:
        mount("overlay", target, "overlay", 0 if upper else MS_RDONLY, data)
        return
    options = [("lowerdir+", name) for name in lower]
    options += [("upperdir", upper), ("workdir", work)] if upper else []
    for option in OVERLAY_OPTIONS.split(","):
        key, _, value = option.partition("=")
        options.append((key, value))
    mounts.mount_new("overlay", target, options, read_only=not upper)


def stage(spec: Spec, controllers: list[str]) -> tuple[list[Staged], int]:
    """Mount what does not depend on the network aside, before there is a root: for :func:`mount_root`.

    As in a container's root, paths lead nowhere else. Return a descriptor of its /proc/sys as well.
    """
    root = enter_stage()
    mount_file_systems(spec, before_network(spec), controllers)
    sysctls = hide_proc(spec)
    leave_stage(root)
    return [Staged(STAGE + path) for path in STAGED], sysctls


def hide_proc(spec: Spec) -> int:
    """Hide what is in a fresh /proc; return its /proc/sys, open and still writable."""
    sysctls = hiding.open_sysctls()
    hiding.hide_in_proc(spec)
    return sysctls


def enter_stage() -> int:
    """Have STAGE as the root directory, until :func:`leave_stage`."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chroot(STAGE)
    os.chdir("/")
    return root


def leave_stage(root: int) -> None:
    """Have the root directory again that :func:`enter_stage` has returned."""
    os.chdir(root)
    os.chroot(".")
    os.close(root)


def mount_machine(lower: list[str]) -> None:
    """Mount this machine's root with its hiding layer, when it is one of the lower directories.

    Layers below HOST_ROOT and HOST_ROOT itself in one overlay would overlap (ELOOP).
    """
    if MACHINE in lower:
        mount("overlay", MACHINE, "overlay", MS_RDONLY, f"lowerdir={HIDING}:{HOST_ROOT}")


def seal_root() -> None:
    """Make the root mount itself read-only."""
    mount("", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def attach(tree: Tree, *, clear: bool = True) -> None:
    """Put a detached mount where it belongs. Without ``clear`` nothing that is in its way is removed."""
    if tree.subpath:
        tree.fd = _part_of(tree.fd, tree.subpath)
    directory = stat.S_ISDIR(os.fstat(tree.fd).st_mode)
    is_proc = mounts.filesystem_type(tree.fd) == mounts.PROC_MAGIC
    place = places.open_place(tree.target, directory=directory, proc=is_proc, clear=clear)
    if directory != stat.S_ISDIR(os.fstat(place).st_mode):
        raise MountMismatch.of(tree.source, tree.target, "not a directory")
    move(tree, place)


def move(tree: Tree, place: int) -> None:
    """Put a detached mount onto an open place, as it is to be seen there."""
    propagation = PROPAGATIONS.get(tree.propagation, MS_PRIVATE | MS_REC)
    mounts.mount_setattr(
        tree.fd,
        attr_set=mounts.MOUNT_ATTR_RDONLY if tree.read_only else 0,
        propagation=propagation & ~MS_REC,
        recursive=bool(propagation & MS_REC) or tree.read_only,
    )
    mounts.move_mount(tree.fd, "", dir_fd=place)
    os.close(place)
    os.close(tree.fd)


def _part_of(tree: int, subpath: str) -> int:
    """Return what is at ``subpath`` in a mount, as one of its own; the kernel copies attached mounts only.

    Others may write where it is attached, for /dev may be a cache that they have as well: so nothing is
    mounted or unmounted by a path that they can change.
    """
    os.mkdir(PART, 0o700)
    folder = os.open(PART, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    mounts.move_mount(tree, "", dir_fd=folder)
    os.close(folder)
    try:
        place = mounts.open_in_root(tree, subpath, os.O_PATH)
        part = mounts.open_tree("", dir_fd=place, recursive=False)
        os.close(place)
    finally:
        os.fchdir(tree)
        os.close(tree)
        mounts.umount2(".", mounts.MNT_DETACH)
        os.chdir("/")
        os.rmdir(PART)
    return part


def mount_entry(entry: Mount, controllers: list[str], *, own_groups: bool = True) -> None:
    """Mount one entry of the spec that is not a bind.

    Without ``own_groups``, in the host's cgroup namespace, the container's group is what it sees of each.
    """
    target, fstype = entry["destination"], entry.get("type", "")
    flags, data, propagation = parse_options(entry.get("options", []))
    existed = fstype == "tmpfs" and os.path.isdir(target)
    place = places.open_place(target, directory=True, proc=fstype == "proc")
    if fstype == "cgroup":
        os.close(place)
        if target != ASIDE and os.path.isdir(ASIDE):
            mount(ASIDE, target, flags=MS_MOVE)
            os.rmdir(ASIDE)
        else:
            groupmounts.mount_groups(target, flags, controllers, None if own_groups else _groups())
        return
    if existed and "mode=" not in data:
        # A tmpfs over a directory of the image keeps that directory's mode, as runc does.
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        data = f"{data},mode={mode:o}" if data else f"mode={mode:o}"
    os.chdir(place)  # "." is the place itself, wherever its path leads by now
    mount(entry.get("source") or fstype, ".", fstype, flags, data)
    os.chdir("/")
    os.close(place)
    if propagation:
        mount("", target, flags=propagation)


def _groups() -> dict[str, str]:
    """Return the paths of this process's groups, by controllers of version 1."""
    with open("/proc/self/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    return {controllers: path for _, controllers, path in lines if controllers}


def before_network(spec: Spec) -> list[Mount]:
    """Return the mounts that do not depend on the network namespace, in the spec's order.

    The groups, which are many mounts on version 1, are built aside where that is possible, and moved into
    their place in /sys later.
    """
    entries = spec.get("mounts", [])
    early = [e for e in entries if not _is_below_sys(e) and not _is_among_trees(spec, e)]
    if any(e["destination"] == "/dev" and e.get("type") == "tmpfs" for e in early):
        early += [{**entry, "destination": ASIDE} for entry in entries if _is_groups(entry)]
    return early


def after_network(spec: Spec) -> list[Mount]:
    """Return the others: a sysfs shows the network namespace of whoever mounts it."""
    entries = spec.get("mounts", [])
    return [e for e in entries if _is_below_sys(e) and not _is_among_trees(spec, e)]


def _is_below_sys(entry: Mount) -> bool:
    return f"{entry['destination']}/".startswith("/sys/")


def _is_groups(entry: Mount) -> bool:
    return entry.get("type") == "cgroup" and _is_below_sys(entry)


def _is_among_trees(spec: Spec, entry: Mount) -> bool:
    """Say whether it may lie in a tree of the host's: a tmpfs of the user's, and what is in a /sys of his."""
    if _is_below_sys(entry):
        return not _has(spec, "/sys")
    return entry.get("type") == "tmpfs" and not f"{entry['destination']}/".startswith("/dev/")


def _has(spec: Spec, path: str) -> bool:
    return any(entry["destination"] == path for entry in spec.get("mounts", []))


def mount_file_systems(
    spec: Spec, entries: list[Mount], controllers: list[str], made: Mapping[str, int] | None = None
) -> None:
    """Mount ``entries``, and make the device nodes once /dev is there.

    ``made``: detached mounts that are ready, by their places, /dev with its nodes.
    """
    own = any(space["type"] == "cgroup" for space in spec.get("linux", {}).get("namespaces", []))
    for entry in entries:
        if made and entry["destination"] in made:
            _attach_made(entry["destination"], made[entry["destination"]])
            continue
        mount_entry(entry, controllers, own_groups=own)
        if entry["destination"] == "/dev":
            nodes.make_devices(spec.get("linux", {}).get("devices", []))


def _attach_made(target: str, tree: int) -> None:
    place = places.open_place(target, directory=True)
    mounts.move_mount(tree, "", dir_fd=place)
    os.close(place)
    os.close(tree)


def attach_trees(spec: Spec, trees: list[Tree], controllers: list[str]) -> None:
    """Put the host's trees and the tmpfs among them where they belong, the outer before the inner."""
    pending: list[tuple[str, Tree | Mount]] = [(tree.target, tree) for tree in trees]
    entries = spec.get("mounts", [])
    pending += [(e["destination"], e) for e in entries if _is_among_trees(spec, e)]
    for _, what in sorted(pending, key=lambda item: item[0].count("/")):
        if isinstance(what, Tree):
            attach(what, clear=not any(is_below(what.target, tree.target) for tree in trees))
        else:
            mount_entry(what, controllers)


def is_below(target: str, other: str) -> bool:
    """Say whether a place is in a tree of the host's, whose files are not the container's to remove."""
    return target.startswith(other.rstrip("/") + "/")


def can_hide_early(spec: Spec) -> bool:
    """Say whether /proc and /dev, whose null device hides files, are fresh ones, not trees attached later."""
    return _has(spec, "/proc") and _has(spec, "/dev")
