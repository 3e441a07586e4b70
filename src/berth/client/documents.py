"""JSON by the interpreter's own C codec, and typed looks into a decoded document.

The public ``json`` module loads ``re`` and costs a third of the CLI's start; its C half is all we need.
"""

from __future__ import annotations

import _json

from berth.errors import Corrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    Document = dict[str, object]


class _Rules:
    """What the C scanner asks of its owner."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012


def _refuse(value: object) -> object:
    raise TypeError(f"cannot put {type(value).__name__} into JSON")


_scan = _json.make_scanner(_Rules)  # type: ignore[arg-type]  # any object with these attributes
_make = _json.make_encoder(
    None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, True
)
_make_readable = _json.make_encoder(
    None, _refuse, _json.encode_basestring, None, ":", ",", False, False, True
)


def encode(value: object) -> bytes:
    """Return the value as compact ASCII JSON."""
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value).encode()
    return "".join(_make(value, 0)).encode()


def readable(value: object) -> str:
    """Return the value as compact JSON for people: letters beyond ASCII stay as they are."""
    if isinstance(value, str):
        return _json.encode_basestring(value)
    return "".join(_make_readable(value, 0))


def decode(data: bytes) -> object:
    """Return what the JSON text stands for; Corrupt when it is none."""
    text = data.decode("utf-8", "replace").strip()
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError, ValueError) as error:  # SystemError: without json.decoder
        raise Corrupt(f"read JSON: malformed near {text[:40]!r}") from error
    if end != len(text):
        raise Corrupt(f"read JSON: more follows the document at {end}")
    result: object = value
    return result


def mapping(value: object) -> Document:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def field(document: object, *path: str) -> object:
    """Follow keys inwards; None where one is missing."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text(document: object, *path: str) -> str:
    """Return the string at the path, or an empty one."""
    value = field(document, *path)
    return value if isinstance(value, str) else ""


def number(document: object, *path: str) -> int:
    """Return the whole number at the path, or 0."""
    value = field(document, *path)
    return int(value) if isinstance(value, int | float) else 0


def items(document: object, *path: str) -> list[object]:
    """Return the list at the path, or an empty one."""
    value = field(document, *path)
    return value if isinstance(value, list) else []


def strings(document: object, *path: str) -> list[str]:
    """Return the strings of the list at the path."""
    return [value for value in items(document, *path) if isinstance(value, str)]
