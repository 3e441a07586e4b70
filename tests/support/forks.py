"""Run a function in a forked child, for what changes a process for good."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_child(function: Callable[[], T]) -> T:
    """Return what ``function`` returns in a forked child; its exception's text fails the test."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = (True, function())
        except BaseException:
            answer = (False, traceback.format_exc())
        os.write(write, pickle.dumps(answer))
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert data, f"the child ended without an answer: status {status}"
    worked, answer = pickle.loads(data)
    assert worked, answer
    return answer


def ending_signal(function: Callable[[], object]) -> int:
    """Return the signal that ends a forked child which calls ``function``; 0 when none does."""
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class Waiting:
    """A child that first does ``before`` and then waits for a signal; killed at the end of the block."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self._before = before
        self.pid = 0

    def __enter__(self) -> Waiting:
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                self._before()
                os.write(write, b"ready")
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(write)
        with open(read, "rb") as pipe:
            ready = pipe.read(5)
        if not ready:
            os.waitpid(self.pid, 0)
        assert ready, "the child failed"
        return self

    def __exit__(self, *error: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()

    def reap(self) -> int:
        """Wait for the child's end and return its status; it is not killed then."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return status
