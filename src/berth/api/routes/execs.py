"""Routes of extra processes in running containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.compatibility import newest_exec_start
from berth.api.parameters import detach_keys
from berth.api.router import Route
from berth.engine.models import ExecConfig, ExecStart
from berth.runtime.requests import Attachment

if TYPE_CHECKING:
    from berth.api.parameters import Call
    from berth.engine.engine import Engine


def is_name(user: str) -> bool:
    """Say whether a user or its group is to be looked up in the container."""
    return any(part and not part.isdigit() for part in user.split(":"))


class ExecRoutes:
    """``/containers/{}/exec`` and ``/exec``."""

    def __init__(self, engine: Engine) -> None:
        self._execs = engine.execs
        self._files = engine.files

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("POST", "/containers/{}/exec", self.create),
            Route("POST", "/exec/{}/start", self.start),
            Route("POST", "/exec/{}/resize", self.resize),
            Route("GET", "/exec/{}/json", self.inspect),
        ]

    async def create(self, call: Call) -> None:
        """Make an exec."""
        config = await call.decode(ExecConfig, required=True)
        detach_keys(config.detach_keys)
        self._execs.check(call.name, config)
        if is_name(config.user):
            await self._files.find_user(call.name, config.user)
        await call.exchange.respond(201, {"Id": self._execs.create(call.name, config)})

    async def start(self, call: Call) -> None:
        """Start one, with the connection for its streams unless detached."""
        options = await call.decode(ExecStart)
        newest_exec_start(options, call.version)
        found = self._execs.find(call.name)
        self._execs.require_startable(found)
        if options.detach:
            await self._execs.start(found, options, None)
            await call.exchange.respond(200)
            return
        config = found.config
        # Whether the stream is framed is what this request says, not what the exec was made with.
        fd, early = await call.exchange.upgrade(call.stream_type(terminal=options.tty))
        attachment = Attachment(
            fd=fd,
            stdin=config.attach_stdin,
            stdout=config.attach_stdout,
            stderr=config.attach_stderr,
            multiplexed=not options.tty,
            detach_keys=detach_keys(config.detach_keys),
            early=early,
        )
        await self._execs.start(found, options, attachment)

    async def resize(self, call: Call) -> None:
        """Set the size of its terminal."""
        rows, columns = call.size()
        await self._execs.task(call.name).resize(rows=rows, columns=columns)
        await call.exchange.respond(200)

    async def inspect(self, call: Call) -> None:
        """Answer how one is."""
        await call.exchange.respond(200, await self._execs.inspect(call.name))
