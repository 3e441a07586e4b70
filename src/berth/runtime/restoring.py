"""A container's process from a checkpoint: made by criu, as a child of the monitor.

    monitor                                child, in a copy of the zygote's mount namespace
       │ clone ─────────────────────────────►│ enters the container's groups, mounts its root
       │ handover + descriptors ────────────►│ takes root and trees into a copy of the host's mounts
       │◄──── {"error": …, "step": …} ───────│ something failed; the child is gone
       │◄──── end of file ───────────────────│ it is criu now
       │ restore ───────────────────────────►│
       │◄──── notices, a terminal's master ──│
       │◄──── success, pid ──────────────────│ of a process that is its sibling; criu ends

criu wants to see what it mounts in the container: the root as a mount, trees as paths, programs of the
host's for itself. So the child shows it all that, in a mount namespace that nobody else sees.
"""

from __future__ import annotations

import os
import stat

from berth.kernel import loopback, mounts, namespaces, processes, sockets
from berth.runtime import checkpoints, codec, criu, groupmounts, init, places, rootfs
from berth.runtime.mountpoints import points
from berth.runtime.template import ROOTFS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Spec
    from berth.runtime.birth import Birth
    from berth.runtime.checkpoints import Noted
    from berth.runtime.criu import Notice, Value
    from berth.runtime.init import Child
    from berth.runtime.launch import Here, Request
    from berth.runtime.messages import PlanMessage, TreeMessage

LOG, ROOT, TREES = "restore.log", "root", "trees"  # in the directory, as the child sees it


