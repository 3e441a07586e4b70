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
_CREDENTIALS = struct.Struct("3i")


def hold(instance: Instance, data_root: Path) -> socket.socket:
    """Keep others from these names until the socket is closed; Conflict when another engine has them."""
    address = f"\0berth/{instance.name[:SHORTEST]}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen(MOST_ASK)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        if _is_of_an_engine(address, instance):
            raise Conflict(
                f"another engine on this host's network makes what it needs there by the same names: its"
                f" data root is called {data_root}, too",
                hint="choose another --data-root and --exec-root",
            ) from None
        log.warning(
            "no engine has the socket @%s, by which engines know of each other", address[1:]
        )
    return sock


def _is_of_an_engine(address: str, instance: Instance) -> bool:
    """Say whether who holds an address may be an engine: anybody can bind it, and have it look busy.

    One in a container of this engine is not heeded, or it could keep the engine from starting again.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(address)
        except OSError:
            return False
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return int(uid) == os.geteuid() and not _is_contained(pid, instance)


def _is_contained(pid: int, instance: Instance) -> bool:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:  # it has ended, or is nowhere in this pid namespace
        return False
    return any(line.split(":", 2)[2].startswith(f"/{instance.cgroup}/") for line in lines)
