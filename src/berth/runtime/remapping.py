"""A container in a user namespace, whose ids the host knows as others: two processes, one after the other.

monitor                 first, the host's root          second, root of the user namespace
   │── clone3 ────────────────►│
   │                           │ enters and limits its groups; mounts the root and images with their
   │                           │ owners shown as the container's (MOUNT_ATTR_IDMAP), makes device nodes
   │                           │ enters the user namespace
   │                           │── clone3, all namespaces ────►│
   │◄── {"pid"} ───────────────│ ends                          │ goes on as `berth.runtime.init` describes
   │◄── {"terminal"}, {"error"} or end of file ────────────────│

What is stored has the container's own ids, as in containers without user namespaces, so layers, volumes and
what a container has written are the same for both. Imported by the monitors that need it.
"""

from __future__ import annotations

import os
import stat

from berth.errors import Unsupported
from berth.kernel import capabilities, mounts, namespaces, processes, sockets
from berth.kernel.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount
from berth.runtime import codec, init, nodes, payload, rootfs
from berth.runtime.idmaps import id_map, on_host
from berth.runtime.template import HIDING, HOST_ROOT, MACHINE, ROOTFS, STAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Device, Mount, Spec
    from berth.runtime.init import Child
    from berth.runtime.messages import RootfsMessage, TreeMessage

# On the stage: a /sys, without which the kernel lets nobody in a user namespace mount one; and groups.
SEEN_SYS, GROUPS_PLACE = "/.sys", "/.groups"
MAY_BE_STAGED = ("/proc", "/dev", "/sys")
GROUPS = "cgroup"


# The first process


def _enter_groups(child: Child) -> None:
    child.cgroup.create()
    child.cgroup.enter(born_in_unified=child.born_in_group)


def _raise_limits(child: Child) -> None:
    """Do what nobody in a user namespace may do."""
    payload.raise_rlimits(child.process.get("rlimits", []))
    score = child.process.pop("oomScoreAdj", None)
    if score is not None:
        payload.set_oom_score(score)


def _own_streams(child: Child) -> None:
    """Give the container's root its streams; it gives them to other users itself."""
    owner = root_of(child.spec)
    for fd in child.stdio:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, *owner)


def _open_user_namespace(child: Child) -> None:
    linux = child.spec["linux"]
    path = next(e.get("path") for e in linux["namespaces"] if e["type"] == "user")
    if path:
        child.user_namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        uids, gids = id_map(linux["uidMappings"]), id_map(linux["gidMappings"])
        child.user_namespace = namespaces.new_user(uids, gids)


def _prepare_mounts(child: Child) -> None:
    """Make what only the host's root can, as detached mounts."""
    uid, gid = root_of(child.spec)
    # What it makes is the container's root's; with other owners there would be none in mapped mounts.
    processes.set_file_owner(uid, gid)
    capabilities.raise_all()
    map_stores(child.rootfs, child.user_namespace)
    child.trees += rootfs.open_images(child.rootfs)
    rootfs.mount_at_rootfs(child.rootfs)
    child.root = mounts.open_tree(ROOTFS)
    os.chdir("/")
    _prepare_stage(child)


def map_stores(message: RootfsMessage, user_namespace: int) -> None:
    """Show the owners of all that a root is mounted from as the container's, in this mount namespace."""
    shown = [message, *message.get("images", ())]
    lower = {name for found in shown for name in found.get("lower", ())}
    of_host = (HIDING, HOST_ROOT) if lower & {HIDING, HOST_ROOT, MACHINE} else ()
    for path in (message["base"], *of_host):
        tree = mounts.open_tree(path, recursive=False)
        try:
            map_owners(tree, user_namespace)
        except OSError as error:
            what = "the image host" if path == HOST_ROOT else path
            raise Unsupported(
                f"{what} cannot be had with user namespaces: its file system has no id-mapped mounts",
                hint="use --userns host",
            ) from error
        mounts.move_mount(tree, path)
        os.close(tree)


def map_owners(tree: int, user_namespace: int) -> None:
    """Show the owners of a detached mount as those of a user namespace."""
    mounts.mount_setattr(tree, attr_set=mounts.MOUNT_ATTR_IDMAP, userns_fd=user_namespace)


def map_stored(pid: int, fds: list[int], trees: list[TreeMessage]) -> None:
    """Do the same with what berth stores, as far as its file system has that, for the process ``pid``."""
    own = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    for fd, tree in zip(fds, trees, strict=True):
        if tree["stored"]:
            try:
                map_owners(fd, own)
            except OSError:
                continue
    os.close(own)


