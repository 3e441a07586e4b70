"""One engine of a name at a time on a host's network.

Names of what an engine makes on the host (`berth.engine.instance`) follow from the path of its data root.
Another one with the same path, in a mount namespace or container of its own, would take all that for its
own, and end the first one's containers. An abstract socket is known in all of a network namespace, and
goes with its process.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import Conflict

if TYPE_CHECKING:
    from berth.engine.instance import Instance

log = logging.getLogger("berth")

SHORTEST = 6  # characters of an engine's name in the names of network interfaces
MOST_ASK = 4096  # nobody answers them: beyond that the next one is not kept from starting
TRIES = 2  # it may just have become free
_CREDENTIALS = struct.Struct("3i")
_LISTENS = 0x10000
_ID_CHARACTERS = 64


def hold(instance: Instance, data_root: Path) -> socket.socket:
    """Keep others from these names until the socket is closed; Conflict when another engine has them."""
    address = f"berth/{instance.name[:SHORTEST]}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for _ in range(TRIES):
            if _bind(sock, address):
                return sock
            if _is_of_an_engine(address, data_root):
                raise Conflict(
                    f"another engine on this host's network makes what it needs there by the same"
                    f" names: its data root is called {data_root}, too",
                    hint="choose another --data-root and --exec-root",
                )
    except BaseException:
        sock.close()
        raise
    log.warning("no engine has the socket @%s, by which engines know of each other", address)
    return sock


def _bind(sock: socket.socket, address: str) -> bool:
    try:
        sock.bind(f"\0{address}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    sock.listen(MOST_ASK)
    return True


def _is_of_an_engine(address: str, data_root: Path) -> bool:
    """Say whether who holds an address may be an engine: anybody can bind it, and have it look busy.

    Who listened first must have it still. A container of this engine is not heeded: root in one with the
    host's network could keep the engine from starting again.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(f"\0{address}")
        except OSError:
            return False
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    if uid != os.geteuid():
        return False
    if not pid:  # it is in a pid namespace that this one sees nothing of
        return True
    return _has_open(pid, _listener(address)) and not _is_contained(pid, data_root)


def _listener(address: str) -> str:
    """Return what proc(5) calls the socket that listens there."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        words = line.split()
        if words[-1] == f"@{address}" and int(words[3], 16) & _LISTENS:
            return f"socket:[{words[6]}]"
    return ""


def _has_open(pid: int, name: str) -> bool:
    try:
        return any(Path(fd.path).readlink() == Path(name) for fd in os.scandir(f"/proc/{pid}/fd"))
    except OSError:  # it has ended
        return False


def _is_contained(pid: int, data_root: Path) -> bool:
    """Say whether one of a process's groups is named after a container of ours, as it or a parent is."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return True
    names = {name for line in lines for name in line.split("/") if len(name) == _ID_CHARACTERS}
    return any((data_root / "containers" / name).is_dir() for name in names)
