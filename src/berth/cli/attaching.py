"""`berth start`, `berth attach` and `berth exec`."""

from __future__ import annotations

import os
import sys

from berth.cli import terminal
from berth.cli.attachment import Attached, open_attachment
from berth.cli.call import report
from berth.cli.container_request import environment
from berth.cli.session import Session, detach_keys
from berth.client import documents
from berth.client.connection import UPGRADE, quote
from berth.errors import BerthError, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag
    from berth.client.documents import Document

KEYS: Flag = ("detach-keys", "", "string", "Override the key sequence for detaching a container")
START_FLAGS: tuple[Flag, ...] = (
    ("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
    ("checkpoint", "", "string", "Restore from this checkpoint"),
    ("checkpoint-dir", "", "string", "Use a custom checkpoint storage directory"),
    KEYS,
    ("interactive", "i", "bool", "Attach container's STDIN"),
)
ATTACH_FLAGS: tuple[Flag, ...] = (
    KEYS,
    ("no-stdin", "", "bool", "Do not attach STDIN"),
    ("sig-proxy", "", "true", "Proxy all received signals to the process"),
)
EXEC_FLAGS: tuple[Flag, ...] = (
    ("detach", "d", "bool", "Detached mode: run command in the background"),
    KEYS,
    ("env", "e", "list", "Set environment variables"),
    ("env-file", "", "list", "Read in a file of environment variables"),
    ("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    ("privileged", "", "bool", "Give extended privileges to the command"),
    ("tty", "t", "bool", "Allocate a pseudo-TTY"),
    ("user", "u", "string", 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
    ("workdir", "w", "string", "Working directory inside the container"),
)


def start(call: Call) -> int:
    """Start containers; with -a or -i be the terminal of the only one."""
    options = call.options
    query = {name: options.text(name) for name in ("checkpoint", "checkpoint-dir")}
    if not options.on("attach") and not options.on("interactive"):
        if options.text("checkpoint"):
            return _restore(call, query)

        def act(container: str) -> str:
            call.engine.request("POST", f"/containers/{quote(container)}/start").read()
            return container

        failed = call.failures(act)
        if failed:
            print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
        return 1 if failed else 0
    if len(call.arguments) > 1:
        raise InvalidArgument("you cannot start and attach multiple containers at once")
    inspected = _inspect(call)
    removed = documents.field(inspected, "HostConfig", "AutoRemove") is True
    attached = _attach(
        call,
        inspected,
        stdin=options.on("interactive"),
        condition="removed" if removed else "next-exit",
    )
    try:
        path = f"/containers/{documents.text(inspected, 'Id')}/start"
        call.engine.request("POST", path, query).read()
    except BerthError as error:
        attached.close()
        report(error)
        return 1
    return attached.follow()


def _restore(call: Call, query: dict[str, str]) -> int:
    """Let the only container go on from a checkpoint; as docker's, it says nothing."""
    if len(call.arguments) > 1:
        raise InvalidArgument("you cannot restore multiple containers at once")
    path = f"/containers/{quote(call.arguments[0])}/start"
    call.engine.request("POST", path, query).read()
    return 0


def attach(call: Call) -> int:
    """Attach to a running container."""
    inspected = _inspect(call)
    state = documents.field(inspected, "State")
    for flag, said in (
        ("Restarting", "You cannot attach to a restarting container, wait until it is running"),
        ("Paused", "You cannot attach to a paused container, unpause it first"),
    ):
        if documents.field(state, flag) is True:
            raise InvalidArgument(said)
    if documents.field(state, "Running") is not True:
        raise InvalidArgument("You cannot attach to a stopped container, start it first")
    stdin = not call.options.on("no-stdin")
    attached = _attach(call, inspected, stdin=stdin, condition="not-running")
    attached.detach_code = 1
    return attached.follow()


def _inspect(call: Call) -> object:
    return call.engine.request("GET", f"/containers/{quote(call.arguments[0])}/json").document()


def _attach(call: Call, inspected: object, *, stdin: bool, condition: str) -> Attached:
    config: Document = dict(documents.mapping(documents.field(inspected, "Config")))
    config["AttachStdin"] = stdin and config.get("OpenStdin") is True
    config["AttachStdout"] = config["AttachStderr"] = True
    if config["AttachStdin"] and config.get("Tty") is True:
        terminal.require_terminal(0)
    keys = detach_keys(call.options.text("detach-keys"))
    id_ = documents.text(inspected, "Id")
    return open_attachment(call, id_, config, keys=keys, condition=condition)


def execute(call: Call) -> int:
    """Run a command in a running container; the exit code is the command's."""
    options = call.options
    container, *command = call.arguments
    keys = detach_keys(options.text("detach-keys"))
    detach, tty, stdin = options.on("detach"), options.on("tty"), options.on("interactive")
    if tty and stdin and not detach:
        terminal.require_terminal(0)
    body: Document = {
        "AttachStdin": stdin and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "DetachKeys": options.text("detach-keys"),
        "Tty": tty,
        "Env": environment(options),
        "Cmd": command,
        "Privileged": options.on("privileged"),
        "User": options.text("user"),
        "WorkingDir": options.text("workdir"),
    }
    answer = call.engine.request("POST", f"/containers/{quote(container)}/exec", body=body)
    id_ = documents.text(answer.document(), "Id")
    begin: Document = {"Detach": detach, "Tty": tty}
    if detach:
        call.engine.request("POST", f"/exec/{id_}/start", body=begin).read()
        return 0
    if tty:
        begin["ConsoleSize"] = list(terminal.size(1))
    streams = call.another()
    streams.send("POST", f"/exec/{id_}/start", body=begin, headers=UPGRADE)
    session = Session(
        streams.hijack(),
        tty=tty,
        stdin=0 if stdin else None,
        keys=keys if tty and stdin else b"",
    )
    return _follow_exec(call, id_, session, raw=tty and stdin)


def _follow_exec(call: Call, id_: str, session: Session, *, raw: bool) -> int:
    def resize(number: int = terminal.RESIZED) -> None:
        rows, columns = terminal.size(1)
        if number == terminal.RESIZED and rows and columns:
            try:
                query = {"h": str(rows), "w": str(columns)}
                call.engine.request("POST", f"/exec/{id_}/resize", query).read()
            except BerthError:
                return  # it ended in between

    numbers = (terminal.RESIZED,) if raw and os.isatty(1) else ()
    with terminal.Signals(numbers) as signals:
        if numbers:
            resize()
        if raw:
            with terminal.RawMode(0):
                session.pump(signals, resize)
        else:
            session.pump(signals, resize)
    if session.detached:
        print("read escape sequence", file=sys.stderr)
        return 1
    answer = call.engine.request("GET", f"/exec/{id_}/json").document()
    return documents.number(answer, "ExitCode")


VERBS: dict[str, Verb] = {
    "start": (START_FLAGS, start),
    "attach": (ATTACH_FLAGS, attach),
    "exec": (EXEC_FLAGS, execute),
}
