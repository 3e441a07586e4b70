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


class Host:
    """The host's mount namespace, to be in for a while."""

    __slots__ = ("_folder", "_host_mounts_fd", "_mounts")

    def __init__(self, host_mounts_fd: int) -> None:
        self._host_mounts_fd = host_mounts_fd

    def __enter__(self) -> None:
        self._folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
        self._mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(self._host_mounts_fd, namespaces.CLONE_NEWNS)

    def __exit__(self, *_error: object) -> None:
        namespaces.setns(self._mounts, namespaces.CLONE_NEWNS)
        os.fchdir(self._folder)
        os.close(self._mounts)
        os.close(self._folder)


def from_host(name: str) -> ModuleType:
    """Import a module, with a look into the host's mount namespace."""
    if name not in sys.modules:
        with Host(_host_mounts_fd):
            __import__(name)
    return sys.modules[name]
