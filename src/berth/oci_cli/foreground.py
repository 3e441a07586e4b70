"""Stay with a process: pass signals on, show its terminal on ours, return its exit code."""

from __future__ import annotations

import _signal
import errno
import os
import select

from berth.oci_cli.asking import PASSED_ON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from berth.oci_cli.callers import Caller

CHUNK_BYTES = 65536
FIRST_SIGNAL_EXIT = 128


class Foreground:
    """A child of this process that runs in the foreground; ``terminal`` is its terminal's master, or -1.

    In the zygote's worker the signals come from the ``caller``.
    """

    def __init__(self, pid: int, terminal: int, caller: Caller | None = None) -> None:
        self._pid = pid
        self._terminal = terminal
        self._caller = caller
        self._saved: list[int | list[bytes | int]] | None = None
        self._pidfd = os.pidfd_open(pid)
        if caller is not None:
            caller.say_starting()
        for number in PASSED_ON:
            _signal.signal(number, self._pass_on)
        if terminal >= 0:
            _clear_carriage_returns(terminal)
            if os.isatty(0):
                self._saved = _set_raw(0)
            self._resize()

    def _pass_on(self, number: int, _frame: FrameType | None = None) -> None:
        if number == _signal.SIGWINCH:
            self._resize()
            return
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            return

    def _resize(self) -> None:
        if self._terminal < 0:
            return
        try:
            size = os.get_terminal_size(0)
        except OSError:
            return
        from berth.runtime import pty

        pty.set_size(self._terminal, size.lines, size.columns)

    def run(self) -> int:
        """Wait for its end; return the exit code."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if self._terminal >= 0:
            poll.register(self._terminal, select.POLLIN)
            poll.register(0, select.POLLIN)
        if self._caller is not None:
            poll.register(self._caller.fileno(), select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._caller is not None and self._caller.fileno() in ready:
                self._pass_on(self._caller.take_signal())
            if self._terminal in ready and not self._copy(self._terminal, 1):
                poll.unregister(self._terminal)
            elif 0 in ready and self._terminal >= 0 and not self._copy(0, self._terminal):
                poll.unregister(0)
            elif self._pidfd in ready and not ready.keys() & {self._terminal}:
                break
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else FIRST_SIGNAL_EXIT - code

    def _copy(self, source: int, target: int) -> bool:
        """Copy what is there; False at the end."""
        try:
            data = os.read(source, CHUNK_BYTES)
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        return bool(data)

    def close(self) -> None:
        """Give our own terminal back as it was."""
        if self._saved is not None:
            import termios

            saved, self._saved = self._saved, None
            _repeat(lambda: termios.tcsetattr(0, termios.TCSADRAIN, saved))
        os.close(self._pidfd)


def _set_raw(fd: int) -> list[int | list[bytes | int]]:
    """Leave everything to the other terminal but that lines begin on the left; return how it was."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    _repeat(lambda: tty.setraw(fd))
    mode = termios.tcgetattr(fd)
    mode[1] |= termios.OPOST
    _repeat(lambda: termios.tcsetattr(fd, termios.TCSADRAIN, mode))
    return before


def _repeat(change: Callable[[], object]) -> None:
    """Change a terminal. In the background that stops this process; who lets it go on interrupts the call."""
    import termios

    while True:
        try:
            change()
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise
        else:
            return


def _clear_carriage_returns(terminal: int) -> None:
    """Have lines end as programs write them, so that they are as they were in files and pipes."""
    import termios

    mode = termios.tcgetattr(terminal)
    mode[1] &= ~termios.ONLCR
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
