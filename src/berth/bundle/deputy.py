"""The deputy: it makes the container's process for `run` and `create`.

command                                    deputy (its child, started with it)
   │── plan + descriptors ─────────────────►│ clones the process, as a child of the command
   │◄── {"pid"} or {"error"} ───────────────│ and ends

The container cannot write to the interpreter that enters it: that is a sealed copy or, of a deputy that the
script started, on a read-only mount in a namespace that has nothing else of its own.
"""

from __future__ import annotations

import _signal
import _socket
import os

from berth import pack
from berth.bundle import birth, deputies, descriptors, networks
from berth.bundle.plan import Filter, Plan
from berth.errors import BerthError
from berth.kernel import namespaces, processes, sockets
from berth.kernel.cgroups import Hierarchies, Hierarchy
from berth.runtime import codec, payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from berth.bundle.deputies import Errand, FilterMessage

NONE = -1


def serve(door: sockets.Socket) -> NoReturn:
    """Wait for an errand, do it, and end."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # it ends this process, without a traceback
    processes.set_name(b"berth-deputy")
    os.set_inheritable(door.fileno(), False)
    data, fds = sockets.receive(door)
    network: int | BaseException = NONE
    if data == deputies.NETWORK:
        network = _make_network()
        data, fds = sockets.receive(door)
    if data:
        answer = _do(data, fds, door, network)
        try:
            sockets.send(door, codec.encode(answer))
        except BrokenPipeError:  # the command was killed
            os._exit(1)
    pack.complete()
    os._exit(0)


def _make_network() -> int | BaseException:
    """Make it while the command does something else; what keeps it from that is told later."""
    try:
        return networks.make()
    except (BerthError, OSError) as error:
        return error


def _do(data: bytes, fds: list[int], door: sockets.Socket, network: int | BaseException) -> object:
    """Make the process; return the answer."""
    try:
        if isinstance(network, BaseException):
            raise network
        plan, sync = _unpack(data, fds)
        if network != NONE:
            plan.joined["network"] = network
        descriptors.preserve(plan.preserved)
        return {"pid": birth.clone_for_parent(plan, sync, door)}
    except BaseException as error:  # noqa: BLE001 - told to the command, whatever it is
        return payload.describe("make the process", error)


def _unpack(data: bytes, fds: list[int]) -> tuple[Plan, sockets.Socket]:
    document, _, program = data.partition(b"\n")
    errand: Errand = codec.decode(document)
    if errand["streams"] is not None:
        _move(fds, errand["streams"])
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


def _move(fds: list[int], streams: list[int]) -> None:
    """Be where the command is, and have its streams."""
    namespace, root, directory = (fds.pop(0) for _ in range(3))
    namespaces.setns(namespace, namespaces.CLONE_NEWNS)
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(directory)
    for fd in (0, 1, 2):
        if fd in streams:
            os.dup2(fds.pop(0), fd)
        else:
            os.close(fd)


def _filter(message: FilterMessage, program: bytes, fds: list[int]) -> Filter:
    agent = _stream(fds.pop(0)) if message["agent"] else None
    return Filter(program, message["flags"], message["metadata"], agent)


def _stream(fd: int) -> _socket.socket:
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
