"""Routes of the engine itself."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from berth.api import compatibility, diskusage
from berth.api.exchange import JSON, TEXT
from berth.api.router import Route
from berth.errors import InvalidArgument
from berth.registry.auth import Credentials

if TYPE_CHECKING:
    from berth.api.exchange import Headers
    from berth.api.parameters import Call
    from berth.builds.service import Builds
    from berth.engine.engine import Engine

PING_HEADERS: Headers = [
    ("Builder-Version", "2"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
]
TYPES_SINCE = (1, 42)
USAGE_SINCE = (
    1,
    52,
)  # in figures; clients that take any version, as docker-py does, read the lists, too
EVENT_FORMS_SINCE = (1, 52)
# The forms of a stream of events, and what is before each of them.
EVENT_FORMS = {
    "application/jsonl": b"",
    "application/x-ndjson": b"",
    "application/json-seq": b"\x1e",  # RFC 7464
}
# The values of ``type`` in /system/df, and what belongs to each.
KINDS = {
    "container": ("Containers",),
    "image": ("Images", "LayersSize"),
    "volume": ("Volumes",),
    "build-cache": ("BuildCache",),
}


class SystemRoutes:
    """``/_ping``, ``/version``, ``/info``, ``/events``, ``/system/…`` and ``/auth``."""

    def __init__(self, engine: Engine, builds: Builds) -> None:
        self._engine = engine
        self._builds = builds

    def routes(self) -> list[Route]:
        """Return the table."""
        return [
            Route("GET", "/_ping", self.ping),
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
            Route("GET", "/system/df", self.disk_usage),
            Route("POST", "/system/check", self.check, long=True),
            Route("POST", "/auth", self.auth),
            Route("GET", "/events", self.events, long=True),
        ]

    async def ping(self, call: Call) -> None:
        """Say that the engine is there; clients negotiate the API version by the headers."""
        body = b"" if call.exchange.method == "HEAD" else b"OK"
        await call.exchange.respond_bytes(200, body, TEXT, headers=PING_HEADERS)

    async def version(self, call: Call) -> None:
        """Answer versions."""
        await call.exchange.respond(200, self._engine.version())

    async def info(self, call: Call) -> None:
        """Answer what the engine has and where it runs."""
        found = self._engine.info()
        compatibility.older_info(found, call.version)
        await call.exchange.respond(200, found)

    async def disk_usage(self, call: Call) -> None:
        """Answer what takes space; ``type`` chooses parts of it."""
        usage = await self._engine.disk_usage()
        usage["BuildCache"] = await self._builds.caches()
        compatibility.older_images(usage["Images"], call.version)
        wanted = call.texts("type") if call.version >= TYPES_SINCE else []
        for kind in wanted:
            if kind not in KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        for kind, members in KINDS.items():
            if wanted and kind not in wanted:
                for member in members:
                    usage.pop(member, None)
        if call.version >= USAGE_SINCE:
            verbose = call.flag("verbose")
            usage = {**({} if verbose else usage), **diskusage.usage(usage, verbose=verbose)}
        if call.version < TYPES_SINCE:
            usage["BuilderSize"] = 0
        await call.exchange.respond(200, usage)

    async def check(self, call: Call) -> None:
        """Verify the store, and with ``repair`` remove what is broken. Docker has nothing like it."""
        found = await self._engine.check_store(repair=call.flag("repair"))
        await call.exchange.respond(200, msgspec.to_builtins(found))

    async def auth(self, call: Call) -> None:
        """Ask the registry about credentials; the client keeps them."""
        credentials = await call.decode(Credentials, required=True)
        await call.exchange.respond(200, await self._engine.login(credentials))

    async def events(self, call: Call) -> None:
        """Stream events as they happen, first those since ``since``."""
        events = self._engine.events_stream(call.text("since"), call.text("until"), call.filters())
        form = event_form(call)
        mark = EVENT_FORMS.get(form, b"")
        call.exchange.begin(form)
        async for event in events:
            if mark:
                await call.exchange.write(mark)
            await call.exchange.write_document(compatibility.older_event(event, call.version))
        await call.exchange.end()


def event_form(call: Call) -> str:
    """Return the content type of events that a client likes best, the first of those that are equal to it."""
    accepted = call.exchange.header(b"accept")
    if accepted is None or call.version < EVENT_FORMS_SINCE:
        return JSON
    wishes = [_wish(entry) for entry in accepted.split(",")]
    best, form = 0.0, JSON
    for offer in EVENT_FORMS:
        for pattern, weight in wishes:
            if weight > best and fnmatchcase(offer, pattern):
                best, form = weight, offer
    return form


def _wish(entry: str) -> tuple[str, float]:
    """Split an entry of an Accept header into a content type and its weight; nonsense weighs nothing."""
    pattern, _, parameters = entry.partition(";")
    weight = re.search(r"(?:^|;)\s*q=([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
    return pattern.strip().lower(), float(weight[1]) if weight else 1.0
