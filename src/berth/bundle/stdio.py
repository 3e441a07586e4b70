"""A process's streams: inherited from the caller, or a terminal that is sent to who asked for it."""

from __future__ import annotations

import os
import stat

from berth.kernel import processes, sockets
from berth.runtime import pty
from berth.runtime.payload import NULL_DEVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from berth.bundle.plan import Plan
    from berth.oci.runtime_spec import Process


def open_terminal(plan: Plan, sync: sockets.Socket) -> int:
    """Open a terminal inside the root, make it stdio, send its other end away; return the slave."""
    return open_pair(plan.process, plan.console, sync)


def open_pair(process: Process, console: _socket.socket | None, sync: sockets.Socket) -> int:
    """Do so with the terminal going to ``console``, or to the maker."""
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


def reopen_null() -> None:
    """Have streams that are the host's /dev/null be the container's, as runc does: criu finds no others."""
    wanted = [number for number in (0, 1, 2) if _is_null(number)]
    if not wanted:
        return
    try:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # there is none, or it may not be opened: then it stays the host's
        return
    for number in wanted if _is_null(fd) else ():
        os.dup2(fd, number)
    os.close(fd)


def _is_null(fd: int) -> bool:
    try:
        status = os.fstat(fd)
    except OSError:  # closed by the caller
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE


def close_all_but(keep: list[int]) -> None:
    """Close every descriptor from 3 on but ``keep`` and those that are preserved."""
    wanted = sorted({*keep, *_preserved})
    first = 3
    for fd in wanted:
        if fd > first:
            processes.close_between(first, fd - 1)
        first = fd + 1
    processes.close_from(first)


_preserved: set[int] = set()


def preserve(count: int) -> None:
    """Keep descriptors 3 to 2 + ``count`` for the program; all others end with any program that is run."""
    processes.cloexec_from(3)
    for fd in range(3, 3 + count):
        os.fstat(fd)
        _preserved.add(fd)
