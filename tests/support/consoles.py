"""The far end of --console-socket: takes a terminal's descriptor and talks on it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class Console:
    """A listening socket, and the terminal that comes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._master = -1

    def _take(self) -> int:
        if self._master < 0:
            connection, _ = self._listener.accept()
            with connection:
                _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
            (self._master,) = fds
        return self._master

    def write(self, data: bytes) -> None:
        """Type."""
        os.write(self._take(), data)

    def read_to_end(self) -> str:
        """Return all that is shown until nobody has the terminal open any more."""
        text = b""
        while True:
            try:
                data = os.read(self._take(), 4096)
            except OSError:
                return text.decode()
            if not data:
                return text.decode()
            text += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if self._master >= 0:
            os.close(self._master)
