"""Docker's multiplexed output: frames of 8 bytes of head (stream, 0, 0, 0, length) and the payload."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN, STDOUT, STDERR = 0, 1, 2
HEAD_BYTES = 8


class Demultiplexer:
    """Takes bytes as they come and gives (stream, payload); keeps only an unfinished head."""

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """Give the payload in ``data``, in order; a long frame comes in several pieces."""
        view = memoryview(data)
        while view:
            if self._left:
                piece = view[: self._left]
                self._left -= len(piece)
                view = view[len(piece) :]
                yield self._stream, piece
                continue
            missing = HEAD_BYTES - len(self._head)
            self._head += bytes(view[:missing])
            view = view[missing:]
            if len(self._head) == HEAD_BYTES:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:], "big")
                self._head = b""
