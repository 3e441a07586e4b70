"""Be attached to a container: streams on one connection, its exit code on another, signals on a third."""

from __future__ import annotations

import os
import sys

from berth.cli import terminal
from berth.cli.session import Session
from berth.client import documents
from berth.client.connection import UPGRADE
from berth.client.streams import STDERR, STDOUT
from berth.errors import BerthError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.client.connection import Connection, Response
    from berth.client.documents import Document

ENGINE_FAILED = 125


class Attached:
    """An attachment and what it takes to see it to its end."""

    def __init__(
        self, call: Call, container: str, session: Session | None, wait: Connection | None
    ) -> None:
        self._engine = call.engine
        self._container = container
        self._session = session
        self._waiting = wait
        self._wait: Response | None = None
        self.tty = False
        self.interactive = False
        self.proxies = call.options.on("sig-proxy", default=True)
        self.detach_code = 0

    def close(self) -> None:
        """Let go, of a container that did not start."""
        if self._session is not None:
            self._session.close()
        if self._waiting is not None:
            self._waiting.close()

    def ready(self) -> None:
        """Return when the engine waits for the exit."""
        if self._waiting is not None:
            self._wait = self._waiting.receive().require()

    def follow(self) -> int:
        """Pump until the streams end, then return the exit code."""
        numbers = terminal.PROXIED if self.proxies else ()
        if self._session is not None:
            with terminal.Signals((*numbers, terminal.RESIZED)) as signals:
                if self.tty:
                    self._resize()
                if self.tty and self.interactive:
                    with terminal.RawMode(0):
                        self._session.pump(signals, self._signal)
                else:
                    self._session.pump(signals, self._signal)
            if self._session.detached:
                if self.detach_code:
                    print("read escape sequence", file=sys.stderr)
                return self.detach_code
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._wait is None:
            return 0
        answer = next(self._wait.lines(), None)
        if message := documents.text(answer, "Error", "Message"):
            print(f"berth: {message}", file=sys.stderr)
            return ENGINE_FAILED
        return documents.number(answer, "StatusCode")

    def _signal(self, number: int) -> None:
        if number == terminal.RESIZED:
            if self.tty:
                self._resize()
            return
        self._ask("kill", {"signal": str(number)})

    def _resize(self) -> None:
        rows, columns = terminal.size(1)
        if rows and columns:
            self._ask("resize", {"h": str(rows), "w": str(columns)})

    def _ask(self, verb: str, query: dict[str, str]) -> None:
        try:
            self._engine.request("POST", f"/containers/{self._container}/{verb}", query).read()
        except BerthError:
            return  # it ended in between


def open_attachment(
    call: Call, container: str, config: Document, *, keys: bytes, condition: str
) -> Attached:
    """Attach to a container as its config says, and wait for its exit, both before it starts."""
    stdin = config["AttachStdin"] is True
    stdout, stderr = config["AttachStdout"] is True, config["AttachStderr"] is True
    streams = call.another() if stdin or stdout or stderr else None
    wait = call.another()
    query = {"stream": "1", "stdin": "1" if stdin else "", "stdout": "1" if stdout else ""}
    query |= {"stderr": "1" if stderr else "", "detachKeys": call.options.text("detach-keys")}
    if streams is not None:
        streams.send("POST", f"/containers/{container}/attach", query, headers=UPGRADE)
    wait.send("POST", f"/containers/{container}/wait", {"condition": condition})
    session = None
    tty = config["Tty"] is True
    if streams is not None:
        hidden = 0 if tty or (stdout and stderr) else STDERR if stdout else STDOUT
        session = Session(
            streams.hijack(),
            tty=tty,
            stdin=0 if stdin else None,
            keys=keys if stdin and tty else b"",
            hidden=hidden,
        )
    attached = Attached(call, container, session, wait)
    attached.tty = tty and os.isatty(1)
    attached.interactive = stdin and os.isatty(0)
    attached.ready()
    return attached
