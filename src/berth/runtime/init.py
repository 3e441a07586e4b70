"""The child of a monitor: from a fresh clone to the user's program.

monitor                                   child
   │  clone3(namespaces)                    │ prepares itself
   │  plan + stdio  ───────────────────────►│   only a spare, which was cloned before there was one
   │  handover + descriptors  ─────────────►│   a container's process; an exec goes on at once
   │◄──── {"terminal": true} + master ──────│   only with a terminal
   │◄──── {"error": …, "step": …} ──────────│   something failed; the child is gone
   │◄──── end of file ──────────────────────│   execve succeeded: the socket was close-on-exec
"""

from __future__ import annotations

import os

from berth.kernel import cgroup_limits, loopback, namespaces, processes, sockets
from berth.runtime import accounts, codec, hiding, payload, pty, rootfs, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from berth.kernel.cgroups import Cgroup
    from berth.oci.runtime_spec import Process, Spec
    from berth.runtime.messages import HandoverMessage, PlanMessage, RootfsMessage

    Step = Callable[["Child"], object]

EXIT_SETUP_FAILED = 255
JOINED = (  # by an exec, beside the pid namespace
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)


class Child:
    """What the child needs, prepared by the monitor before the clone."""

    __slots__ = (
        "ahead",
        "born_in_group",
        "cgroup",
        "clone_flags",
        "controllers",
        "filter",
        "foreign",
        "groups",
        "init",
        "made",
        "netns",
        "pidfd",
        "plan",
        "process",
        "root",
        "rootfs",
        "size",
        "spec",
        "staged",
        "stdio",
        "steps",
        "sync",
        "sysctls",
        "terminal",
        "trees",
        "user",
        "user_namespace",
    )

    def __init__(
        self, sync: sockets.Socket, cgroup: Cgroup, steps: tuple[Step, ...], plan: bytes
    ) -> None:
        self.sync = sync
        self.cgroup = cgroup
        self.steps = steps
        self.plan = plan
        self.ahead = False  # cloned without a plan
        self.staged: list[rootfs.Staged] = []
        self.born_in_group = False  # of version 2, by CLONE_INTO_CGROUP
        self.controllers: list[str] = []
        self.sysctls: int | None = None  # /proc/sys, opened while it can be written
        self.trees: list[rootfs.Tree] = []
        # With ids mapped, by `berth.runtime.remapping`: what only the host's root can make, and the root.
        self.made: dict[str, int] = {}
        self.root = self.user_namespace = -1
        self.pidfd: int | None = None
        self.terminal = False
        self.stdio: list[int] = []
        self.foreign: list[int] = []  # descriptors by which others see whose end it is

    def read_plan(self) -> None:
        """Take the plan apart."""
        plan: PlanMessage = codec.decode(self.plan)
        self.spec: Spec = plan["spec"]
        self.process: Process = plan["process"]
        self.rootfs: RootfsMessage = plan["rootfs"]
        self.netns = plan["netns"]
        self.clone_flags = plan["clone_flags"]
        self.user = plan["user"]
        self.groups = plan["groups"]
        self.filter = bytes.fromhex(plan["seccomp"] or "") or None
        self.init = plan["init"]
        if not plan["default_mounts"]:  # what is staged goes with the old root
            self.staged = []
        rows, columns = plan["size"]
        self.size = (rows, columns)


def run(child: Child) -> NoReturn:
    """Do every step; on failure tell the monitor which one and why. Never returns."""
    step = "start"
    # With them open here, nobody would see the monitor die: not this process, not berthd.
    for fd in child.foreign:
        os.close(fd)
    try:
        for action in child.steps:
            step = action.__name__.strip("_").replace("_", " ")
            action(child)
    except BaseException as error:  # noqa: BLE001 - told to the monitor, whatever it is
        try:
            sockets.send(child.sync, codec.encode(payload.describe(step, error)))
        finally:
            os._exit(EXIT_SETUP_FAILED)
    os._exit(EXIT_SETUP_FAILED)


def read_plan(child: Child) -> None:
    """Take the plan apart."""
    child.read_plan()


def _take_plan(child: Child) -> None:
    """Wait for the plan, as a spare; without standard streams it gets a terminal."""
    child.plan, child.stdio = sockets.receive(child.sync)
    if not child.plan:
        os._exit(EXIT_SETUP_FAILED)
    child.terminal = not child.stdio
    child.read_plan()


