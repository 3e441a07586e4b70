"""The routes of the Engine API: parameters in, documents out."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from berth.api.protocol import (
    API_VERSION,
    MIN_API_VERSION,
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Exchange,
)
from berth.engine import status
from berth.engine.models import CreateRequest, ExecConfig, ExecStart, HostConfig
from berth.errors import Forbidden, InvalidArgument
from berth.images.service import ImageUser
from berth.logs.entries import LogQuery
from berth.runtime.requests import Attachment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from berth.engine.engine import Engine

VERSION = re.compile(r"^/v(\d+)\.(\d+)(/.*)$")
Model = TypeVar("Model")

FALSE = ("", "0", "no", "false", "none")


class Call:
    """One request, taken apart."""

    def __init__(self, exchange: Exchange, query: dict[str, list[str]], name: str) -> None:
        self.exchange = exchange
        self.query = query
        self.name = name  # what the path's {} stood for

    def text(self, key: str, default: str = "") -> str:
        """Return a query parameter."""
        return self.query.get(key, [default])[0]

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean parameter, as Docker reads them."""
        values = self.query.get(key)
        return default if values is None else values[0].strip().lower() not in FALSE

    def integer(self, key: str) -> int | None:
        """Return a number."""
        text = self.text(key)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None

    def time_ns(self, key: str) -> int | None:
        """Return a Unix time with a fraction ("1700000000.5") in nanoseconds, None for 0."""
        seconds, _, fraction = self.text(key, "0").partition(".")
        if not (seconds + fraction).isdigit():
            raise InvalidArgument(f"invalid value for {key!r}: {self.text(key)!r} is no time")
        return int(seconds) * 1_000_000_000 + int((fraction + "0" * 9)[:9]) or None

    def filters(self) -> dict[str, list[str]]:
        """Return the filters, the older form {"name": {"x": true}} as well."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            found = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"invalid filter: {error}") from error
        return {key: list(values) for key, values in found.items()}

    async def decode(self, type_: type[Model]) -> Model:
        """Decode the body."""
        data = await self.exchange.body()
        try:
            return msgspec.json.decode(data or b"{}", type=type_)
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from error


class Router:
    """Finds the handler of a request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Call], Awaitable[None]]]] = []
        for line, handler in self._table():
            method, path = line.split(" ")
            pattern = re.compile("^" + path.replace("{}", "(.+?)") + "$")
            self._routes.append((method, pattern, handler))

    def _table(self) -> list[tuple[str, Callable[[Call], Awaitable[None]]]]:
        return [
            ("GET /_ping", self._ping),
            ("HEAD /_ping", self._ping),
            ("GET /version", self._version),
            ("GET /info", self._info),
            ("GET /events", self._events),
            ("POST /containers/create", self._create),
            ("GET /containers/json", self._list),
            ("GET /containers/{}/json", self._inspect),
            ("GET /containers/{}/logs", self._logs),
            ("GET /containers/{}/top", self._top),
            ("POST /containers/{}/start", self._start),
            ("POST /containers/{}/stop", self._stop),
            ("POST /containers/{}/restart", self._restart),
            ("POST /containers/{}/kill", self._kill),
            ("POST /containers/{}/pause", self._pause),
            ("POST /containers/{}/unpause", self._unpause),
            ("POST /containers/{}/rename", self._rename),
            ("POST /containers/{}/attach", self._attach),
            ("POST /containers/{}/wait", self._wait),
            ("POST /containers/{}/resize", self._resize),
            ("DELETE /containers/{}", self._remove),
            ("POST /containers/{}/exec", self._exec_create),
            ("POST /exec/{}/start", self._exec_start),
            ("POST /exec/{}/resize", self._exec_resize),
            ("GET /exec/{}/json", self._exec_inspect),
            ("GET /images/json", self._image_list),
            ("POST /images/create", self._image_create),
            ("POST /images/load", self._image_load),
            ("GET /images/{}/json", self._image_inspect),
            ("POST /images/{}/tag", self._image_tag),
            ("DELETE /images/{}", self._image_remove),
        ]

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        if "origin" in exchange.headers:
            raise Forbidden("requests from web pages are refused")
        parts = urlsplit(exchange.target)
        path = parts.path
        if match := VERSION.match(path):
            check_version(int(match[1]), int(match[2]))
            path = match[3]
        for method, pattern, handler in self._routes:
            if method == exchange.method and (found := pattern.match(path)):
                query = parse_qs(parts.query, keep_blank_values=True)
                name = unquote(found[1]) if pattern.groups else ""
                await handler(Call(exchange, query, name))
                return
        await exchange.respond(404, {"message": "page not found"})

    # System

    async def _ping(self, call: Call) -> None:
        await call.exchange.respond_bytes(200, b"OK", "text/plain; charset=utf-8")

    async def _version(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.version())

    async def _info(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.info())

    async def _events(self, call: Call) -> None:
        filters = call.filters()
        await call.exchange.begin()
        async for event in self._engine.events_stream(
            call.text("since"), call.text("until"), filters
        ):
            await call.exchange.write(msgspec.json.encode(event) + b"\n")
        await call.exchange.end()

    # Containers

    async def _create(self, call: Call) -> None:
        request = await call.decode(CreateRequest)
        host = request.host_config or HostConfig()
        record, warnings = await self._engine.create(
            request, name=call.text("name") or None, host=host
        )
        await call.exchange.respond(201, {"Id": record.id, "Warnings": warnings})

    async def _list(self, call: Call) -> None:
        limit = call.integer("limit")
        found = self._engine.summaries(all_=call.flag("all"), limit=limit, filters=call.filters())
        await call.exchange.respond(200, found)

    async def _inspect(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.inspect(call.name))

    async def _top(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.top(call.name))

    async def _logs(self, call: Call) -> None:
        tail = call.text("tail", "all")
        query = LogQuery(
            stdout=call.flag("stdout"),
            stderr=call.flag("stderr"),
            follow=call.flag("follow"),
            timestamps=call.flag("timestamps"),
            tail=int(tail) if tail.isdigit() else None,
            since_ns=call.time_ns("since"),
            until_ns=call.time_ns("until"),
        )
        if not (query.stdout or query.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        record = self._engine.containers.find(call.name)
        chunks = self._engine.logs(record, query)
        await call.exchange.begin(RAW_STREAM if record.config.tty else MULTIPLEXED_STREAM)
        async for chunk in chunks:
            await call.exchange.write(chunk)
        await call.exchange.end()

    async def _start(self, call: Call) -> None:
        await self._engine.containers.start(call.name)
        await call.exchange.respond(204)

    async def _stop(self, call: Call) -> None:
        signal = call.text("signal") or None
        await self._engine.containers.stop(
            call.name, signal_name=signal, timeout_s=call.integer("t")
        )
        await call.exchange.respond(204)

    async def _restart(self, call: Call) -> None:
        await self._engine.restart(call.name, timeout_s=call.integer("t"))
        await call.exchange.respond(204)

    async def _kill(self, call: Call) -> None:
        self._engine.containers.kill(call.name, signal_name=call.text("signal"))
        await call.exchange.respond(204)

    async def _pause(self, call: Call) -> None:
        self._engine.containers.pause(call.name)
        await call.exchange.respond(204)

    async def _unpause(self, call: Call) -> None:
        self._engine.containers.unpause(call.name)
        await call.exchange.respond(204)

    async def _rename(self, call: Call) -> None:
        self._engine.containers.rename(call.name, call.text("name"))
        await call.exchange.respond(204)

    async def _remove(self, call: Call) -> None:
        await self._engine.containers.remove(call.name, force=call.flag("force"))
        await call.exchange.respond(204)

    async def _attach(self, call: Call) -> None:
        record = self._engine.containers.find(call.name)
        multiplexed = not record.config.tty
        fd, early = await call.exchange.upgrade(multiplexed=multiplexed)
        attachment = Attachment(
            fd=fd,
            stdin=call.flag("stdin") and record.config.open_stdin,
            stdout=call.flag("stdout"),
            stderr=call.flag("stderr"),
            multiplexed=multiplexed,
            detach_keys=detach_keys(call.text("detachKeys")),
            early=early,
        )
        await self._engine.containers.attach(call.name, attachment)

    async def _wait(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        begun: list[asyncio.Task[None]] = []

        def started() -> int:
            begun.append(loop.create_task(call.exchange.begin(close=True)))
            return call.exchange.duplicate()

        condition = call.text("condition", "not-running") or "not-running"
        code = await self._engine.containers.wait(call.name, condition=condition, started=started)
        await begun[0]
        await call.exchange.write(msgspec.json.encode({"StatusCode": code}) + b"\n")
        await call.exchange.end()

    async def _resize(self, call: Call) -> None:
        rows, columns = call.integer("h") or 0, call.integer("w") or 0
        record = self._engine.containers.find(call.name)
        await self._engine.containers.task(record).resize(rows=rows, columns=columns)
        await call.exchange.respond(200)

    # Execs

    async def _exec_create(self, call: Call) -> None:
        config = await call.decode(ExecConfig)
        await call.exchange.respond(201, {"Id": self._engine.execs.create(call.name, config)})

    async def _exec_start(self, call: Call) -> None:
        options = await call.decode(ExecStart)
        record = self._engine.execs.find(call.name)
        if options.detach:
            await self._engine.execs.start(record, options, None)
            await call.exchange.respond(200)
            return
        self._engine.execs.require_startable(record)
        multiplexed = not record.config.tty
        fd, early = await call.exchange.upgrade(multiplexed=multiplexed)
        attachment = Attachment(
            fd=fd,
            stdin=record.config.attach_stdin,
            stdout=record.config.attach_stdout,
            stderr=record.config.attach_stderr,
            multiplexed=multiplexed,
            detach_keys=detach_keys(record.config.detach_keys),
            early=early,
        )
        await self._engine.execs.start(record, options, attachment)

    async def _exec_resize(self, call: Call) -> None:
        task = self._engine.execs.task(call.name)
        await task.resize(rows=call.integer("h") or 0, columns=call.integer("w") or 0)
        await call.exchange.respond(200)

    async def _exec_inspect(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.execs.inspect(call.name))

    # Images

    async def _image_list(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.image_list())

    async def _image_inspect(self, call: Call) -> None:
        await call.exchange.respond(200, self._engine.image_inspect(call.name))

    async def _image_create(self, call: Call) -> None:
        if call.text("fromSrc") != "-":
            wanted = call.text("fromImage") + (f":{tag}" if (tag := call.text("tag")) else "")
            raise InvalidArgument(
                f"pull {wanted}: this engine has no registry client yet; use load or import"
            )
        reference = call.text("repo") + (f":{tag}" if (tag := call.text("tag")) else "")
        image = await self._engine.images.import_rootfs(
            call.exchange.body_stream(),
            reference=reference or None,
            message=call.text("message"),
            changes=call.query.get("changes", []),
            platform=call.text("platform") or None,
        )
        await call.exchange.begin()
        await call.exchange.write(msgspec.json.encode({"status": image.id}) + b"\n")
        await call.exchange.end()

    async def _image_load(self, call: Call) -> None:
        loaded = await self._engine.images.load(call.exchange.body_stream())
        await call.exchange.begin()
        for line in loaded:
            await call.exchange.write(msgspec.json.encode({"stream": line + "\n"}) + b"\n")
        await call.exchange.end()

    async def _image_tag(self, call: Call) -> None:
        tag = call.text("tag")
        self._engine.images.tag(call.name, call.text("repo") + (f":{tag}" if tag else ""))
        await call.exchange.respond(201)

    async def _image_remove(self, call: Call) -> None:
        users = [
            ImageUser(container_id=r.id, image_id=r.image_id, running=r.status in status.ALIVE)
            for r in self._engine.containers.all()
        ]
        removed = await self._engine.images.remove(call.name, force=call.flag("force"), users=users)
        await call.exchange.respond(200, removed)


def check_version(major: int, minor: int) -> None:
    """Refuse clients that are too new or too old, in Docker's words."""
    asked = (major, minor)
    newest = tuple(int(part) for part in API_VERSION.split("."))
    oldest = tuple(int(part) for part in MIN_API_VERSION.split("."))
    if asked > newest:
        raise InvalidArgument(
            f"client version {major}.{minor} is too new. Maximum supported API version is {API_VERSION}"
        )
    if asked < oldest:
        raise InvalidArgument(
            f"client version {major}.{minor} is too old. Minimum supported API version is {MIN_API_VERSION},"
            " please upgrade your client to a newer version"
        )


def detach_keys(text: str) -> bytes:
    """Return the bytes of a sequence such as "ctrl-p,ctrl-q"; empty means that one."""
    found = bytearray()
    for key in (text or "ctrl-p,ctrl-q").split(","):
        if key.startswith("ctrl-") and len(key) == 6:
            found.append(ord(key[5].upper()) & 0x1F)
        elif len(key) == 1:
            found.append(ord(key))
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(found)
