"""A request taken apart: the parameters of its path and query, read as leniently as Docker reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs

import msgspec

from berth.api.exchange import JSON, MULTIPLEXED_STREAM, RAW_STREAM
from berth.engine.decoding import decode
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.api.exchange import Exchange

Model = TypeVar("Model")
Value = TypeVar("Value")
Version = tuple[int, int]

FALSE = ("", "0", "no", "false", "none")
MULTIPLEXED_SINCE: Version = (1, 42)
DETACH_KEYS = "ctrl-p,ctrl-q"
CONTROL_KEYS = "abcdefghijklmnopqrstuvwxyz@[\\]^_"
NANOSECONDS = 1_000_000_000

_decode_filters = msgspec.json.Decoder(dict[str, list[str] | dict[str, bool] | None]).decode


class Call:
    """One request. ``names`` are what the path's parameters stood for; ``version`` is the client's API."""

    __slots__ = ("_query", "exchange", "name", "names", "version")

    def __init__(
        self, exchange: Exchange, query: str, names: tuple[str, ...], version: Version
    ) -> None:
        self.exchange = exchange
        self.names = names
        self.name = names[0] if names else ""
        self.version = version
        self._query = parse_qs(query, keep_blank_values=True) if query else {}

    def text(self, key: str, default: str = "") -> str:
        """Return a parameter, the first of several."""
        return self._query.get(key, (default,))[0]

    def texts(self, key: str) -> list[str]:
        """Return every value of a parameter."""
        return self._query.get(key, [])

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean: true unless empty, 0, no, false or none."""
        values = self._query.get(key)
        return default if values is None else values[0].strip().lower() not in FALSE

    def integer(self, key: str) -> int | None:
        """Return a number, None when it is missing or empty."""
        text = self.text(key)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise InvalidArgument(
                f'invalid value for {key}: strconv.Atoi: parsing "{text}": invalid syntax'
            ) from None

    def document(self, key: str, type_: type[Value], default: Value, *, called: str = "") -> Value:
        """Return a parameter that is a JSON document; null and nothing are the default."""
        text = self.text(key)
        if text in ("", "null"):
            return default
        try:
            return msgspec.json.decode(text, type=type_)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise InvalidArgument(f"error reading {called or key}: {error}") from None

    def size(self) -> tuple[int, int]:
        """Return the rows and columns of a terminal."""
        rows, columns = self.integer("h"), self.integer("w")
        if rows is None or columns is None:
            raise InvalidArgument('invalid terminal size: both "h" and "w" are needed')
        return rows, columns

    def time_ns(self, key: str) -> int | None:
        """Return a Unix time ("1700000000", "1700000000.5") in nanoseconds; None when missing or 0."""
        text = self.text(key) or "0"
        seconds, _, fraction = text.partition(".")
        whole = seconds.removeprefix("-")
        if not (whole.isdecimal() and (fraction.isdecimal() or not fraction)):
            raise InvalidArgument(f'invalid value for {key}: "{text}" is not a Unix time')
        return int(seconds) * NANOSECONDS + int((fraction + "0" * 9)[:9]) or None

    def filters(self) -> dict[str, list[str]]:
        """Return the filters, the older form {"name": {"value": true}} as well."""
        text = self.text("filters")
        if not text:
            return {}
        try:
            found = _decode_filters(text) or {}
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"invalid filter: {error}") from error
        return {
            key: [v for v in values or () if not isinstance(values, dict) or values[v]]
            for key, values in found.items()
        }

    def stream_type(self, *, terminal: bool) -> str:
        """Return the content type of a container's output: multiplexed unless it has a terminal."""
        multiplexed = not terminal and self.version >= MULTIPLEXED_SINCE
        return MULTIPLEXED_STREAM if multiplexed else RAW_STREAM

    async def decode(self, type_: type[Model], *, required: bool = False) -> Model:
        """Return the JSON body as ``type_``; without ``required`` no body is an empty one."""
        data = await self.exchange.body()
        content_type = self.exchange.header(b"content-type")
        if data.strip() or content_type is not None:
            check_json(content_type or "")
        if required and not data.strip():
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return decode(data if data.strip() else b"{}", type_)


def check_json(content_type: str) -> None:
    """Refuse a body that is not said to be JSON, in Docker's words."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        raise InvalidArgument("malformed Content-Type header (): mime: no media type")
    if kind != JSON:
        raise InvalidArgument(f"unsupported Content-Type header ({content_type}): must be '{JSON}'")


def detach_keys(text: str) -> bytes:
    """Return the bytes of a sequence such as "ctrl-p,ctrl-q"; empty means that one."""
    found = bytearray()
    for key in (text or DETACH_KEYS).split(","):
        control = key.removeprefix("ctrl-")
        if control != key and len(control) == 1 and control.lower() in CONTROL_KEYS:
            found.append(ord(control.upper()) & 0x1F)
        elif len(key) == 1 and key.isascii():
            found.append(ord(key))
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(found)
