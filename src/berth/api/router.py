"""The table of routes: which handler answers which method and path, and for which clients."""

from __future__ import annotations

import ipaddress
import platform
import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from berth.api.exchange import API_VERSION, MIN_API_VERSION
from berth.api.parameters import Call
from berth.errors import Forbidden, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from berth.api.exchange import Exchange
    from berth.api.parameters import Version

VERSION = re.compile(r"/v([0-9][0-9.]*)(?=/)")
MAX_DIGITS = 6
LOCAL_HOSTS = ("", "localhost", "docker", "berth")


class Route(NamedTuple):
    """One line of the table. ``{}`` in the path stands for a name, which may have slashes.

    ``long``: it ends with its client (a stream, a wait), where other work is done to its end.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[None]]
    long: bool = False


class Router:
    """Finds the handler of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[tuple[str, str], Route] = {}
        # By method and first segment; the order in the table decides where several match.
        self._named: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{}" not in route.path:
                self._fixed[route.method, route.path] = route
                continue
            pattern = re.compile(re.escape(route.path).replace(r"\{\}", "(.+)"))
            key = route.method, route.path.split("/", 2)[1]
            self._named.setdefault(key, []).append((pattern, route))

    def find(self, method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
        """Return the route of a path without its version, and the names in it."""
        if route := self._fixed.get((method, path)):
            return route, ()
        segment = path[1:].partition("/")[0]
        for pattern, route in self._named.get((method, segment), ()):
            if found := pattern.fullmatch(path):
                return route, tuple(map(unquote, found.groups()))
        return None

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        refuse_browsers(exchange)
        path, _, query = exchange.target.partition("?")
        version = API_VERSION
        match = VERSION.match(path)
        found = self.find(exchange.method, path[match.end() :] if match else path)
        if found is None:
            await _refuse(exchange, path, query)
            return
        if match:
            version = parse_version(match[1])
        route, names = found
        exchange.long = route.long
        await route.handler(Call(exchange, query, names, version))


async def _refuse(exchange: Exchange, path: str, query: str) -> None:
    """Answer that nothing has this path; of one with superfluous slashes or dots, what Docker does."""
    clean = posixpath.normpath(path).replace("//", "/", 1) + ("/" if path.endswith("/") else "")
    if clean in (path, f"{path}/"):
        await exchange.respond(404, {"message": "page not found"})
        return
    target = f"{clean}?{query}" if query else clean
    await exchange.respond_bytes(301, b"", "", headers=[("Location", target)])


def parse_version(asked: str) -> Version:
    """Return the version a client asks for; refuse one that is too new or too old, in Docker's words."""
    major, _, rest = asked.partition(".")
    minor = rest.partition(".")[0]
    version = int(major[:MAX_DIGITS]), int(minor[:MAX_DIGITS] or 0)
    newest, oldest = ("{}.{}".format(*known) for known in (API_VERSION, MIN_API_VERSION))
    if version > API_VERSION:
        raise InvalidArgument(
            f"client version {asked} is too new. Maximum supported API version is {newest}"
        )
    if version < MIN_API_VERSION:
        raise InvalidArgument(
            f"client version {asked} is too old. Minimum supported API version is {oldest},"
            " please upgrade your client to a newer version"
        )
    return version


def refuse_browsers(exchange: Exchange) -> None:
    """Refuse what a web page may have sent: an engine's API is root on its machine.

    Browsers name the page in Origin; and a page whose own name was made to resolve to this machine (DNS
    rebinding) shows by its Host. Libraries for WebSocket name the engine itself in Origin, as no page does.
    """
    host = exchange.header(b"host") or ""
    origin = exchange.header(b"origin")
    if origin is not None and not (is_own_host(host) and origin.partition("://")[2] == host):
        raise Forbidden("requests of web pages are refused")
    if exchange.header(b"sec-fetch-site") is not None:
        raise Forbidden("requests of web pages are refused")
    if not exchange.local and not is_own_host(host):
        raise Forbidden(
            "requests to this host name are refused: use an address, localhost or the machine's name"
        )


def is_own_host(host: str) -> bool:
    """Say whether a Host header names this machine in a way that nobody else can make up."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    name = name.lower().removesuffix(".")
    own = platform.node().lower()
    if name in (*LOCAL_HOSTS, own, own.partition(".")[0]) or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
