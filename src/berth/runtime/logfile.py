"""The files of a log: appended to, rotated, packed. What an entry looks like is the caller's matter.

    path   the newest of ``max_files`` files
    path.1, path.2 …   those before it; with ``compress`` they become path.1.gz …

A reader that has ``path`` open keeps a whole file, also with one file only: the next one takes its name,
never its inode. A disk that is full loses entries, never the container: nothing but the constructor raises,
half an entry never stays, and the log itself says how much is missing as soon as it can.
"""

from __future__ import annotations

import os

from berth.runtime import logpacking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    EndOfEntry = Callable[[bytes, int, int], int]

PACKED = ".gz"
MODE = 0o640
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class LogFile:
    """An open log, rotated before an entry when it has reached ``max_size_bytes`` (None: never).

    ``end_of_entry(entries, start, position)``: where the entry at ``position`` ends; one begins at ``start``.
    """

    def __init__(
        self,
        path: str,
        *,
        max_size_bytes: int | None,
        max_files: int,
        compress: bool,
        end_of_entry: EndOfEntry,
    ) -> None:
        self._path = path
        self._max_size_bytes = max_size_bytes
        self._max_files = max_files
        self._compress = compress
        self._packing_fd: int | None = None  # of a process that packs: it ends with it
        self._end_of_entry = end_of_entry
        self._lost_bytes = 0
        self._lost_because = ""
        self._fd = os.open(path, FLAGS, MODE)
        self._size_bytes = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close; what is being packed is packed to its end."""
        os.close(self._fd)
        if self._packing_fd is not None:
            os.close(self._packing_fd)

    def append(self, entries: bytes, confess: Callable[[bytes], bytes]) -> None:
        """Add whole entries; ``confess`` makes an entry of a line about those that are missing."""
        confession = confess(self._loss()) if self._lost_bytes else b""
        data = confession + entries
        done = 0
        try:
            while done < len(data):
                self._make_room()
                end = self._end_of_file(data, done)
                self._write_all(data[done:end])
                done = end
        except OSError as error:
            self._lost_because = error.strerror or str(error)
        if done >= len(confession):
            self._lost_bytes = 0
        self._lost_bytes += len(data) - max(done, len(confession))

    def _loss(self) -> bytes:
        text = (
            f"berth: {self._lost_bytes} bytes of the log are missing here: {self._lost_because}\n"
        )
        return text.encode()

    def _make_room(self) -> None:
        if self._max_size_bytes and self._size_bytes >= self._max_size_bytes:
            self._rotate()

    def _end_of_file(self, entries: bytes, start: int) -> int:
        """Return the end of the entry with which the file is full."""
        if not self._max_size_bytes:
            return len(entries)
        return self._end_of_entry(entries, start, start + self._max_size_bytes - self._size_bytes)

    def _write_all(self, data: bytes) -> None:
        """Write all or, as far as the disk allows, nothing: half an entry would spoil the next one."""
        written = os.write(self._fd, data)
        while written < len(data):
            try:
                written += os.write(self._fd, data[written:])
            except OSError:
                os.ftruncate(self._fd, self._size_bytes)
                raise
        self._size_bytes += written

    def _rotate(self) -> None:
        self._wait_for_packing()
        for number in range(self._max_files - 2, 0, -1):
            for suffix in ("", PACKED):
                source, target = f"{self._path}.{number}", f"{self._path}.{number + 1}"
                if _replace(source + suffix, target + suffix):
                    _unlink(target + (PACKED if suffix == "" else ""))
        if self._max_files > 1:
            _replace(self._path, f"{self._path}.1", keep=True)
        self._begin()
        if self._compress and self._max_files > 1:
            self._packing_fd = logpacking.start(f"{self._path}.1", f"{self._path}.1{PACKED}")

    def _begin(self) -> None:
        # Made beside and moved over: for readers there is a log under this name at every moment.
        fresh = f"{self._path}.new"
        fd = os.open(fresh, FLAGS | os.O_TRUNC, MODE)
        os.replace(fresh, self._path)
        os.close(self._fd)
        self._fd = fd
        self._size_bytes = 0

    def clear(self) -> None:
        """Forget everything."""
        self._wait_for_packing()
        try:
            self._begin()
        except OSError:  # the disk is full: it is freed by what goes
            os.ftruncate(self._fd, 0)
            self._size_bytes = 0
        remove_older(self._path)

    def _wait_for_packing(self) -> None:
        if self._packing_fd is not None:
            os.read(self._packing_fd, 1)
            os.close(self._packing_fd)
            self._packing_fd = None


def _replace(source: str, target: str, *, keep: bool = False) -> bool:
    """Rename ``source`` over ``target`` (or give it this second name); False when it is not there."""
    try:
        if keep:
            _unlink(target)
            os.link(source, target)
        else:
            os.replace(source, target)
    except FileNotFoundError:
        return False
    return True


def remove_older(path: str) -> None:
    """Remove the files that came before ``path``."""
    number = 1
    while _unlink(f"{path}.{number}") | _unlink(f"{path}.{number}{PACKED}"):
        number += 1


def remove(path: str) -> None:
    """Remove a log that nobody writes."""
    _unlink(path)
    remove_older(path)


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
