"""`berth system dial-stdio`: standard input and output as a connection to the engine, for `ssh://`."""

from __future__ import annotations

import _socket
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.cli.commands import Verb

CHUNK_BYTES = 1 << 16


def dial_stdio(call: Call) -> int:
    """Carry bytes until the engine has ended its side; the end of input ends ours."""
    engine = call.engine.open()
    reading = [0, engine.fileno()]
    while True:
        ready, _, _ = select.select(reading, [], [])
        if 0 in ready:
            data = os.read(0, CHUNK_BYTES)
            if data:
                engine.sendall(data)
            else:
                reading.remove(0)
                engine.shutdown(_socket.SHUT_WR)
        if engine.fileno() in ready:
            data = engine.recv(CHUNK_BYTES)
            if not data:
                return 0
            while data:
                data = data[os.write(1, data) :]


VERBS: dict[str, Verb] = {"system dial-stdio": ((), dial_stdio)}
