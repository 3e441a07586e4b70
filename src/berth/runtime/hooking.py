"""A container that hooks are run for, or that gets network devices of the host's.

    monitor                                child
       │ handover + descriptors ────────────►│ mounts its root and all that is in it, where it sees the
       │◄──── {"ask": "hooks"} ──────────────│ host's files as well
       │ network devices; prestart, createRuntime
       │ {"go": true} ──────────────────────►│ createContainer; leaves the host's files
       │◄──── {"error": …} ──────────────────│ startContainer, as the container's user
       │◄──── end of file ───────────────────│ it is the program
       │ poststart
       │ (the end)
       │ poststop, with nothing left of the container

Hooks find the container as a bundle: a directory whose config.json says where the root is. In the container's
mount namespace it is mounted there, and nowhere else. On the host the same path is a link that leads there,
through the process. Imported by the monitors that need it.
"""

from __future__ import annotations

import fcntl
import os
import stat

from berth.errors import BerthError
from berth.kernel import mounts, namespaces, sockets
from berth.runtime import codec, hooks, imports, init, netdevices, payload, rootfs
from berth.runtime.records import BUNDLE, CONFIG_FILE
from berth.runtime.template import ROOTFS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from berth.oci.runtime_spec import Mount, Spec
    from berth.runtime.birth import Birth
    from berth.runtime.init import Child
    from berth.runtime.launch import Here, Request
    from berth.runtime.messages import PlanMessage, TreeMessage

ROOT = "rootfs"
# Fresh ones, without which the kernel lets nobody in a user namespace mount more of them.
KERNELS = (("proc", "/.proc"), ("sysfs", "/.sys"))
SAFE_FLAGS = mounts.MS_NOSUID | mounts.MS_NODEV
SEARCHABLE = stat.S_IXOTH
ASK, GO = b'{"ask": "hooks"}', b'{"go": true}'


