"""The deputy: a sealed copy of the interpreter that makes the container's process for `run` and `create`.

command                                    deputy (its child, started before anything else)
   │── plan + descriptors ─────────────────►│ clones the process, as a child of the command
   │◄── {"pid"} or {"error"} ───────────────│ and ends
"""

from __future__ import annotations

import _signal
import _socket
import os

from berth.bundle import birth, descriptors
from berth.bundle.plan import Filter, Plan
from berth.kernel import processes, sockets
from berth.kernel.cgroups import Hierarchies, Hierarchy
from berth.runtime import codec, payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from berth.bundle.deputies import Errand, FilterMessage


def serve(fd: int) -> NoReturn:
    """Wait for an errand on the socket ``fd``, do it, and end."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # it ends this process, without a traceback
    processes.set_name(b"berth-deputy")
    os.set_inheritable(fd, False)
    door = sockets.adopt(fd)
    data, fds = sockets.receive(door)
    if data:
        sockets.send(door, codec.encode(_do(data, fds, door)))
    os._exit(0)


def _do(data: bytes, fds: list[int], door: sockets.Socket) -> object:
    """Make the process; return the answer."""
    try:
        plan, sync = _unpack(data, fds)
        descriptors.preserve(plan.preserved)
        return {"pid": birth.clone_for_parent(plan, sync, door)}
    except BaseException as error:  # noqa: BLE001 - told to the command, whatever it is
        return payload.describe("make the process", error)


def _unpack(data: bytes, fds: list[int]) -> tuple[Plan, sockets.Socket]:
    document, _, program = data.partition(b"\n")
    errand: Errand = codec.decode(document)
    plan = Plan(errand["spec"], id_=errand["id"], bundle=errand["bundle"])
    sync, plan.listener = sockets.adopt(fds.pop(0)), sockets.adopt(fds.pop(0))
    plan.hierarchies = Hierarchies(
        [
            Hierarchy(fds.pop(0), name, tuple(controllers), unified=unified)
            for name, controllers, unified in errand["hierarchies"]
        ]
    )
    plan.group = plan.hierarchies.open_group(errand["group"])
    plan.joined = {kind: fds.pop(0) for kind in errand["joined"]}
    if errand["filter"] is not None:
        plan.filter = _filter(errand["filter"], program, fds)
    if errand["console"]:
        plan.console = _stream(fds.pop(0))
    plan.has_group = errand["has_group"]
    plan.no_pivot = errand["no_pivot"]
    plan.no_new_keyring = errand["no_new_keyring"]
    plan.preserved = errand["preserved"]
    return plan, sync


def _filter(message: FilterMessage, program: bytes, fds: list[int]) -> Filter:
    agent = _stream(fds.pop(0)) if message["agent"] else None
    return Filter(program, message["flags"], message["metadata"], agent)


def _stream(fd: int) -> _socket.socket:
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
