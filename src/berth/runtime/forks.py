"""What this process must not do itself, done by a fork of it that ends with that."""

from __future__ import annotations

import os

from berth.errors import Failed
from berth.kernel import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(action: Callable[[], object]) -> None:
    """Have a fork of this process do something that it must not do itself; Failed with its words."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            processes.prctl(processes.PR_SET_DUMPABLE, 0)  # it may enter what is not trusted
            action()
        except BaseException as error:  # noqa: BLE001 - told to the parent, whatever it is
            os.write(writer, str(error).encode()[:4096])
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 4096).decode(errors="replace")
    os.close(reader)
    os.waitpid(pid, 0)
    if text:
        raise Failed(text)
