"""The first process of a container: from a fresh clone to its program.

maker                                      child
   │── {"go"} + id-mapped trees ──────────►│ its ids are mapped; it makes its root
   │◄── {"ask": "hooks"} ──────────────────│ only when there are hooks: prestart, createRuntime
   │── {"go"} ────────────────────────────►│
   │◄── {"warning"} ───────────────────────│ any number of times
   │◄── {"terminal"} + descriptor ─────────│ only for a terminal that the maker shows itself
   │◄── {"ready"} or {"error", "step"} ────│ it waits for `start` on its socket from here on
starter                                    │
   │── connects ──────────────────────────►│ startContainer hooks; it becomes its user, then its program
   │◄── {"error", "step"} or end of file ──│ end of file means that execve succeeded
"""

from __future__ import annotations

import _signal
import os

from berth.bundle import descriptors, names, warnings
from berth.bundle.plan import FIRST_PRESERVED, account
from berth.bundle.root import Root
from berth.errors import InvalidArgument
from berth.kernel import namespaces, processes, seccomp, sockets
from berth.runtime import codec, payload, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from berth.bundle.labels import Labels
    from berth.bundle.plan import Filter, Plan
    from berth.oci.runtime_spec import Process
    from berth.runtime.accounts import Account

EXIT_SETUP_FAILED = 1
# What few processes need: by its name, and whether one does.
SELDOM: tuple[tuple[str, Callable[[Plan], bool]], ...] = (
    ("bundle.attributes", lambda plan: plan.has_attributes()),
    ("bundle.labels", lambda plan: plan.has_labels()),
    ("bundle.terminals", lambda plan: plan.terminal),
    ("kernel.loopback", lambda plan: plan.makes("network")),
    ("runtime.hooks", lambda plan: bool(plan.spec.get("hooks"))),
    (
        "runtime.treecopy",
        lambda plan: any("tmpcopyup" in e.options.extensions for e in plan.entries),
    ),
)
FIRST_SIGNAL_EXIT = 128
ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)
UNCHANGEABLE = (9, 19, 32, 33)  # SIGKILL, SIGSTOP, and the two that the C library keeps for itself