class Hooking:
    """The hooks of one run, from the monitor's side and, after the clone, from the child's."""

    def __init__(self, request: Request, birth: Birth, here: Here) -> None:
        """Let ``birth``, which was not made yet, stop where hooks are to be run."""
        plan: PlanMessage = codec.decode(request.plan)
        self._spec = plan["spec"]
        self._id = os.path.basename(request.message["directory"])
        self._bundle = f"{request.message['directory']}/{BUNDLE}"
        self._environment = {"PATH": request.message["search"]}
        self._birth = birth
        self._host_mounts_fd = here.host_mounts_fd
        self._begun = False
        self._claim = -1
        self._inside = self._outside = -1
        birth.child.steps = self._steps(remapped=request.message["remapped"])

    def _steps(self, *, remapped: bool) -> tuple[init.Step, ...]:
        last = (*init.LAST_STEPS[:-1], self.become_the_program)
        if remapped:
            remapping = imports.from_host("berth.runtime.remapping")
            first = (*remapping.UNMAPPED_STEPS, self.see_host_mapped, remapping.clone)
            enter = (*remapping.ENTER_STEPS, init.take_over, self.show_root)
            fill = (remapping.mount_file_systems, init.restrict_proc, remapping.attach_trees)
        else:
            first = (init.read_plan, *init.BEGIN_STEPS, *init.ENTER_STEPS)
            enter = (init.take_over, self.mount_root, self.see_host, self.show_root)
            fill = (init.mount_file_systems, init.restrict_proc, init.mount_the_rest)
        return (*first, *enter, *fill, init.set_sysctls, self.run_hooks, self.enter_root, *last)

    # The child

    def mount_root(self, child: Child) -> None:
        """Mount the root and keep it as a tree."""
        child.trees += rootfs.open_images(child.rootfs)
        rootfs.mount_at_rootfs(child.rootfs)
        child.root = mounts.open_tree(ROOTFS)
        os.chdir("/")
        mounts.umount2(ROOTFS, mounts.MNT_DETACH)

    def see_host(self, child: Child) -> None:
        """Enter a copy of the host's mount namespace, with an empty bundle in it."""
        del child
        self._copy_host()
        self._cover(self._bundle)

    def see_host_mapped(self, child: Child) -> None:
        """Do the same, with a bundle that is within reach of a container's root."""
        del child
        self._copy_host()
        self._cover(_first_closed(self._bundle))
        for fstype, name in KERNELS:
            os.mkdir(self._bundle + name)
            flags = SAFE_FLAGS | mounts.MS_NOEXEC
            mounts.mount(fstype, self._bundle + name, fstype, flags)

    def _copy_host(self) -> None:
        namespaces.setns(self._host_mounts_fd, namespaces.CLONE_NEWNS)
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_SLAVE)

    def _cover(self, place: str) -> None:
        mounts.mount("tmpfs", place, "tmpfs", SAFE_FLAGS, "mode=0755,size=16m")
        os.makedirs(f"{self._bundle}/{ROOT}", mode=0o755)

    def show_root(self, child: Child) -> None:
        """Mount the root in the bundle, and make it the root of this process, for paths only."""
        root = f"{self._bundle}/{ROOT}"
        mounts.move_mount(child.root, root)
        os.close(child.root)
        trees = [(t.target, t.source, t.read_only) for t in child.trees]
        _write_config(self._bundle, child.spec, trees)
        self._outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._inside = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self._inside)
        os.chroot(".")
        os.chdir("/")

    def run_hooks(self, child: Child) -> None:
        """Have the host's hooks run, then run those of the container's namespaces."""
        os.fchdir(self._outside)
        os.chroot(".")
        os.fchdir(self._inside)
        sockets.send(child.sync, ASK)
        if not sockets.receive(child.sync)[0]:
            os._exit(init.EXIT_SETUP_FAILED)
        self._run("createContainer", "creating", os.getpid())

    def enter_root(self, child: Child) -> None:
        """Leave the host's files."""
        del child
        rootfs.enter_root(place=self._inside)

    def become_the_program(self, child: Child) -> None:
        """Become the user, run the container's own hooks, and become the program."""
        account = init.become_the_account(child)
        self._run("startContainer", "created", os.getpid())
        payload.execute(child.process, account, init=child.init)

    # The monitor

    def make_bundle(self, trees: Sequence[TreeMessage]) -> None:
        """Make the bundle on the host, before the process goes on."""
        os.mkdir(self._bundle, 0o711)
        shown = [(tree["target"], tree["source"], tree["read_only"]) for tree in trees]
        _write_config(self._bundle, self._spec, shown)
        # While this process lives, the hooks after the end are its own to run.
        self._claim = _lock_config(self._bundle)
        self._link(self._bundle + "/" + ROOT)

    def _link(self, place: str) -> None:
        """Let the path of the root lead to a place that the process sees."""
        link = f"{self._bundle}/{ROOT}"
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(f"/proc/{self._birth.pid}/root{place}", link)

    def answer(self, sync: sockets.Socket) -> None:
        """Run the hooks before the container is entered, and let the process go on."""
        if devices := self._spec.get("linux", {}).get("netDevices"):
            network = os.open(f"/proc/{self._birth.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            netdevices.move(devices, network)
            os.close(network)
        self._begun = True
        for kind in ("prestart", "createRuntime"):
            self._run_on_host(kind, "creating")
        try:
            sockets.send(sync, GO)
        except BrokenPipeError:  # it was killed meanwhile; that is seen where it is followed
            pass

    def started(self) -> None:
        """Run the hooks of a program that runs."""
        self._link("")
        self._run_on_host("poststart", "running")

    def ended(self) -> None:
        """Run the hooks after the end, if any were before; what fails is told to the log of bugs alone."""
        self._birth.child.steps = ()  # they refer to this object, and no collector is at work here
        if not self._begun:
            self._unlock()
            return
        self._begun = False
        _forget_root(self._bundle)
        try:
            self._run_on_host("poststop", "stopped")
        except (BerthError, OSError) as error:
            os.write(2, f"container {self._id}: {error}\n".encode())
        finally:
            os.unlink(f"{self._bundle}/{CONFIG_FILE}")
            self._unlock()

    def _unlock(self) -> None:
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1

    def _run_on_host(self, kind: str, status: str) -> None:
        if hooks.of(self._spec, kind):
            namespaces.unshare(namespaces.CLONE_FS)  # from a thread that writes the log
            with imports.Host(self._host_mounts_fd):
                os.chdir(self._bundle)
                self._run(kind, status, 0 if status == "stopped" else self._birth.pid)

    def _run(self, kind: str, status: str, pid: int) -> None:
        state = state_of(self._spec, self._bundle, self._id, status=status, pid=pid)
        hooks.run(self._spec, kind, state, self._environment)


def state_of(spec: Spec, bundle: str, id_: str, *, status: str, pid: int) -> dict[str, object]:
    """Return the state document that hooks read."""
    found: dict[str, object] = {
        "ociVersion": spec.get("ociVersion", ""),
        "id": id_,
        "status": status,
        "pid": pid,
        "bundle": bundle,
    }
    if annotations := spec.get("annotations"):
        found["annotations"] = annotations
    return found


def run_poststop(
    argument: Mapping[str, object],
    fds: Sequence[int],
    report: Callable[[Mapping[str, object]], None],
) -> dict[str, object]:
    """Run the hooks after the end in the place of a monitor that died: a worker's job."""
    del fds, report
    bundle, id_, search = (str(argument[name]) for name in ("bundle", "id", "search"))
    try:
        with open(_lock_config(bundle), "rb") as file:
            spec: Spec = codec.decode(file.read())
        os.unlink(f"{bundle}/{CONFIG_FILE}")
    except FileNotFoundError:  # it lived, and has just run them
        return {}
    _forget_root(bundle)
    os.chdir(bundle)
    state = state_of(spec, bundle, id_, status="stopped", pid=0)
    hooks.run(spec, "poststop", state, {"PATH": search})
    return {}


def _lock_config(bundle: str) -> int:
    """Open the spec when nobody who has opened it like this has it any more."""
    fd = os.open(f"{bundle}/{CONFIG_FILE}", os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _forget_root(bundle: str) -> None:
    """Remove the link to the root: its process is gone, and another may have the number by now."""
    try:
        os.unlink(f"{bundle}/{ROOT}")
    except FileNotFoundError:  # it was never made
        return


def _write_config(bundle: str, spec: Spec, trees: Sequence[tuple[str, str, bool]]) -> None:
    """Write the spec with the place of the root, and with what comes from the host among its mounts."""
    found: list[Mount] = [*spec.get("mounts", [])]
    for target, source, read_only in trees:
        options = ["rbind", "ro" if read_only else "rw"]
        found.append({"destination": target, "type": "bind", "source": source, "options": options})
    root = {**spec.get("root", {}), "path": f"{bundle}/{ROOT}"}
    fd = os.open(f"{bundle}/{CONFIG_FILE}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, codec.encode({**spec, "root": root, "mounts": found}))
    finally:
        os.close(fd)


def _first_closed(path: str) -> str:
    """Return the first directory on the way to ``path`` that is not open to everybody, else ``path``."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        folder = "/" + "/".join(parts[:depth])
        if not os.stat(folder).st_mode & SEARCHABLE:
            return folder
    return path
