"""What is bound into a container in a user namespace, which may not look everywhere that root does."""

from __future__ import annotations

import os

from berth.bundle import mounting
from berth.kernel import namespaces, sockets
from berth.runtime import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.plan import Plan


def open_all(plan: Plan, pid: int) -> list[int]:
    """Open it from within the mount namespace of a process: in another one nothing can be made of it."""
    ours, theirs = sockets.pair()
    try:
        forks.in_child(lambda: _send_sources(plan, pid, theirs))
        _, fds = sockets.receive(ours)
    finally:
        ours.close()
        theirs.close()
    return fds


def _send_sources(plan: Plan, pid: int, sock: sockets.Socket) -> None:
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWNS)
    os.chdir(plan.bundle)
    found = [entry for entry in plan.entries if entry.is_bind and not entry.is_mapped]
    for entry in found:
        mounting.open_source(entry)
    sockets.send(sock, b"{}", [entry.source for entry in found])