def _prepare_stage(child: Child) -> None:
    """Make the devices and, for who sees the host's cgroup namespace, the groups."""
    mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
    for path in (SEEN_SYS, GROUPS_PLACE, *MAY_BE_STAGED):
        os.mkdir(STAGE + path)
    mount("sysfs", STAGE + SEEN_SYS, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    entries = {entry["destination"]: entry for entry in _early(child.spec)}
    if not any(e["type"] == GROUPS for e in child.spec["linux"]["namespaces"]):
        for target, entry in entries.items():
            if entry.get("type") == GROUPS:
                aside: Mount = {**entry, "destination": STAGE + GROUPS_PLACE}
                rootfs.mount_entry(aside, child.controllers, own_groups=False)
                _take(child, STAGE + GROUPS_PLACE, target)
    if "/dev" in entries:
        root = rootfs.enter_stage()
        rootfs.mount_entry(entries["/dev"], child.controllers)
        nodes.make_devices([_shifted(d, child.spec) for d in child.spec["linux"]["devices"]])
        _take(child, "/dev", "/dev")
        rootfs.leave_stage(root)


def _take(child: Child, place: str, target: str) -> None:
    child.made[target] = mounts.open_tree(place)
    mounts.umount2(place, mounts.MNT_DETACH)


def _early(spec: Spec) -> list[Mount]:
    """Return the kernel's file systems: here the network, too, is there from the start."""
    early = [e for e in rootfs.before_network(spec) if e["destination"] != rootfs.ASIDE]
    return [*early, *rootfs.after_network(spec)]


def _shifted(device: Device, spec: Spec) -> Device:
    if not device["path"].startswith("/dev/"):
        raise Unsupported(
            f"device {device['path']} outside of /dev cannot be had with user namespaces"
        )
    linux = spec["linux"]
    uid = on_host(device.get("uid", 0), linux["uidMappings"])
    gid = on_host(device.get("gid", 0), linux["gidMappings"])
    return {**device, "uid": uid, "gid": gid}


def clone(child: Child) -> None:
    """Make the second process; the first one ends here."""
    for entry in child.spec["linux"]["namespaces"]:
        path = entry.get("path")
        if entry["type"] == "pid" and path:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, namespaces.CLONE_NEWPID)
            os.close(fd)
    namespaces.setns(child.user_namespace, namespaces.CLONE_NEWUSER)
    fork = namespaces.Clone(child.clone_flags | namespaces.CLONE_PARENT)
    pid = fork.make()
    if pid == 0:
        return
    fork.check(pid)
    sockets.send(child.sync, codec.encode({"pid": pid}))
    os._exit(0)


# The second one


def _become_root(child: Child) -> None:
    del child
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _leave_the_first(child: Child) -> None:
    del child
    os.setsid()
    processes.join_session_keyring()


def _stage(child: Child) -> None:
    spec, early = child.spec, rootfs.can_hide_early(child.spec)
    root = rootfs.enter_stage()
    entries = _early(spec)
    rootfs.mount_file_systems(spec, entries, child.controllers, child.made)
    if early:
        child.sysctls = rootfs.hide_proc(spec)
    rootfs.leave_stage(root)
    there = [e["destination"] for e in entries]
    child.staged = [rootfs.Staged(STAGE + path) for path in MAY_BE_STAGED if path in there]


def _enter_root(child: Child) -> None:
    mounts.move_mount(child.root, ROOTFS)
    os.close(child.root)
    rootfs.enter_root(child.staged)


def mount_file_systems(child: Child) -> None:
    """Mount the kernel's file systems in a root that is there already."""
    rootfs.mount_file_systems(child.spec, _early(child.spec), child.controllers, child.made)


def attach_trees(child: Child) -> None:
    """Put the host's trees where they belong."""
    rootfs.attach_trees(child.spec, child.trees, child.controllers)


def _join_container(child: Child) -> None:
    child.cgroup.enter()
    assert child.pidfd is not None
    namespaces.setns(child.pidfd, namespaces.CLONE_NEWUSER | init.JOINED)


def root_of(spec: Spec) -> tuple[int, int]:
    """Return what the host calls the container's root: user and group."""
    linux = spec["linux"]
    return on_host(0, linux["uidMappings"]), on_host(0, linux["gidMappings"])


UNMAPPED_STEPS: tuple[init.Step, ...] = (
    init.read_plan,
    init.reset_signals,
    _enter_groups,
    init.limit,
    _raise_limits,
    _own_streams,
    _open_user_namespace,
    _prepare_mounts,
)
ENTER_STEPS: tuple[init.Step, ...] = (
    _become_root,
    _leave_the_first,
    init.enter_cgroup_namespace,
    init.enter_namespaces,
    init.raise_loopback,
    init.set_hostname,
)
TASK_STEPS: tuple[init.Step, ...] = (
    *UNMAPPED_STEPS,
    clone,
    *ENTER_STEPS,
    _stage,
    _enter_root,
    init.restrict_proc,
    init.take_over,
    attach_trees,
    init.set_sysctls,
    *init.LAST_STEPS,
)
EXEC_STEPS: tuple[init.Step, ...] = (
    init.read_plan,
    init.reset_signals,
    _raise_limits,
    _own_streams,
    _join_container,
    _become_root,
    init.set_up_stdio,
    init.close_descriptors,
    init.become_the_user,
)
