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
        self._typed = b""  # and not taken by the terminal yet
        if caller is not None:
            caller.say_starting()
        for number in PASSED_ON:
            _signal.signal(number, self._pass_on)
        if terminal >= 0:
            os.set_blocking(terminal, False)
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
            happened = ready.get(self._terminal, 0)
            if happened & ~select.POLLOUT and not self._show():
                poll.unregister(self._terminal)
            elif happened & select.POLLOUT or 0 in ready:
                self._type(poll)
            elif self._pidfd in ready and not happened:
                break
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else FIRST_SIGNAL_EXIT - code

    def _show(self) -> bool:
        """Show what the terminal has; False at the end."""
        try:
            data = os.read(self._terminal, CHUNK_BYTES)
        except BlockingIOError:  # the program has just taken back what it wrote (tcflush(3))
            return True
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(1, view) :]
            except BlockingIOError:  # our caller has left it so
                select.select((), (1,), ())
            except OSError:
                return False
        return bool(data)

    def _type(self, poll: select.poll) -> None:
        """Give the terminal what was typed, and read no more before it has all.

        To wait for that here could be for ever: a program that is not shown what it writes does not
        read either.
        """
        waited = bool(self._typed)
        try:
            self._typed = self._typed or os.read(0, CHUNK_BYTES)
            is_end = not self._typed
            self._typed = self._typed[os.write(self._terminal, self._typed) :]
        except BlockingIOError:
            is_end = False
        except OSError:  # EIO, too
            self._typed, is_end = b"", True
        if waited != bool(self._typed):
            poll.modify(self._terminal, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if not waited and (self._typed or is_end):
            poll.unregister(0)
        elif waited and not self._typed and not is_end:
            poll.register(0, select.POLLIN)

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
