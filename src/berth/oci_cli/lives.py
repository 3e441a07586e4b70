"""`create`, `start`, `run`, `kill`, `delete`, `pause`, `resume`."""

from __future__ import annotations

import os

from berth.bundle import checks, creation, ending
from berth.bundle.records import Folder
from berth.bundle.status import CREATED, CREATING, PAUSED, STOPPED, status
from berth.errors import BerthError, Conflict, InvalidArgument, NotFound
from berth.oci_cli import bundles, foreground
from berth.oci_cli.invocation import Declined
from berth.runtime import hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.bundle.records import Record
    from berth.oci.runtime_spec import Spec
    from berth.oci_cli.invocation import Invocation

    Making = Callable[[Folder, Spec, str, creation.Options], creation.Creation]

# What of the caller no worker of the zygote can give: its children, descriptors and keyring.
UNSERVED = {"detach", "preserve-fds", "no-new-keyring"}


def load(call: Invocation) -> tuple[Spec, str]:
    """Return the document of the bundle that a call names, and the bundle's path."""
    bundle = os.path.abspath(call.options.text("bundle") or ".")
    if not os.path.isdir(bundle):
        raise NotFound(f"bundle {bundle} is not a directory")
    spec = bundles.load(bundle)
    checks.check(spec, bundle)
    return spec, bundle


def _options(call: Invocation) -> creation.Options:
    found = creation.Options()
    found.console_socket = _absolute(call.options.text("console-socket"))
    found.pid_file = _absolute(call.options.text("pid-file"))
    found.preserve_fds = call.options.number("preserve-fds") + _given_sockets()
    found.no_pivot = call.options.on("no-pivot")
    found.systemd_cgroup = call.given.on("systemd-cgroup")
    found.no_new_keyring = call.options.on("no-new-keyring")
    if call.caller is not None:
        found.maker = str(call.caller.pid)
        found.network = call.caller.network
    return found


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _given_sockets() -> int:
    """Return how many sockets the caller passes on (sd_listen_fds(3)), to this process and no other."""
    text = os.environ.get("LISTEN_FDS", "")
    is_ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return int(text) if is_ours and text.isdecimal() else 0


def _make(
    call: Invocation, spec: Spec, bundle: str, making: Making
) -> tuple[Folder, creation.Made]:
    options = _options(call)
    if _given_sockets() and spec.get("process"):
        listen = [f"LISTEN_FDS={_given_sockets()}", "LISTEN_PID=1"]
        spec["process"]["env"] = [*spec["process"].get("env", []), *listen]
    folder = Folder(call.root, call.id)
    folder.make()
    try:
        one = making(folder, spec, bundle, options)
    except BaseException:
        folder.remove()
        raise
    return folder, one.make()


class Fresh(creation.Creation):
    """A container that is made as its spec says; what keeps it from that is told in runc's words."""

    def make(self) -> creation.Made:
        """Make it."""
        try:
            return super().make()
        except BerthError as error:
            error.message = f"{creation.NOT_STARTED}{error.message}"
            raise


def do_create(call: Invocation) -> int:
    """Make a container whose process waits for its start."""
    spec, bundle = load(call)
    terminal = bool(spec.get("process", {}).get("terminal"))
    _check_terminal(call, terminal=terminal, detached=True)
    _make(call, spec, bundle, Fresh)
    return 0


def _check_terminal(call: Invocation, *, terminal: bool, detached: bool) -> None:
    console = call.options.text("console-socket")
    if detached and terminal and not console:
        raise InvalidArgument(
            "cannot allocate tty if runc will detach without setting console socket".replace(
                "runc", "berth-oci"
            )
        )
    if console and not (detached and terminal):
        raise InvalidArgument(
            "cannot use console socket if berth-oci will not detach or allocate tty"
        )


def do_start(call: Invocation) -> int:
    """Start a created container."""
    folder, record = call.open()
    now = status(folder, record)
    if now != CREATED:
        if now == STOPPED:
            raise Conflict("cannot start a container that has stopped")
        if now == CREATING:  # by a command that was killed
            raise Conflict("cannot start a container that was not made to its end")
        if now == PAUSED:
            raise Conflict("cannot start a container in the paused state")
        raise Conflict("cannot start an already running container")
    try:
        creation.start(folder, record)
    except Conflict:
        raise
    except BerthError:
        ending.delete(folder, record, force=True)
        raise
    return 0


def do_run(call: Invocation) -> int:
    """Make a container, start it, and unless told to detach stay until it ends."""
    spec, bundle = load(call)
    if call.caller is not None:
        if UNSERVED & call.options.names() or (
            call.caller.is_in_other_groups and hooks.any_of(spec)
        ):
            raise Declined
        call.caller.take()
    return live(call, spec, bundle, Fresh, creation.start)


def live(
    call: Invocation,
    spec: Spec,
    bundle: str,
    making: Making,
    start: Callable[[Folder, Record], object],
) -> int:
    """Have a container made and started; unless told to detach, stay until it ends and remove it."""
    detached = call.options.on("detach")
    terminal = bool(spec.get("process", {}).get("terminal"))
    _check_terminal(call, terminal=terminal, detached=detached)
    folder, made = _make(call, spec, bundle, making)
    try:
        stay = None if detached else foreground.Foreground(made.pid, made.terminal, call.caller)
        start(folder, made.record)
    except BaseException:
        ending.delete(folder, made.record, force=True)
        raise
    if stay is None:
        return 0
    folder.unlock()
    try:
        code = stay.run()
    finally:
        stay.close()
    if not call.options.on("keep"):
        try:
            ending.delete(folder, folder.open(), force=True, known=made.group)
        except NotFound:  # somebody else was quicker
            pass
    if call.caller is not None:
        call.caller.finish()
    return code


def do_kill(call: Invocation) -> int:
    """Send a signal."""
    text = call.arguments[1] if len(call.arguments) > 1 else "SIGTERM"
    number = ending.signal_number(text)
    folder, record = call.look()
    ending.kill(folder, record, number, everyone=call.options.on("all"))
    return 0


def do_delete(call: Invocation) -> int:
    """Remove containers; with --force one that is not there is no failure."""
    force = call.options.on("force")
    for id_ in call.arguments:
        folder = Folder(call.root, id_)
        try:
            record = folder.open(force=force)
        except NotFound:
            if force:
                continue
            raise
        ending.delete(folder, record, force=force)
    return 0


def do_pause(call: Invocation) -> int:
    """Stop all processes."""
    ending.pause(*call.open())
    return 0


def do_resume(call: Invocation) -> int:
    """Let all processes go on."""
    ending.resume(*call.open())
    return 0
