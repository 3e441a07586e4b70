"""A monitor's life, and its process's file systems, played in the zygote before the first fork.

The interpreter specialises code, fills its method cache, and numbers types and dictionaries while it runs:
writes that each fork would do again, in copies of its own of the pages. A rehearsed one is born with them.
"""

from __future__ import annotations

import _signal
import _socket
import os

from berth.kernel import mounts, namespaces, sockets
from berth.runtime import codec, init, launch, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ROUNDS = 12  # CPython 3.11 specialises a function after eight calls
NAME = "rehearsal"
LINE = b"to whom it may concern\n"


def rehearse(exec_root: str, here: launch.Here) -> None:
    """Play it in a directory of its own below ``exec_root``, with a process that writes a line and ends."""
    directory = f"{exec_root}/{NAME}"
    os.makedirs(directory, exist_ok=True)
    for name in os.listdir(directory):  # of one that was killed
        os.unlink(f"{directory}/{name}")
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    try:
        for _ in range(ROUNDS):
            _play(directory, here)
            _play_mounts(directory, here)
        os.unlink(f"{directory}/log")
        os.rmdir(directory)
    finally:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)


def _play(directory: str, here: launch.Here) -> None:
    berthd, control = sockets.pair()
    client, attached = _socket.socketpair()
    pidfd = os.pidfd_open(os.getpid())
    request = launch.Request(_document(directory), [pidfd])
    zygote_fd = os.dup(here.null_fd)
    played = launch.plan(request, control, zygote_fd, here)
    if played is None:
        os.close(zygote_fd)
        raise OSError(sockets.receive(berthd)[0].decode())
    played.birth.run_child = _act
    sockets.send(berthd, _handover(), [attached.fileno(), os.dup(here.null_fd)])
    sockets.send(berthd, codec.encode({"op": "settle"}))
    played.begin()
    played.hand_over()
    served = played.complete()
    served.run()
    served.finish()
    client.close()
    served.release()
    played.forget()


def _play_mounts(directory: str, here: launch.Here) -> None:
    """Mount what a container gets over a tmpfs, in a mount namespace that ends with that."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    _, theirs = sockets.pair()
    namespaces.unshare(namespaces.CLONE_NEWNS)
    try:
        mounts.mount("tmpfs", directory, "tmpfs")
        group = here.hierarchies.open_group(NAME)
        child = init.Child(theirs, group, init.MOUNT_STEPS, _plan(directory, here))
        child.controllers = here.controllers
        child.read_plan()
        child.trees = [rootfs.Tree(mounts.open_tree("/proc"), "/volume", True, "rprivate")]
        for action in child.steps:
            action(child)
    finally:
        namespaces.setns(own, namespaces.CLONE_NEWNS)
        os.close(own)


def _act(child: init.Child) -> NoReturn:
    os.write(child.stdio[1], LINE)
    os._exit(0)


def _plan(directory: str, here: launch.Here) -> bytes:
    return codec.encode(
        {
            "spec": here.default_spec,
            "process": {},
            "rootfs": {"base": "/", "path": directory},
            "netns": False,
            "clone_flags": 0,
            "user": "",
            "groups": [],
            "size": [0, 0],
            "seccomp": None,
            "init": False,
            "default_mounts": True,
        }
    )


def _handover() -> bytes:
    client = {"stdin": False, "stdout": True, "stderr": True, "multiplexed": True}
    attachments = [{**client, "detach_keys": "", "early": ""}]
    words = {"netns": False, "trees": [], "attachments": attachments, "orphans": 1, "log": None}
    return codec.encode(words)


def _document(directory: str) -> bytes:
    return codec.encode(
        {
            "op": "exec",
            "directory": directory,
            "cgroups_path": NAME,  # of no group
            "flags": 0,
            "remapped": False,
            "shows_network": False,
            "default_namespaces": False,
            "pid_namespace": None,
            "terminal": False,
            "stdin": False,
            "stdin_once": False,
            "log": {
                "driver": "json-file",
                "path": f"{directory}/log",
                "max_size": None,
                "max_files": 1,
                "compress": False,
                "attributes": "",
                "max_buffer": 0,
            },
        }
    )
