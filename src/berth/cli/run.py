"""`berth run` and `berth create`."""

from __future__ import annotations

import os
import sys

from berth.cli import container_request
from berth.cli.attachment import Attached, open_attachment
from berth.cli.container_flags import CREATE, RUN
from berth.cli.options import FlagError, UsageError
from berth.cli.session import detach_keys
from berth.cli.terminal import require_terminal, size
from berth.client import documents
from berth.errors import (
    BerthError,
    CommandNotExecutable,
    CommandNotFound,
    InvalidArgument,
    NotFound,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Options
    from berth.client.documents import Document

ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
NOT_FOUND_TEXTS = ("executable file not found", "no such file or directory")
NOT_EXECUTABLE_TEXTS = ("permission denied", "is a directory", "exec format error")
PULLS = ("", "missing", "always", "never")


def create(call: Call) -> int:
    """Create a container and print its id."""
    print(_create(call, _body(call)))
    return 0


def run(call: Call) -> int:
    """Create a container, attach, start it, and be its terminal until it ends."""
    options = call.options
    if options.on("detach") and options.given("attach"):
        raise InvalidArgument("conflicting options: cannot specify both --attach and --detach")
    keys = detach_keys(options.text("detach-keys"))
    body = _body(call)
    host = documents.mapping(body["HostConfig"])
    if body["Tty"] and body["AttachStdin"]:
        try:
            require_terminal(0)
        except InvalidArgument as error:
            print(error, file=sys.stderr)
            return 1
    if body["Tty"]:
        host["ConsoleSize"] = list(size(1))
    container = _create(call, body)
    if options.on("detach"):
        return _start_detached(call, container)
    attached = open_attachment(
        call,
        container,
        body,
        keys=keys if options.text("detach-keys") or os.isatty(0) else b"",
        condition="removed" if options.on("rm") else "next-exit",
    )
    return _start_attached(call, container, attached)


def _body(call: Call) -> Document:
    """Return the body of the request; FlagError for flags that do not make one."""
    try:
        _check(call.options)
        return container_request.build(call.options, call.arguments)
    except UsageError:
        raise
    except InvalidArgument as error:
        raise FlagError(str(error)) from None


def _check(options: Options) -> None:
    if options.text("pull") not in PULLS:
        raise InvalidArgument(
            f'invalid pull option: \'{options.text("pull")}\': must be one of "always", "missing" or "never"'
        )
    cidfile = options.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise InvalidArgument(
            "container ID file found, make sure the other container isn't running or delete "
            + cidfile
        )


def _create(call: Call, body: Document) -> str:
    """Create the container, with a pull when the image is missing and may be pulled."""
    options = call.options
    pull = options.text("pull") or "missing"
    query = {"name": options.text("name"), "platform": options.text("platform")}
    config = _add_socket(call, body) if options.on("use-api-socket") else b""
    if pull == "always":
        _pull(call, quiet=options.on("quiet"))
    try:
        answer = call.engine.request("POST", "/containers/create", query, body=body).document()
    except NotFound as error:
        if pull != "missing" or "no such image" not in str(error).lower():
            raise
        if not options.on("quiet"):
            print(f"Unable to find image '{_tagged(call.arguments[0])}' locally", file=sys.stderr)
        _pull(call, quiet=options.on("quiet"))
        answer = call.engine.request("POST", "/containers/create", query, body=body).document()
    container = documents.text(answer, "Id")
    warnings = [*documents.strings(answer, "Warnings")]
    if config:
        warnings += _put_config(call, container, config)
    for warning in warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    if path := options.text("cidfile"):
        with open(path, "w", encoding="ascii") as file:
            file.write(container)
    return container


def _add_socket(call: Call, body: Document) -> bytes:
    from berth.cli import apisocket

    return apisocket.add(call, body)


def _put_config(call: Call, container: str, config: bytes) -> list[str]:
    from berth.cli import apisocket

    warning = apisocket.put(call, container, config)
    return [warning] if warning else []


def _tagged(reference: str) -> str:
    last = reference.rpartition("/")[2]
    return reference if ":" in last or "@" in last else f"{reference}:latest"


def _pull(call: Call, *, quiet: bool) -> None:
    from berth.cli import pulling

    pulling.pull(
        call.engine,
        call.arguments[0],
        {"platform": call.options.text("platform")},
        output=None if quiet else sys.stderr,
    )


def _start_detached(call: Call, container: str) -> int:
    try:
        call.engine.request("POST", f"/containers/{container}/start").read()
    except BerthError as error:
        print(container, flush=True)
        return _failed(error)
    print(container)
    return 0


def _start_attached(call: Call, container: str, attached: Attached) -> int:
    try:
        call.engine.request("POST", f"/containers/{container}/start").read()
    except BerthError as error:
        attached.close()
        return _failed(error)
    return attached.follow()


def _failed(error: BerthError) -> int:
    """Report a failed start; the exit code tells what kind of failure it was."""
    print(f"berth: {error}\n\nRun 'berth run --help' for more information", file=sys.stderr)
    said = str(error).lower()
    if isinstance(error, CommandNotFound) or any(text in said for text in NOT_FOUND_TEXTS):
        return NOT_FOUND
    if isinstance(error, CommandNotExecutable) or any(
        text in said for text in NOT_EXECUTABLE_TEXTS
    ):
        return NOT_EXECUTABLE
    return ENGINE_FAILED


VERBS: dict[str, Verb] = {"run": (RUN, run), "create": (CREATE, create)}
