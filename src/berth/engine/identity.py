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
from typing import TYPE_CHECKING

from berth.errors import Conflict

if TYPE_CHECKING:
    from pathlib import Path

    from berth.engine.instance import Instance

log = logging.getLogger("berth")

SHORTEST = 6  # characters of an engine's name in the names of network interfaces
_CREDENTIALS = struct.Struct("3i")


def hold(instance: Instance, data_root: Path) -> socket.socket:
    """Keep others from these names until the socket is closed; Conflict when another engine has them."""
    address = f"\0berth/{instance.name[:SHORTEST]}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen(1)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        if _is_of_an_engine(address):
            raise Conflict(
                f"another engine on this host's network makes what it needs there by the same names: its"
                f" data root is called {data_root}, too",
                hint="choose another --data-root and --exec-root",
            ) from None
        log.warning(
            "another user has the socket @%s, by which engines know of each other", address[1:]
        )
    return sock


def _is_of_an_engine(address: str) -> bool:
    """Say whether who holds an address may run engines: anybody can bind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(address)
        except BlockingIOError:  # more asked before than it has room for
            return True
        except OSError:
            return False
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(found)
        return int(uid) == os.geteuid()
