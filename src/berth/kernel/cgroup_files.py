"""Control files and groups of one cgroup hierarchy, below a descriptor of its top directory."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = os.O_RDONLY | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_CLOEXEC
DIRECTORY = READ | os.O_DIRECTORY
CHUNK_BYTES = 65536

# Waits of a millisecond, twice as long each, ten of them: a second in all.
WAITS = 10
FIRST_WAIT_S = 0.001


def read(fd: int, path: str) -> str:
    """Return a control file's text."""
    file = os.open(path, READ, dir_fd=fd)
    try:
        parts = []
        while part := os.read(file, CHUNK_BYTES):
            parts.append(part)
    finally:
        os.close(file)
    return b"".join(parts).decode()


def write(fd: int, path: str, value: str) -> None:
    """Write a control file; the OSError names the value and the file."""
    file = os.open(path, WRITE, dir_fd=fd)
    try:
        os.write(file, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {error.strerror}", path) from error
    finally:
        os.close(file)


def is_there(fd: int, path: str) -> bool:
    """Say whether a control file or group exists."""
    return os.access(path, os.F_OK, dir_fd=fd)


def fields(text: str) -> dict[str, str]:
    """Parse a flat keyed file: "name value" a line."""
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def make(fd: int, path: str) -> bool:
    """Make a group; False when it was there."""
    try:
        os.mkdir(path, 0o755, dir_fd=fd)
    except FileExistsError:
        return False
    return True


def children(fd: int, path: str) -> list[str]:
    """Return the paths of the groups right below ``path``."""
    folder = os.open(path, DIRECTORY, dir_fd=fd)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(folder)
    return [f"{path}/{name}" for name in names]


def processes(fd: int, path: str) -> list[int]:
    """Return the ids of the processes in the group and in those below it; none when it is gone."""
    try:
        found = [int(line) for line in read(fd, f"{path}/cgroup.procs").split()]
        below = children(fd, path)
    except OSError as error:
        # ENODEV: the group went while it was read; EOPNOTSUPP: a threaded group, its root lists them.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise
    for child in below:
        found += processes(fd, child)
    return found


def remove(fd: int, path: str) -> None:
    """Remove a group and those below it. Processes that are just ending are waited for, bounded.

    Raises OSError with EBUSY when some do not go. A group that is not there is fine.
    """
    refused: list[OSError] = []

    def is_gone() -> bool:
        try:
            os.rmdir(path, dir_fd=fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            refused[:] = [error]
            return False
        return True

    if is_gone():
        return
    for child in children(fd, path):
        remove(fd, child)
    if not wait_until(is_gone):
        raise refused[0]


def remove_empty(fd: int, path: str) -> None:
    """Remove a group if there is nothing in it, no process and no other group."""
    try:
        os.rmdir(path, dir_fd=fd)
    except OSError:
        return


def wait_until(condition: Callable[[], bool]) -> bool:
    """Ask ``condition`` again and again, for about a second; say whether it came to hold."""
    import select

    pause = FIRST_WAIT_S
    for _ in range(WAITS):
        if condition():
            return True
        select.select((), (), (), pause)
        pause *= 2
    return condition()
