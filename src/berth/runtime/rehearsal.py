"""A monitor's life, played in the zygote before the first fork.

The interpreter specialises code, fills its method cache, and numbers types and dictionaries while it runs:
writes that each monitor would do again, in copies of its own of the pages. A rehearsed one is born with them.
"""

from __future__ import annotations

import _signal
import _socket
import os

from berth.kernel import sockets
from berth.runtime import codec, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from berth.runtime.init import Child

ROUNDS = 12  # CPython 3.11 specialises a function after eight calls
NAME = "rehearsal"
LINE = b"to whom it may concern\n"


def rehearse(exec_root: str, here: launch.Here) -> None:
    """Play it in a directory of its own below ``exec_root``, with a process that writes a line and ends."""
    directory = f"{exec_root}/{NAME}"
    os.makedirs(directory, exist_ok=True)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    for _ in range(ROUNDS):
        _play(directory, here)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    os.unlink(f"{directory}/log")
    os.rmdir(directory)


def _play(directory: str, here: launch.Here) -> None:
    berthd, control = sockets.pair()
    client, attached = _socket.socketpair()
    pidfd = os.pidfd_open(os.getpid())
    request = launch.Request(_document(directory), [pidfd, attached.detach()])
    played = launch.plan(request, control, os.dup(here.null_fd), here)
    assert played is not None, "see what berthd was told"
    played.run_child = _act
    sockets.send(berthd, codec.encode({"op": "settle"}))
    played.begin()
    served = played.complete()
    served.run()
    served.finish()
    client.close()
    served.release()
    played.forget()


def _act(child: Child) -> NoReturn:
    os.write(child.stdio[1], LINE)
    os._exit(0)


def _document(directory: str) -> bytes:
    client = {"stdin": False, "stdout": True, "stderr": True, "multiplexed": True}
    return codec.encode(
        {
            "op": "exec",
            "directory": directory,
            "cgroups_path": NAME,  # of no group
            "flags": 0,
            "pid_namespace": None,
            "terminal": False,
            "stdin": False,
            "stdin_once": False,
            "log": {"path": f"{directory}/log", "max_size": None, "max_files": 1},
            "attachments": [{**client, "detach_keys": "", "early": ""}],
        }
    )
