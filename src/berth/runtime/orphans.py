"""Clients of /wait that a berthd could leave without an answer, should it be gone at the end."""

from __future__ import annotations

import os

from berth.runtime import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.sockets import Socket


class Orphans:
    """Duplicates of their connections, on which the answer's head was sent already."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Socket]] = []

    def add(self, fd: int, owner: Socket) -> None:
        """Answer on ``fd`` unless the berthd at ``owner``, which does so itself, lives at the end."""
        self._waiting.append((fd, owner))

    def answer(self, exit_code: object, *, settled: bool) -> None:
        """Answer whom no berthd is going to. ``settled``: one took note, maybe a later one."""
        body = codec.encode({"StatusCode": exit_code}) + b"\n"
        data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for fd, owner in self._waiting:
            if not settled or owner.fileno() < 0:
                try:
                    os.write(fd, data)
                except OSError:  # the client is gone
                    pass
            os.close(fd)
        self._waiting.clear()