class Child:
    """The process as it prepares itself."""

    def __init__(self, plan: Plan, sync: sockets.Socket) -> None:
        self.plan = plan
        self.sync = sync
        self.root = Root(plan)
        self.account: Account | None = None
        self.labels: Labels | None = None

    def run(self) -> NoReturn:
        """Do every step; on failure tell whoever listens which one and why. Never returns."""
        step = "start"
        warnings.listen(self._pass_on_warning)
        try:
            for action in STEPS:
                step = action.__name__.strip("_").replace("_", " ")
                action(self)
        except BaseException as error:  # noqa: BLE001 - told to who waits, whatever it is
            tell_failure(self.sync, step, error)
        finally:  # in a root that may be hostile no traceback is shown, for that reads files
            os._exit(EXIT_SETUP_FAILED)

    def _pass_on_warning(self, text: str) -> None:
        sockets.send(self.sync, codec.encode({"warning": text}))

    def ask(self, document: bytes) -> None:
        """Have the maker do something, and wait until it is done."""
        sockets.send(self.sync, document)
        data, _ = sockets.receive(self.sync)
        if not data:
            os._exit(EXIT_SETUP_FAILED)

    def _leave_the_maker(self) -> None:
        reset_signals()
        if self.plan.has_labels():
            from berth.bundle.labels import Labels

            self.labels = Labels(self.plan.process)
        processes.set_name(b"berth-init")
        # Root's is not dumpable from the start. An ordinary user may map its ids only while it is.
        if not self.plan.is_new("user"):
            processes.prctl(processes.PR_SET_DUMPABLE, 0)
        os.setsid()
        if not self.plan.no_new_keyring:
            processes.join_session_keyring()
        os.umask(0o022)

    def _enter_groups(self) -> None:
        plan = self.plan
        if plan.has_group:
            plan.group.enter(born_in_unified=plan.hierarchies.unified is not None)
        if plan.is_new("cgroup"):
            namespaces.unshare(namespaces.CLONE_NEWCGROUP)

    def _enter_namespaces(self) -> None:
        for kind, fd in self.plan.joined.items():
            if kind not in ("pid", "user", "mount"):
                namespaces.setns(fd, namespaces.NAMESPACES[kind][0])
        if "mount" in self.plan.joined:
            namespaces.setns(self.plan.joined["mount"], namespaces.CLONE_NEWNS)

    def _wait_for_ids(self) -> None:
        data, fds = sockets.receive(self.sync)
        if not data:
            os._exit(EXIT_SETUP_FAILED)
        message = codec.decode(data)
        self.plan.state = message["state"]
        self.root.open_sources(fds[: message["trees"]], fds[message["trees"] :])
        if self.plan.in_user_namespace:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            processes.prctl(processes.PR_SET_DUMPABLE, 0)

    def _set_up_host(self) -> None:
        spec, plan = self.plan.spec, self.plan
        if plan.makes("network"):
            from berth.kernel import loopback

            loopback.bring_up()
        if hostname := spec.get("hostname"):
            namespaces.sethostname(hostname)
        if domainname := spec.get("domainname"):
            namespaces.setdomainname(domainname)
        for name, value in (plan.linux.get("sysctl") or {}).items():
            set_sysctl(name, value)

    def _mount_root(self) -> None:
        self.root.make()

    def _open_terminal(self) -> None:
        if self.plan.terminal:
            from berth.bundle import terminals

            slave = terminals.open_pair(self.plan.process, self.plan.console, self.sync)
            self.root.bind_console(slave)

    def _run_early_hooks(self) -> None:
        if not self.plan.has_early_hooks():
            return
        self.root.leave()
        from berth.runtime import hooks

        self.ask(b'{"ask": "hooks"}')
        hooks.run(self.plan.spec, "createContainer", self.state("creating"))
        self.root.enter()

    def _enter_root(self) -> None:
        self.root.become_root()

    def _restrict_paths(self) -> None:
        if cwd := self.plan.process.get("cwd"):
            payload.enter_directory(cwd, make=True)
            os.chdir("/")
        self.root.restrict()
        stdio.reopen_null()

    def _look_for_program(self) -> None:
        process = self.plan.process
        self.account = account(process)
        payload.raise_rlimits(process.get("rlimits") or [])
        if process.get("args"):
            check_program(process, self.account)

    def _close_descriptors(self) -> None:
        # Before the working directory is entered: /proc/self/fd must lead nowhere (CVE-2024-21626).
        assert self.plan.listener is not None
        keep = [self.sync.fileno(), self.plan.listener.fileno()]
        if self.plan.filter is not None and self.plan.filter.agent is not None:
            keep.append(self.plan.filter.agent.fileno())
        if self.labels is not None:
            keep += self.labels.descriptors()
        descriptors.close_all_but(keep)

    def _say_ready(self) -> None:
        sockets.send(self.sync, b'{"ready": true}')

    def _wait_for_start(self) -> None:
        assert self.plan.listener is not None
        for number in ENDING:  # which a first process of a pid namespace would not heed otherwise
            _signal.signal(number, _end)
        connection, _ = self.plan.listener._accept()  # type: ignore[attr-defined]  # typeshed leaves it out
        self.sync.close()
        self.sync = sockets.adopt(connection)
        self.plan.listener.close()

    def _become_the_program(self) -> None:
        assert self.account is not None
        plan = self.plan
        if not plan.process.get("args"):
            raise InvalidArgument("process property must not be empty")
        if plan.has_attributes():
            from berth.bundle import attributes

            attributes.apply(plan.process, plan.linux)
        if self.labels is not None:
            self.labels.apply()
        become(plan.process, self.account, plan.filter, self.state("running"))
        # Programs of the container's own, so with its privileges and below its filter.
        if plan.filter is not None and plan.process.get("noNewPrivileges"):
            load(plan.filter, self.state("running"))
        if plan.spec.get("hooks"):
            from berth.runtime import hooks

            hooks.run(plan.spec, "startContainer", self.state("created"))
        finish(plan.process, self.account, self.sync, plan.preserved)

    def state(self, status: str) -> Mapping[str, object]:
        """Return the state that hooks are told."""
        return {**self.plan.state, "status": status}


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(FIRST_SIGNAL_EXIT + number)