class Restoring:
    """One restore, from the monitor's side and, after the clone, from the child's."""

    def __init__(self, request: Request, birth: Birth, here: Here) -> None:
        """Let ``birth``, which was not made yet, become criu."""
        self.trees: list[TreeMessage] = []  # of the handover
        self._images = request.take()
        self._search = request.message["search"]
        self._directory = request.message["directory"]
        self._terminal = request.message["terminal"]
        self._plan: PlanMessage = codec.decode(request.plan)
        self._birth = birth
        self._here = here
        self._master: int | None = None
        self._namespaces: dict[str, int] = {}  # that criu is to take as they are
        self._kept = _kept(self._plan["spec"])
        # Its maker is the one in whose /proc/PID/fd criu looks for descriptors.
        self._socket, self._far_end = sockets.pair()
        birth.child.steps = (
            init.read_plan,
            init.reset_signals,
            self.enter_group,
            init.limit,
            self.take_over,
            self.join_namespaces,
            self.mount_root,
            self.make_places,
            self.show,
            self.become_criu,
        )

    # The child

    def enter_group(self, child: Child) -> None:
        """Enter the groups; their namespace is made by criu."""
        child.cgroup.create()
        child.cgroup.enter(born_in_unified=child.born_in_group)

    def take_over(self, child: Child) -> None:
        """Wait for the monitor's word to go on."""
        data, fds = sockets.receive(child.sync)
        if not data:
            os._exit(init.EXIT_SETUP_FAILED)
        handover = codec.decode(data)
        if handover["netns"]:
            self._namespaces["network"] = fds.pop(0)
        for fd, message in zip(fds, handover["trees"], strict=True):
            child.trees.append(rootfs.tree_of(fd, message))
        child.trees += rootfs.open_images(child.rootfs)

    def join_namespaces(self, child: Child) -> None:
        """Open the namespaces of others, and make a network that is nobody else's."""
        for entry in child.spec.get("linux", {}).get("namespaces", []):
            kind, path = entry["type"], entry.get("path")
            if path and kind in self._kept:
                self._namespaces[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            elif path and kind == "ipc":
                child.trees += rootfs.shared_memory(f"{os.path.dirname(path)}/mnt")
            elif kind == "network" and kind not in self._namespaces:
                self._namespaces[kind] = _make_network()

    def mount_root(self, child: Child) -> None:
        """Mount the root, in sight of the zygote's mounts."""
        rootfs.mount_at_rootfs(child.rootfs)

    def make_places(self, child: Child) -> None:
        """Make what is missing of the mount points in the root, as a start does; criu makes none."""
        here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chroot(ROOTFS)
        os.chdir("/")
        entries = child.spec.get("mounts", [])
        wanted = [(e["destination"], True, e.get("type") == "proc") for e in entries]
        for tree in child.trees:
            directory = stat.S_ISDIR(os.fstat(tree.fd).st_mode)
            is_proc = mounts.filesystem_type(tree.fd) == mounts.PROC_MAGIC
            wanted.append((tree.target, directory, is_proc))
        for target, directory, is_proc in wanted:
            # What is mounted in a mount has its place there, not in the root.
            if not any(rootfs.is_below(target, other) for other, _, _ in wanted):
                place = places.open_place(target, directory=directory, proc=is_proc, clear=False)
                os.close(place)
        os.fchdir(here)
        os.chroot(".")
        os.close(here)

    def show(self, child: Child) -> None:
        """Take root and trees into a copy of the host's mount namespace."""
        os.chdir("/")
        root = rootfs.Tree(mounts.open_tree(ROOTFS), "", False, "rprivate")
        namespaces.setns(self._here.host_mounts_fd, namespaces.CLONE_NEWNS)
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
        mounts.mount("tmpfs", self._directory, "tmpfs", groupmounts.SAFE_FLAGS, "mode=0700")
        os.chdir(self._directory)
        os.mkdir(TREES)
        places_ = [(root, ROOT), *((tree, f"{TREES}/{n}") for n, tree in enumerate(child.trees))]
        for tree, name in places_:
            if stat.S_ISDIR(os.fstat(tree.fd).st_mode):
                os.mkdir(name)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_CLOEXEC))
            rootfs.move(tree, os.open(name, os.O_PATH | os.O_CLOEXEC))
        os.chdir("/")

    def become_criu(self, child: Child) -> None:
        """Execute criu with its socket, the namespaces and the streams as descriptors 3 and on."""
        program = criu.find(self._search)
        wanted = [self._far_end.fileno(), *(self._namespaces[kind] for kind in self._kept)]
        wanted += [*child.stdio, self._here.null_fd]
        kept = [criu.keep(fd) for fd in wanted]
        sync = criu.keep(child.sync.fileno())
        for number, fd in enumerate(kept, criu.SOCKET_FD):
            os.dup2(fd, number)
        last = criu.SOCKET_FD + len(kept)
        os.dup2(sync, last, inheritable=False)
        child.sync.detach()
        child.sync = sockets.adopt(last)
        processes.close_from(last + 1)
        os.execve(program, criu.ARGUMENTS, {"PATH": self._search})

    # The monitor

    def finish(self) -> int | None:
        """Have the process restored: it is the birth's then. Return its terminal, if it has one."""
        self._far_end.close()
        noted, birth = checkpoints.read_record(self._images), self._birth
        # criu mounts what it needs for a moment where it works, which has to be among its own mounts.
        shown = f"/proc/{birth.pid}/root{self._directory}"
        work = os.open(shown, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with criu.Criu(self._socket, birth.pid) as process:
            values: dict[str, Value] = {
                **checkpoints.options(self._images, LOG),
                "work_dir_fd": work,
                "root": f"{self._directory}/{ROOT}",
                "rst_sibling": True,
                "evasive_devices": True,
                "cg_root": self._group_roots(birth.pid),
                "join_ns": self._joined(),
                "ext_mnt": self._mounts(birth.pid),
                "inherit_fd": self._inherited(noted),
            }
            log = f"/proc/self/fd/{work}/{LOG}"
            pid = process.ask(criu.RESTORE, values, self._notice, log=log)
        for fd in (work, self._images, birth.pidfd):
            os.close(fd)
        birth.pid, birth.pidfd = pid, os.pidfd_open(pid)
        birth.child.steps = ()  # they refer to this object, and no collector is at work here
        return self._master

    def _notice(self, notice: Notice) -> None:
        if notice.script == "orphan-pts-master":
            self._master = notice.fds[0]

    def _group_roots(self, pid: int) -> list[dict[str, str]]:
        return [] if self._here.hierarchies.only_unified else criu.roots_of(pid)

    def _joined(self) -> list[dict[str, str]]:
        """Return the namespaces of others that the container joins."""
        return [
            {"ns": namespaces.NAMESPACES[entry["type"]][1], "ns_file": entry["path"]}
            for entry in self._plan["spec"].get("linux", {}).get("namespaces", [])
            if entry.get("path") and entry["type"] not in self._kept
        ]

    def _mounts(self, pid: int) -> list[dict[str, str]]:
        """Return criu's table of what comes from outside: the names, and where the child shows it."""
        targets = [tree["target"] for tree in self.trees]
        targets += [image["target"] for image in self._plan["rootfs"].get("images", ())]
        targets.append(rootfs.SHM)  # of another container, if there is one more
        found = []
        for point in points(pid):
            _, _, below = point.path.partition(f"{self._directory}/{TREES}/")
            if below:
                number, slash, rest = below.partition("/")
                found.append({"key": targets[int(number)] + slash + rest, "val": point.path})
        group = self._birth.cgroup.path
        for hierarchy in self._here.hierarchies.found:
            name = checkpoints.group_name(hierarchy.name)
            found.append({"key": name, "val": f"{hierarchy.point}/{group}"})
        return found

    def _inherited(self, noted: Noted) -> list[dict[str, Value]]:
        """Return which of the descriptors that criu has stand for what."""
        keys = [checkpoints.namespace_key(kind) for kind in self._kept]
        keys += [*(() if self._terminal else noted["pipes"]), noted["null"]]
        numbered = enumerate(keys, criu.FIRST_INHERITED)
        return [{"key": key, "fd": number} for number, key in numbered if key]


def _kept(spec: Spec) -> list[str]:
    """Return the kinds of namespaces that criu is to take as they are."""
    found = {e["type"]: e.get("path") for e in spec.get("linux", {}).get("namespaces", [])}
    return [k for k in checkpoints.KEPT if k in found and (found[k] or k == "network")]


def _make_network() -> int:
    """Return a new network namespace, with its loopback interface up."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    loopback.bring_up()
    made = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(own, namespaces.CLONE_NEWNET)
    os.close(own)
    return made
