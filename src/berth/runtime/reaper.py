"""``--init``: a pid 1 that passes signals on to the one program it started and reaps the orphans."""

from __future__ import annotations

import _signal
import os

from berth.kernel import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

KERNEL_SIGNALS = (_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP)


def run(program: int) -> NoReturn:
    """Serve as pid 1 until the program ends, then end the same way. Called right after the fork."""
    waited = set(_signal.valid_signals()) - set(KERNEL_SIGNALS)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, waited)
    # Only the program may hold the descriptors: its end of output is the container's.
    processes.close_from(0)
    # Asked first: one that ended before the signals were blocked sends no other SIGCHLD.
    while (status := _reap(program)) is None:
        number = _signal.sigwait(waited)
        if number != _signal.SIGCHLD:
            _forward(program, number)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _forward(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap(program: int) -> int | None:
    """Reap whoever ended; return the program's wait status once it did."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == program:
            result = status