def reset_signals(child: Child) -> None:
    """Have the signals, session and keyring of a new program."""
    del child
    payload.reset_signals()
    processes.set_name(b"berth-init")
    os.setsid()
    processes.join_session_keyring()


def _enter_cgroup(child: Child) -> None:
    child.cgroup.create()
    child.cgroup.enter(born_in_unified=child.born_in_group)
    enter_cgroup_namespace(child)


def enter_cgroup_namespace(child: Child) -> None:
    """See its own groups only, if that is wanted: it is in them."""
    wanted = child.spec.get("linux", {}).get("namespaces", [])
    if any(entry["type"] == "cgroup" and not entry.get("path") for entry in wanted):
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)


def limit(child: Child) -> None:
    """Set the limits of its groups."""
    resources = child.spec.get("linux", {}).get("resources", {})
    cgroup_limits.apply(child.cgroup.hierarchies, child.cgroup.path, resources)


def _stage(child: Child) -> None:
    child.staged, child.sysctls = rootfs.stage(child.spec, child.controllers)


def enter_namespaces(child: Child) -> None:
    """Enter the namespaces of others, but those that it was made in."""
    for entry in child.spec.get("linux", {}).get("namespaces", []):
        path = entry.get("path")
        if path and entry["type"] not in ("pid", "user"):  # entered before the process was made
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, namespaces.NAMESPACES[entry["type"]][0])
            os.close(fd)
            if entry["type"] == "ipc":
                child.trees += rootfs.shared_memory(os.path.dirname(path) + "/mnt")


def _join_container(child: Child) -> None:
    child.cgroup.enter()
    assert child.pidfd is not None
    namespaces.setns(child.pidfd, JOINED)


def raise_loopback(child: Child) -> None:
    """Bring up the loopback interface of a network namespace that is made with this process."""
    for entry in child.spec.get("linux", {}).get("namespaces", []):
        if entry["type"] == "network" and not entry.get("path") and not child.netns:
            if child.ahead:
                namespaces.unshare(namespaces.CLONE_NEWNET)
            loopback.bring_up()


def set_hostname(child: Child) -> None:
    """Name the machine that it sees."""
    kinds = {e["type"]: e.get("path") for e in child.spec.get("linux", {}).get("namespaces", [])}
    if "uts" not in kinds or kinds["uts"]:
        return
    if hostname := child.spec.get("hostname"):
        namespaces.sethostname(hostname)
    if domainname := child.spec.get("domainname"):
        namespaces.setdomainname(domainname)


def _mount_rootfs(child: Child) -> None:
    child.trees += rootfs.open_images(child.rootfs)
    rootfs.mount_root(child.rootfs, child.staged)


def mount_file_systems(child: Child) -> None:
    """Mount the kernel's file systems that do not depend on the network, unless that was done ahead."""
    if not child.staged:
        rootfs.mount_file_systems(child.spec, rootfs.before_network(child.spec), child.controllers)


def take_over(child: Child) -> None:
    """Wait for the monitor's word to go on, and enter the network that came with it."""
    data, fds = sockets.receive(child.sync)
    if not data:
        os._exit(EXIT_SETUP_FAILED)
    handover: HandoverMessage = codec.decode(data)
    if handover["netns"]:
        namespaces.setns(fds.pop(0), namespaces.CLONE_NEWNET)
    child.trees += [
        rootfs.tree_of(fd, tree) for fd, tree in zip(fds, handover["trees"], strict=True)
    ]


def mount_the_rest(child: Child) -> None:
    """Mount the others, and what comes from the host."""
    rootfs.mount_file_systems(child.spec, rootfs.after_network(child.spec), child.controllers)
    rootfs.attach_trees(child.spec, child.trees, child.controllers)


def set_up_stdio(child: Child) -> None:
    """Have its streams, or a terminal."""
    if child.terminal:
        master, slave = pty.open_pair("/dev/pts")
        if child.size != (0, 0):
            pty.set_size(master, *child.size)
        sockets.send(child.sync, b'{"terminal": true}', [master])
        os.close(master)
        pty.make_controlling(slave)
        if child.pidfd is None:
            pty.bind_console(slave)
        child.stdio = [slave, slave, slave]
    for number, fd in enumerate(child.stdio):
        os.dup2(fd, number)
    stdio.reopen_null()


