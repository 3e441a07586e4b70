"""inotify(7): being told of changes in a directory."""

from __future__ import annotations

import os

from berth.kernel.libc import check, libc

IN_MODIFY = 0x002
IN_MOVED_TO = 0x080
IN_CREATE = 0x100

EVENTS_BYTES = 65_536


def watch_directory(path: str, mask: int) -> int:
    """Return a non-blocking descriptor that is readable after an event of ``mask`` in ``path``.

    OSError (EMFILE) when the user has fs.inotify.max_user_instances of them, 128 by default.
    """
    fd = check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        check(libc.inotify_add_watch(fd, os.fsencode(path), mask), "inotify_add_watch", path)
    except OSError:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Take all events that are there, unread: the caller looks at the directory itself."""
    try:
        while len(os.read(fd, EVENTS_BYTES)) > EVENTS_BYTES // 2:
            pass
    except BlockingIOError:
        return
