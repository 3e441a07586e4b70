"""The mode ``non-blocking`` of a log on disk: a thread writes it, and a slow disk holds up no container.

    event loop ──► queue of so many bytes ──► thread ──► log

What there is no room for is lost, and the log says how much. Only monitors with such a log load this.
"""

from __future__ import annotations

import _thread
import os
import time
from _queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.runtime.jsonlog import LogWriter
    from berth.runtime.locallog import LocalWriter

    Work = tuple[Callable[[], None], int]


class RingLog:
    """A log that takes what it is given at once. Once it was written to, its process clones no other."""

    def __init__(self, log: LogWriter | LocalWriter, limit_bytes: int) -> None:
        self._log = log
        self._limit_bytes = limit_bytes
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        # Each is counted by one side alone; the difference waits.
        self._put_bytes = self._written_bytes = 0
        self._lost_bytes = 0
        self._ended_fd, self._thread_fd = os.pipe2(os.O_CLOEXEC)
        self._begun = False

    def write(self, stream: str, chunk: bytes, time_ns: int) -> None:
        """Add output, or lose it; a chunk that finds nothing waiting is taken whatever its size."""
        waiting = self._put_bytes - self._written_bytes
        if waiting and waiting + len(chunk) > self._limit_bytes:
            self._lost_bytes += len(chunk)
            return
        self._confess(time_ns)
        self._put(lambda: self._log.write(stream, chunk, time_ns), len(chunk))

    def _confess(self, time_ns: int) -> None:
        lost, self._lost_bytes = self._lost_bytes, 0
        if lost:
            self._put(lambda: self._log.lose(lost, time_ns), 0)

    def _put(self, work: Callable[[], None], size_bytes: int) -> None:
        if not self._begun:
            self._begun = True
            _thread.start_new_thread(self._serve, ())
        self._put_bytes += size_bytes
        self._queue.put((work, size_bytes))

    def _serve(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                work, size_bytes = item
                work()
                self._written_bytes += size_bytes
        finally:
            os.close(self._thread_fd)

    def clear(self) -> None:
        """Forget everything that is on disk."""
        self._put(self._log.clear, 0)

    def finish(self) -> int:
        """Take no more; return a descriptor, the caller's, that ends when everything is written."""
        self._confess(time.time_ns())
        self._queue.put(None)
        if not self._begun:
            os.close(self._thread_fd)
        return self._ended_fd

    def close(self) -> None:
        """Close the log, after :meth:`finish`."""
        self._log.close()
