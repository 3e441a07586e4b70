"""One engine of a name at a time on a host's network.

Names of what an engine makes on the host (`berth.engine.instance`) follow from the path of its data root.
Another one with the same path, in a mount namespace or container of its own, would take all that for its
own, and end the first one's containers. The address of a netlink socket is one process's in all of a network
namespace, and goes with it; nobody talks to the engine by it, as by an abstract socket.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import Conflict
from berth.kernel.netlink import NETLINK_ROUTE
from berth.oci.digest import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from berth.engine.instance import Instance

log = logging.getLogger("berth")

SHORTEST = 6  # characters of an engine's name in the names of network interfaces
TRIES = 2  # it may just have become free
_OURS = 0x62 << 24  # the kernel itself chooses ids of processes, then negative numbers
_HOSTS_PIDS = 0xEFFFFFFC  # the inode of the pid namespace in which one sees all processes
_ID_CHARACTERS = 64


def address(instance: Instance) -> int:
    """Return the address that an engine has."""
    return _OURS | int.from_bytes(sha256(instance.name[:SHORTEST].encode())[:3])


def hold(instance: Instance, data_root: Path) -> socket.socket:
    """Keep others from these names until the socket is closed; Conflict when another engine has them."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
    try:
        for _ in range(TRIES):
            try:
                sock.bind((address(instance), 0))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return sock
            if _is_of_an_engine(address(instance), data_root):
                raise Conflict(
                    f"another engine on this host's network makes what it needs there by the same"
                    f" names: its data root is called {data_root}, too",
                    hint="choose another --data-root and --exec-root",
                )
    except BaseException:
        sock.close()
        raise
    log.warning(
        "no engine has the netlink address %s, by which it would know others", address(instance)
    )
    return sock


def _is_of_an_engine(number: int, data_root: Path) -> bool:
    """Say whether who has an address may be an engine: anybody can take it.

    A container of this engine is not heeded: root in one with the host's network could keep the engine from
    starting again. Nor is a socket that no process has, if it is in no pid namespace unseen from here.
    """
    inode = _inode(number)
    if not inode:
        return False
    holders = list(_holders(f"socket:[{inode}]"))
    if not holders:
        return os.geteuid() == 0 and Path("/proc/self/ns/pid").stat().st_ino != _HOSTS_PIDS
    return any(_may_be_an_engine(pid, data_root) for pid in holders)


def _inode(number: int) -> str:
    """Return the inode of the socket with an address, if there is one."""
    for line in Path("/proc/net/netlink").read_text().splitlines()[1:]:
        words = line.split()
        if words[1:3] == [str(NETLINK_ROUTE), str(number)]:
            return words[-1]
    return ""


def _holders(name: str) -> Iterator[int]:
    """Return who has what proc(5) calls so open."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and name in _descriptors(process / "fd"):
            yield int(process.name)


def _descriptors(folder: Path) -> Iterator[str]:
    with suppress(OSError):  # it has ended, or is somebody else's
        for fd in folder.iterdir():
            with suppress(OSError):  # it was closed
                yield str(fd.readlink())


def _may_be_an_engine(pid: int, data_root: Path) -> bool:
    """Say whether a process is this user's, and in no container of this data root's."""
    process = Path(f"/proc/{pid}")
    try:
        lines = (process / "cgroup").read_text().splitlines()
        if process.stat().st_uid != os.geteuid():
            return False
    except OSError:  # it has ended
        return False
    names = {name for line in lines for name in line.split("/") if len(name) == _ID_CHARACTERS}
    return not any((data_root / "containers" / name).is_dir() for name in names)
