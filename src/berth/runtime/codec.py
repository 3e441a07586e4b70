"""JSON between berth's own processes, by the compiled halves of the standard library's module alone.

Every fork of the zygote copies each page that Python code or objects of its own have written to, their
reference counts included, and `json.dumps` is a good hundred pages.
"""

from __future__ import annotations

from json import encoder
from json.decoder import JSONDecoder

TYPE_CHECKING = False


def _refuse(document: object) -> object:
    raise TypeError(f"{type(document).__name__} is not JSON")


_encode = encoder.c_make_encoder(  # type: ignore[attr-defined]  # typeshed leaves it out
    None, _refuse, encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True
)
_scan = JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed leaves it out


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
        except StopIteration as error:
            raise ValueError("no JSON") from error
        if end != len(text):
            raise ValueError("more than one JSON document")
        return document
