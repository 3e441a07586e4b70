"""What a monitor keeps on disk of the process that it watches, in a directory of that process's own."""

from __future__ import annotations

import os

from berth.runtime import codec

TASK_FILE = "task.json"
EXIT_FILE = "exit.json"
SOCKET_FILE = "control.sock"
# Of what hooks are run for, see `berth.runtime.hooking`.
BUNDLE, CONFIG_FILE = "bundle", "config.json"


def write_atomic(path: str, record: dict[str, object]) -> None:
    """Write a JSON record so that a reader sees all of it or nothing."""
    temporary = f"{path}.new"
    # No file object and no json.dump, which is Python: whatever runs has its pages copied into this process.
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, codec.encode(record))
    finally:
        os.close(fd)
    os.replace(temporary, path)


def remove_records(directory: str = "") -> None:
    """Remove all of it that is there; ``directory`` ends in a slash, "" is the working directory."""
    for name in (SOCKET_FILE, TASK_FILE, EXIT_FILE):
        try:
            os.unlink(f"{directory}{name}")
        except FileNotFoundError:
            continue
