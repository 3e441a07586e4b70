"""Routes of swarms and managed plugins, answered as an engine answers that has neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.api.router import Route
from berth.engine.networkpools import NO_MANAGER
from berth.errors import NotFound, Unavailable, Unsupported

if TYPE_CHECKING:
    from berth.api.parameters import Call

NO_MEMBER = "This node is not part of a swarm"
NO_SWARM = "this engine has no swarm mode"
NO_PLUGINS = "this engine has no managed plugins"
# What only a manager answers: lists, and what each list has one of.
MANAGED = ("services", "nodes", "tasks", "secrets", "configs")


class SwarmRoutes:
    """``/swarm``, ``/services``, ``/nodes``, ``/tasks``, ``/secrets`` and ``/configs``."""

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("POST", "/swarm/init", self.begin),
            Route("POST", "/swarm/join", self.begin),
            Route("POST", "/swarm/leave", self.leave),
            Route("GET", "/swarm", self.refuse),
            Route("GET", "/swarm/unlockkey", self.refuse),
            Route("POST", "/swarm/unlock", self.refuse),
            Route("POST", "/swarm/update", self.refuse),
            Route("PUT", "/volumes/{}", self.refuse),  # a cluster's
            *(Route("GET", f"/{kind}", self.refuse) for kind in MANAGED),
            *(Route("GET", f"/{kind}/{{}}", self.refuse) for kind in MANAGED),
            *(Route("POST", f"/{kind}/{{}}", self.refuse) for kind in MANAGED if kind != "tasks"),
            *(Route("DELETE", f"/{kind}/{{}}", self.refuse) for kind in MANAGED if kind != "tasks"),
        ]

    async def begin(self, call: Call) -> None:
        """Refuse: there is no swarm mode to begin."""
        raise Unsupported(NO_SWARM)

    async def leave(self, call: Call) -> None:
        """Refuse: there is nothing to leave."""
        raise Unavailable(NO_MEMBER)

    async def refuse(self, call: Call) -> None:
        """Refuse what only a manager can answer."""
        raise Unavailable(NO_MANAGER)


class PluginRoutes:
    """``/plugins``."""

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/plugins", self.list),
            Route("GET", "/plugins/privileges", self.refuse),
            Route("POST", "/plugins/pull", self.refuse),
            Route("POST", "/plugins/create", self.refuse),
            Route("GET", "/plugins/{}/json", self.miss),
            *(
                Route("POST", f"/plugins/{{}}/{verb}", self.miss)
                for verb in ("enable", "disable", "push", "upgrade", "set")
            ),
            Route("DELETE", "/plugins/{}", self.miss),
        ]

    async def list(self, call: Call) -> None:
        """Answer that there are none."""
        await call.exchange.respond(200, [])

    async def miss(self, call: Call) -> None:
        """Say that there is no such plugin."""
        raise NotFound(f'plugin "{call.name}" not found')

    async def refuse(self, call: Call) -> None:
        """Refuse to install any."""
        raise Unsupported(NO_PLUGINS)
