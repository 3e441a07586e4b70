"""What the kernel knows of the other end of a connection."""

from __future__ import annotations

import fcntl
import select
import sys
import termios


def hung_up(fd: int) -> bool:
    """Say whether both directions of a socket are closed (poll(2), POLLHUP)."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def unread_bytes(fd: int) -> int:
    """Return how much of what was sent the other side has not read yet (unix(7), SIOCOUTQ)."""
    answer = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)
