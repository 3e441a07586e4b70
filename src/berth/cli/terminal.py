"""The person's terminal: raw mode and back, its size, and signals as bytes of a pipe."""

from __future__ import annotations

import _signal
import fcntl
import os
import sys
import termios

from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6  # fields of tcgetattr's list


def require_terminal(fd: int) -> None:
    """Refuse `-it` when stdin is no terminal, in Docker's words."""
    if not os.isatty(fd):
        raise InvalidArgument("the input device is not a TTY")


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal; (0, 0) when it has none."""
    try:
        data = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return 0, 0
    return int.from_bytes(data[0:2], sys.byteorder), int.from_bytes(data[2:4], sys.byteorder)


class RawMode:
    """A terminal whose keys all go to the container, while in the ``with`` (cfmakeraw(3))."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = termios.tcgetattr(fd)

    def __enter__(self) -> RawMode:
        mode = termios.tcgetattr(self._fd)
        mode[IFLAG] &= ~(
            termios.BRKINT
            | termios.ICRNL
            | termios.IGNBRK
            | termios.IGNCR
            | termios.INLCR
            | termios.INPCK
            | termios.ISTRIP
            | termios.IXON
            | termios.PARMRK
        )
        mode[OFLAG] &= ~termios.OPOST
        mode[CFLAG] = mode[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[LFLAG] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG
        )
        mode[CC][termios.VMIN], mode[CC][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor got the number."""


class Signals:
    """Signals that arrive as bytes on ``fd`` instead of ending us, while in the ``with``."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._before: list[tuple[int, object]] = []
        self.fd, self._told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Signals:
        _signal.set_wakeup_fd(self._told)
        for number in self._numbers:
            self._before.append((number, _signal.getsignal(number)))
            _signal.signal(number, _noted)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before:
            if before is None or callable(before) or isinstance(before, int):
                _signal.signal(number, before)
        _signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._told)


PROXIED: tuple[int, ...] = (
    *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1),
    *(_signal.SIGUSR2, _signal.SIGALRM, _signal.SIGCONT, _signal.SIGIO),
)
RESIZED: int = _signal.SIGWINCH