def load_seldom(plan: Plan) -> None:
    """Import what few processes need and this one does: once its root is changed, no module can be found."""
    for name, is_needed in SELDOM:
        if is_needed(plan):
            __import__(f"berth.{name}")


def reset_signals() -> None:
    """Give every signal its default action: the caller may ignore any, as shells' background jobs do."""
    for number in range(1, _signal.NSIG):
        if number not in UNCHANGEABLE:
            _signal.signal(number, _signal.SIG_DFL)
    processes.reset_hidden_signals()
    payload.reset_signals()


def tell_failure(sync: sockets.Socket, step: str, error: BaseException) -> None:
    """Say what failed to whoever waits; nobody may."""
    try:
        sockets.send(sync, codec.encode(payload.describe(step, error)))
    except OSError:
        return


def set_sysctl(name: str, value: str) -> None:
    """Set a kernel parameter of this process's namespaces, by the host's own /proc."""
    fd = os.open(f"/proc/sys/{names.sysctl_path(name)}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def check_program(process: Process, who: Account) -> None:
    """Refuse a program that is not there, while the caller of `create` listens."""
    values = payload.environment(process, who)
    folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
    payload.enter_directory(process.get("cwd") or "/", make=False)
    try:
        payload.find_program(process["args"][0], values.get("PATH", ""))
    finally:
        os.fchdir(folder)
        os.close(folder)


def become(
    process: Process, who: Account, filter_: Filter | None, state: Mapping[str, object]
) -> None:
    """Enter the working directory and become the user. A filter is loaded here unless it can be later."""
    payload.set_rlimits(process.get("rlimits") or [])
    payload.own_streams(who.uid)
    payload.enter_directory(process.get("cwd") or "/", make=False)
    umask = (process.get("user") or {}).get("umask")
    os.umask(0o022 if umask is None else umask)
    if filter_ is not None and not process.get("noNewPrivileges"):
        load(filter_, state)
    payload.become(process, who, None)


def load(filter_: Filter, state: Mapping[str, object]) -> None:
    """Load the filter; an agent gets the descriptor that calls are notified on."""
    fd = seccomp.load(filter_.program, filter_.flags)
    if filter_.agent is None:
        return
    document = {
        "ociVersion": state.get("ociVersion", ""),
        "fds": ["seccompFd"],
        "pid": state.get("pid", 0),
        "metadata": filter_.metadata,
        "state": state,
    }
    sockets.send_packet(filter_.agent, codec.encode(document), [fd])
    filter_.agent.close()
    os.close(fd)


def finish(process: Process, who: Account, sync: sockets.Socket, preserved: int) -> None:
    """Become the program. Never returns."""
    values = payload.environment(process, who)
    arguments = process["args"]
    program = payload.find_program(arguments[0], values.get("PATH", ""))
    os.set_inheritable(sync.fileno(), False)
    for fd in range(FIRST_PRESERVED, FIRST_PRESERVED + preserved):
        os.set_inheritable(fd, True)
    payload.replace(program, arguments, values)


STEPS = (
    Child._leave_the_maker,
    Child._enter_groups,
    Child._enter_namespaces,
    Child._wait_for_ids,
    Child._set_up_host,
    Child._mount_root,
    Child._open_terminal,
    Child._run_early_hooks,
    Child._enter_root,
    Child._restrict_paths,
    Child._look_for_program,
    Child._close_descriptors,
    Child._say_ready,
    Child._wait_for_start,
    Child._become_the_program,
)
