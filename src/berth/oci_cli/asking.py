"""`run` by the zygote: the command line is handed over, signals are passed on, the exit code comes back.

This is all of the process that the caller started, and half of its time is Python's start: it imports nothing
else. The picture is in `berth.oci_cli.zygote`.
"""

from __future__ import annotations

import _signal
import _socket
import posix
import sys

from berth import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

ENCODING = ("utf-8", "surrogateescape")
CODE = f"{__version__} {__file__}".encode(*ENCODING)
STREAMS = (0, 1, 2)
CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid
UID = slice(4, 8)
FD_BYTES = 4
MAX_ANSWER_BYTES = 4096
WELCOME, DECLINED, TAKEN, STARTING, EXITED = b"w", b"d", b"t", b"s", b"e"
# Signals that end nobody who does not expect them; a window's new size goes to the terminal.
NOT_PASSED_ON = (_signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG, _signal.SIGTTIN, _signal.SIGTTOU)
PASSED_ON = tuple(
    number
    for number in range(1, _signal.SIGRTMIN)
    if number not in NOT_PASSED_ON
    and number not in (_signal.SIGKILL, _signal.SIGSTOP)
    and number in _signal.valid_signals()
)
READY = b"\0"
EXIT_LOST = 1
PATIENCE_S = 2.0  # for a zygote that somebody has stopped


def run(path: bytes, arguments: Sequence[str]) -> None:
    """Have the zygote at ``path`` run the command line, and end as that does. Returns if it does not."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # it ends this process, without a traceback
    zygote = hand_over(path, arguments)
    if zygote is not None:
        posix._exit(_follow(zygote))


def hand_over(path: bytes, arguments: Sequence[str]) -> _socket.socket | None:
    """Return a connection on which the container's life is told, if the zygote takes the command line."""
    if b"LISTEN_FDS" in posix.environ:
        return None
    zygote = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    zygote.settimeout(PATIENCE_S)
    try:
        zygote.connect(path)
        if not _is_own(zygote) or zygote.recv(MAX_ANSWER_BYTES) != WELCOME:
            return None
        zygote.settimeout(None)
        folder = posix.open(".", posix.O_PATH | posix.O_CLOEXEC)
        fds = b"".join(fd.to_bytes(FD_BYTES, sys.byteorder) for fd in (*STREAMS, folder))
        text = b"\0".join((CODE, *(word.encode(*ENCODING) for word in arguments)))
        zygote.sendmsg([text], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        posix.close(folder)
        answer = zygote.recv(1, _socket.MSG_PEEK)
    except OSError:  # it has just ended, or a stream is closed, or there are too many arguments
        return None
    return None if answer in (DECLINED, b"") else zygote


def _is_own(zygote: _socket.socket) -> bool:
    """Say whether it is of the same user."""
    of = zygote.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, CREDENTIALS_BYTES)
    return int.from_bytes(of[UID], sys.byteorder) == posix.geteuid()


def _follow(zygote: _socket.socket) -> int:
    """Stay until the end; return the exit code."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        try:
            zygote.send(bytes([number]))
        except OSError:
            return

    try:
        while answer := zygote.recv(MAX_ANSWER_BYTES):
            if answer[:1] == EXITED:
                return int(answer[1:])
            if answer[:1] == STARTING:
                before = _signal.pthread_sigmask(_signal.SIG_BLOCK, PASSED_ON)
                for number in PASSED_ON:
                    _signal.signal(number, pass_on)
                zygote.send(READY)
                _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    except OSError:
        pass
    posix.write(2, b"berth-oci run failed: the process that the zygote made for it was killed\n")
    return EXIT_LOST
