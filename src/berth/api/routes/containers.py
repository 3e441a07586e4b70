"""Routes of containers' lives: questions and verbs that end soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api import compatibility
from berth.api.router import Route
from berth.engine.models import ContainerConfig, CreateRequest, HostConfig, UpdateRequest
from berth.errors import BerthError, InvalidArgument

if TYPE_CHECKING:
    from berth.api.parameters import Call
    from berth.engine.engine import Engine

PLATFORM_SINCE = (1, 41)
# "{}" and white space: what clients send that mean nothing by it.
MAX_EMPTY_BYTES = 7


class ContainerRoutes:
    """``/containers``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/containers/json", self.list),
            Route("POST", "/containers/create", self.create),
            Route("POST", "/containers/prune", self.prune),
            Route("GET", "/containers/{}/json", self.inspect),
            Route("GET", "/containers/{}/top", self.top),
            Route("POST", "/containers/{}/start", self.start),
            Route("POST", "/containers/{}/stop", self.stop),
            Route("POST", "/containers/{}/restart", self.restart),
            Route("POST", "/containers/{}/kill", self.kill),
            Route("POST", "/containers/{}/pause", self.pause),
            Route("POST", "/containers/{}/unpause", self.unpause),
            Route("POST", "/containers/{}/rename", self.rename),
            Route("POST", "/containers/{}/update", self.update),
            Route("POST", "/containers/{}/resize", self.resize),
            Route("DELETE", "/containers/{}", self.remove),
        ]

    async def list(self, call: Call) -> None:
        """Answer summaries."""
        found = self._engine.summaries(
            all_=call.flag("all"), limit=call.integer("limit"), filters=call.filters()
        )
        if call.flag("size"):
            for summary in found:
                summary.update(await self._engine.sizes(str(summary["Id"])))
        for summary in found:
            compatibility.older_summary(summary, call.version)
        await call.exchange.respond(200, found)

    async def create(self, call: Call) -> None:
        """Make a container."""
        request = await call.decode(CreateRequest, required=True)
        if request.config() == ContainerConfig():
            raise InvalidArgument("config cannot be empty in order to create a container")
        host = request.host_config or HostConfig()
        noted = compatibility.newest_create(request, host, call.version)
        platform = call.text("platform") if call.version >= PLATFORM_SINCE else ""
        record, warnings = await self._engine.create(
            request,
            name=call.text("name") or None,
            host=host,
            platform=platform,
            recursive_read_only=call.version >= compatibility.READ_ONLY_RECURSIVE_SINCE,
        )
        await call.exchange.respond(201, {"Id": record.id, "Warnings": [*warnings, *noted]})

    async def prune(self, call: Call) -> None:
        """Remove those that do not run."""
        await call.exchange.respond(200, await self._engine.prune_containers(call.filters()))

    async def inspect(self, call: Call) -> None:
        """Answer everything about one."""
        found = self._engine.inspect(call.name)
        if call.flag("size"):
            found.update(await self._engine.sizes(call.name))
        compatibility.older_inspect(found, call.version)
        await call.exchange.respond(200, found)

    async def top(self, call: Call) -> None:
        """Answer its processes."""
        await call.exchange.respond(200, await self._engine.top(call.name, call.text("ps_args")))

    async def start(self, call: Call) -> None:
        """Start one."""
        if len(await call.exchange.body()) > MAX_EMPTY_BYTES:
            raise InvalidArgument(
                "starting container with non-empty request body was deprecated since API v1.22 and"
                " removed in v1.24"
            )
        checkpoint, folder = call.text("checkpoint"), call.text("checkpoint-dir")
        if folder and not checkpoint:
            raise InvalidArgument("a checkpoint directory makes no sense without a checkpoint")
        found = self._engine.checkpoints.find(call.name, checkpoint, folder) if checkpoint else None
        await self._containers.start(call.name, found)
        await call.exchange.respond(204)

    async def stop(self, call: Call) -> None:
        """Stop one."""
        await self._containers.stop(
            call.name, signal_name=call.text("signal") or None, timeout_s=call.integer("t")
        )
        await call.exchange.respond(204)

    async def restart(self, call: Call) -> None:
        """Stop and start one."""
        await self._containers.restart(
            call.name, signal_name=call.text("signal") or None, timeout_s=call.integer("t")
        )
        await call.exchange.respond(204)

    async def kill(self, call: Call) -> None:
        """Send a signal to one."""
        try:
            await self._containers.kill(call.name, signal_name=call.text("signal"))
        except BerthError as error:
            raise type(error)(f"cannot kill container: {call.name}: {error.message}") from error
        await call.exchange.respond(204)

    async def pause(self, call: Call) -> None:
        """Freeze one."""
        self._containers.pause(call.name)
        await call.exchange.respond(204)

    async def unpause(self, call: Call) -> None:
        """Let one go on."""
        self._containers.unpause(call.name)
        await call.exchange.respond(204)

    async def rename(self, call: Call) -> None:
        """Give one another name."""
        self._containers.rename(call.name, call.text("name"))
        await call.exchange.respond(204)

    async def update(self, call: Call) -> None:
        """Change the limits and the restart policy of one."""
        update = await call.decode(UpdateRequest, required=True)
        warnings = await self._containers.update(call.name, update)
        await call.exchange.respond(200, {"Warnings": warnings or None})

    async def resize(self, call: Call) -> None:
        """Set the size of its terminal."""
        rows, columns = call.size()
        record = self._containers.find(call.name)
        await self._containers.task(record).resize(rows=rows, columns=columns)
        self._containers.emit(record, "resize", height=str(rows), width=str(columns))
        await call.exchange.respond(200)

    async def remove(self, call: Call) -> None:
        """Remove one, or only a link to it."""
        if call.flag("link"):
            await self._containers.unlink(call.name)
            await call.exchange.respond(204)
            return
        await self._containers.remove(call.name, force=call.flag("force"), volumes=call.flag("v"))
        await call.exchange.respond(204)
