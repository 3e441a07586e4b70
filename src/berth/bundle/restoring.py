"""`restore`: a container as a checkpoint has it, by criu. What is mounted for that, nobody else sees."""

from __future__ import annotations

import os
import stat

from berth.bundle import creation, externals, mounting
from berth.bundle.checkpointing import STREAMS, ask, check_possible
from berth.bundle.status import start_time, state
from berth.errors import NotFound
from berth.kernel import loopback, mounts, namespaces, sockets
from berth.runtime import codec, criu, forks, hooks, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.checkpointing import Options, Values
    from berth.bundle.plan import Plan
    from berth.bundle.records import Folder
    from berth.oci.runtime_spec import Spec
    from berth.runtime.criu import Notice

LOG = "restore.log"
STREAM_COUNT = 3


class Restoring(creation.Creation):
    """One container that is being restored in a folder that was just made."""

    def __init__(
        self, folder: Folder, spec: Spec, bundle: str, options: creation.Options, how: Options
    ) -> None:
        check_possible()
        super().__init__(folder, spec, bundle, options)
        self._how = how
        self._terminal = -1

    def _make(self) -> creation.Made:
        plan = self._plan
        self._folder.save(self.record)
        self._folder.begin_making()
        self._make_group()
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount("", "/", flags=mounts.MS_SLAVE | mounts.MS_REC)
        forks.in_child(lambda: _make_places(plan))
        # criu wants a root that is a mount point.
        mounts.mount(plan.rootfs, plan.rootfs, flags=mounts.MS_BIND | mounts.MS_REC)
        inherited = [plan.joined[kind] for kind in externals.KEPT if kind in plan.joined]
        values = self._values()
        with criu.start(inherited) as process:
            values["cg_root"] = _enter_groups(plan, process.pid)
            log = self._how.log(LOG)
            self._pid = ask(process, criu.RESTORE, values, self._notice, log) or self._pid
        self._note(self._pid)
        self._folder.forget_making()
        if self._scope is not None:
            self._scope.let_go()
        if self._options.pid_file:
            creation.write_pid(self._options.pid_file, self._pid)
        return creation.Made(self._pid, self.record, self._terminal, plan.group)

    def _values(self) -> Values:
        plan, how = self._plan, self._how
        if not os.path.isdir(how.images):
            raise NotFound(f"checkpoint {how.images} does not exist")
        group = plan.group if plan.has_group else None
        outside = externals.Externals(plan.spec, plan.bundle, group)
        values = how.values(LOG, plan.spec.get("annotations") or {})
        values.update(root=plan.rootfs, evasive_devices=True, rst_sibling=True)
        values["join_ns"] = outside.joined_namespaces()
        values["ext_mnt"] = outside.restored_mounts()
        kept = [kind for kind in externals.KEPT if kind in plan.joined]
        inherited = _pipes(how.images)
        for place, kind in enumerate(kept):
            key = externals.namespace_key(kind)
            inherited.append({"key": key, "fd": criu.FIRST_INHERITED + place})
        values["inherit_fd"] = inherited
        for key in ("lsm_profile", "lsm_mount_context"):
            if text := getattr(how, key):
                values[key] = text
        return values

    def _notice(self, notice: Notice) -> None:
        if notice.script == "setup-namespaces":
            told = {**state(self.record, "creating"), "pid": notice.pid}
            if self._plan.is_new("network"):
                forks.in_child(lambda: _bring_up_loopback(notice.pid))
            for kind in ("prestart", "createRuntime"):
                hooks.run(self._plan.spec, kind, told)
        elif notice.script == "post-restore":
            self._note(notice.pid)
        elif notice.script == "orphan-pts-master":
            self._take_terminal(notice.fds[0])

    def _note(self, pid: int) -> None:
        self._pid = pid
        self.record["init_process_pid"] = pid
        self.record["init_process_start"] = start_time(pid)
        self._folder.save(self.record)

    def _take_terminal(self, master: int) -> None:
        """Give the terminal's other end to who asked for it, or keep it."""
        if self._plan.console is None:
            self._terminal = master
            return
        sockets.send_packet(self._plan.console, b"/dev/ptmx", [master])
        self._plan.console.close()
        os.close(master)


def _pipes(images: str) -> list[dict[str, criu.Value]]:
    """Return which of this process's streams stand for pipes that the container's process had."""
    try:
        with open(f"{images}/{STREAMS}", "rb") as file:
            found = codec.decode(file.read())
    except FileNotFoundError:
        raise NotFound(f"{images} is no checkpoint: {STREAMS} is missing") from None
    return [
        {"key": name, "fd": number}
        for number, name in enumerate(found[:STREAM_COUNT])  # no other descriptor is criu's to have
        if name.startswith("pipe:")
    ]


def _enter_groups(plan: Plan, pid: int) -> list[dict[str, str]]:
    """Put criu into the container's groups, and say where those are in each hierarchy."""
    if not plan.has_group:
        return []
    plan.group.add(pid)
    if plan.hierarchies.only_unified:
        return []
    return criu.roots_of(pid)


def _bring_up_loopback(pid: int) -> None:
    """Bring up the interface of a fresh network namespace; criu leaves interfaces alone."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWNET)
    loopback.bring_up()


def _make_places(plan: Plan) -> None:
    """Make what is missing of the mount points in the root, as `create` does; criu makes none.

    What is bound is mounted meanwhile, for the places of others may be in it. What a tmpfs has comes with it.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_PRIVATE | mounts.MS_REC)
    in_memory = [f"{entry.target}/" for entry in plan.entries if entry.fstype == "tmpfs"]
    os.chdir(plan.bundle)
    for entry in plan.entries:
        if entry.is_bind:
            mounting.open_source(entry)
    os.chdir(plan.rootfs)
    os.chroot(".")
    os.chdir("/")
    for entry in plan.entries:
        if entry.fstype in mounting.GROUPS or any(map(entry.target.startswith, in_memory)):
            continue
        if not entry.is_bind:
            os.close(places.open_place(entry.target, directory=True, proc=True, clear=False))
            continue
        directory = stat.S_ISDIR(os.fstat(entry.source).st_mode)
        place = places.open_place(entry.target, directory=directory, clear=False)
        mounting.open_tree(entry)
        mounts.move_mount(entry.tree, "", dir_fd=place)
        os.close(place)
