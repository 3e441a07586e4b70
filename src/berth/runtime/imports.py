"""Modules that few monitors need: imported when they do, from the host, which is out of sight otherwise."""

from __future__ import annotations

import os
import sys

from berth.kernel import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

_host_mounts_fd = -1


def remember(host_mounts_fd: int) -> None:
    """Note where the host's mount namespace is; forks inherit it."""
    global _host_mounts_fd
    _host_mounts_fd = host_mounts_fd


def from_host(name: str) -> ModuleType:
    """Import a module, with a look into the host's mount namespace."""
    if name in sys.modules:
        return sys.modules[name]
    folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
    mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(_host_mounts_fd, namespaces.CLONE_NEWNS)
        __import__(name)
    finally:
        namespaces.setns(mounts, namespaces.CLONE_NEWNS)
        os.fchdir(folder)
        os.close(mounts)
        os.close(folder)
    return sys.modules[name]
