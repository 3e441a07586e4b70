"""JSON between berth's own processes, by the compiled halves of the standard library's module alone.

Every fork of the zygote copies each page that Python code or objects of its own have written to, their
reference counts included, and `json.dumps` is a good hundred pages.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False


class _Context:
    """How `json.JSONDecoder` reads by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _refuse(document: object) -> object:
    raise TypeError(f"{type(document).__name__} is not JSON")


_scan = make_scanner(_Context)  # type: ignore[arg-type]  # any object with these attributes
_encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)


def encode(document: object) -> bytes:
    """Return ``document`` as JSON."""
    return "".join(_encode(document, 0)).encode()


if TYPE_CHECKING:
    from json import loads

    decode = loads
else:

    def decode(data: bytes) -> object:
        """Return the document in ``data``, which a process of berth's wrote. ValueError for anything else."""
        text = data.decode()
        try:
            document, end = _scan(text, 0)
        except (
            StopIteration,
            SystemError,
        ) as error:  # the latter where json.decoder is not imported
            raise ValueError("no JSON") from error
        if end != len(text):
            raise ValueError("more than one JSON document")
        return document
