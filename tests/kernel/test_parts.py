"""A part of a mount is had where others may write: they have no say in what is mounted and unmounted."""

from __future__ import annotations

import errno
import os
import socket

from berth.kernel import mounts, namespaces
from berth.runtime import rootfs
from support.forks import in_child

SECRET, HIDDEN, ELSEWHERE = "secret", "hidden", "/mnt/covered"


def prepared() -> int:
    """Have a /dev that others write to and a place that is covered; return a mount with a file in it."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", flags=mounts.MS_REC | mounts.MS_PRIVATE)
    for path in ("/dev", "/mnt"):
        mounts.mount("tmpfs", path, "tmpfs")
    os.mkdir(ELSEWHERE)
    with open(f"{ELSEWHERE}/{HIDDEN}", "w") as file:
        file.write("the host's")
    mounts.mount("tmpfs", ELSEWHERE, "tmpfs")
    tree = mounts.make_mount("tmpfs", [], read_only=False)
    os.close(os.open(SECRET, os.O_CREAT | os.O_WRONLY, 0o400, dir_fd=tree))
    return tree


def test_it_is_had_and_nothing_is_left():
    def had() -> tuple[bool, list[str], str]:
        part = rootfs._part_of(prepared(), SECRET)
        return os.fstat(part).st_mode & 0o777 == 0o400, os.listdir("/dev"), os.getcwd()

    assert in_child(had) == (True, [], "/")


def swap_when_told(told: int) -> None:
    """Put a link in the place, as another container does that has the same /dev."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    os.write(told, b"ready")
    os.read(told, 1)
    os.rename(rootfs.PART, f"{rootfs.PART}.gone")
    os.symlink(ELSEWHERE, rootfs.PART)


def test_a_link_that_takes_its_place_leads_nowhere(monkeypatch):
    def swapped() -> tuple[list[str], int | None]:
        tree, open_in_root = prepared(), mounts.open_in_root
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            swap_when_told(theirs.fileno())
            os._exit(0)
        ours.recv(5)

        def swap(*arguments: object) -> int:
            ours.send(b"!")
            os.waitpid(pid, 0)
            return open_in_root(*arguments)

        monkeypatch.setattr(rootfs.mounts, "open_in_root", swap)
        try:
            os.close(rootfs._part_of(tree, SECRET))
            code = None
        except OSError as error:
            code = error.errno
        return os.listdir(ELSEWHERE), code

    assert in_child(swapped) == ([], errno.ENOTDIR)