def restrict_proc(child: Child) -> None:
    """Hide what is in /proc, once its parameters are set."""
    if not rootfs.can_hide_early(child.spec):
        return
    if not child.staged:
        if child.spec.get("linux", {}).get("sysctl"):
            child.sysctls = hiding.open_sysctls()
        hiding.hide_in_proc(child.spec)
    if not child.netns:
        set_sysctls(child)


def set_sysctls(child: Child) -> None:
    """Set those that waited for their network namespace, or for a /proc that is a tree."""
    values = child.spec.get("linux", {}).get("sysctl")
    if not values:
        return
    if not rootfs.can_hide_early(child.spec):
        child.sysctls = hiding.open_sysctls()
    if child.sysctls is not None:
        hiding.set_sysctls(child.sysctls, values)
        child.sysctls = None


def _restrict_paths(child: Child) -> None:
    linux = child.spec.get("linux", {})
    masked, read_only = linux.get("maskedPaths", []), linux.get("readonlyPaths", [])
    if rootfs.can_hide_early(child.spec):
        masked = hiding.of_proc(masked, wanted=False)
        read_only = hiding.of_proc(read_only, wanted=False)
    hiding.mask(masked)
    hiding.make_read_only(read_only)
    if child.spec.get("root", {}).get("readonly", False):
        rootfs.seal_root()


def close_descriptors(child: Child) -> None:
    """Keep nothing but its streams and the socket to the monitor."""
    # Before the working directory is entered: /proc/self/fd must lead nowhere (CVE-2024-21626).
    sync = child.sync.fileno()
    os.dup2(sync, 3, inheritable=False)
    if sync != 3:
        child.sync.detach()
        child.sync = sockets.adopt(3)
    processes.close_from(4)


def become_the_user(child: Child) -> None:
    """Become the user, then the program."""
    payload.execute(child.process, become_the_account(child), init=child.init)


def become_the_account(child: Child) -> accounts.Account:
    """Become the user, and return whom."""
    process = child.process
    account = accounts.resolve(child.user, child.groups) if child.user else _spec_account(child)
    payload.set_rlimits(process.get("rlimits", []))
    score = process.get("oomScoreAdj")
    if score is not None:
        payload.set_oom_score(score)
    if account.uid != 0:
        _own_stdio(child, account.uid)
    payload.enter_directory(process.get("cwd") or "/", make=child.pidfd is None)
    os.umask(process.get("user", {}).get("umask", 0o022))
    payload.become(process, account, child.filter)
    return account


def _spec_account(child: Child) -> accounts.Account:
    user = child.process.get("user", {})
    account = accounts.resolve(str(user.get("uid", 0)), child.groups)
    if "gid" in user:
        account.gid = user["gid"]
    account.groups += user.get("additionalGids", [])
    return account


def _own_stdio(child: Child, uid: int) -> None:
    """Let the user reopen /dev/stdout and the terminal."""
    del child
    payload.own_streams(uid)


# By the plan, or, of a spare, by the default spec.
BEGIN_STEPS: tuple[Step, ...] = (reset_signals, _enter_cgroup)
ENTER_STEPS: tuple[Step, ...] = (limit, enter_namespaces, raise_loopback, set_hostname)
PREPARE_STEPS: tuple[Step, ...] = (
    *ENTER_STEPS,
    _mount_rootfs,
    mount_file_systems,
    restrict_proc,
)
LAST_STEPS: tuple[Step, ...] = (
    set_up_stdio,
    _restrict_paths,
    close_descriptors,
    become_the_user,
)
START_STEPS: tuple[Step, ...] = (take_over, mount_the_rest, set_sysctls, *LAST_STEPS)
TASK_STEPS = (read_plan, *BEGIN_STEPS, *PREPARE_STEPS, *START_STEPS)
SPARE_STEPS = (*BEGIN_STEPS, _stage, _take_plan, *PREPARE_STEPS, *START_STEPS)
EXEC_STEPS: tuple[Step, ...] = (
    read_plan,
    reset_signals,
    _join_container,
    set_up_stdio,
    close_descriptors,
    become_the_user,
)
# What a mount namespace keeps to itself.
MOUNT_STEPS: tuple[Step, ...] = (
    _mount_rootfs,
    mount_file_systems,
    restrict_proc,
    mount_the_rest,
    _restrict_paths,
)
