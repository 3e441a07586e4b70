"""Terminals: pairs from the container's own devpts, the controlling terminal, /dev/console."""

from __future__ import annotations

import fcntl
import os
import struct

from berth.kernel import mounts
from berth.runtime import places

TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCSWINSZ = 0x5414
TIOCSCTTY = 0x540E


def open_pair(devpts: str) -> tuple[int, int]:
    """Open a new pseudoterminal of the devpts mounted at ``devpts``: (master, slave)."""
    master = os.open(f"{devpts}/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, b"\0" * 4))[0]
    slave = os.open(f"{devpts}/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def set_size(master: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(master, TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def make_controlling(slave: int) -> None:
    """Make it the controlling terminal of the calling session leader."""
    fcntl.ioctl(slave, TIOCSCTTY, 0)


def bind_console(slave: int) -> None:
    """Show the terminal as /dev/console; by descriptors, for /dev may be a volume that others write to."""
    tree = mounts.open_tree("", dir_fd=slave, recursive=False)
    place = places.open_place("/dev/console", directory=False, clear=False)
    mounts.move_mount(tree, "", dir_fd=place)
    os.close(place)
    os.close(tree)
