"""A process's terminal: opened inside the root, its other end sent to who asked for it."""

from __future__ import annotations

import os

from berth.kernel import sockets
from berth.runtime import pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from berth.oci.runtime_spec import Process


def open_pair(process: Process, console: _socket.socket | None, sync: sockets.Socket) -> int:
    """Make a terminal stdio, and return it; its other end goes to ``console``, or to the maker."""
    master, slave = pty.open_pair("/dev/pts")
    size = process.get("consoleSize")
    if size and (size.get("height") or size.get("width")):
        pty.set_size(master, size.get("height", 0), size.get("width", 0))
    if console is not None:
        sockets.send_packet(console, b"/dev/ptmx", [master])
        console.close()
    else:
        sockets.send(sync, b'{"terminal": true}', [master])
    os.close(master)
    pty.make_controlling(slave)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    return slave
