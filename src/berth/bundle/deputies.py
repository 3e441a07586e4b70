"""The command's hold on its deputy (`berth.bundle.deputy`), which starts while the command does.

So what enters the container is a sealed copy of the interpreter, and the command itself need not be one.
"""

from __future__ import annotations

import _socket
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from berth.bundle.plan import Plan
    from berth.kernel import sockets
    from berth.oci.runtime_spec import Spec

    class FilterMessage(TypedDict):
        """A seccomp filter; its program follows the document."""

        flags: int
        metadata: str
        agent: bool

    class Errand(TypedDict):
        """What the deputy is told of a plan.

        Descriptors beside it, in this order: the ``sync`` socket, the one of `start`, hierarchies, joined
        namespaces, the filter's agent, the console's socket.
        """

        id: str
        bundle: str
        spec: Spec
        no_pivot: bool
        no_new_keyring: bool
        preserved: int
        has_group: bool
        group: str
        hierarchies: list[tuple[str, list[str], bool]]
        joined: list[str]
        filter: FilterMessage | None
        console: bool


# It ends before there is anything to collect.
BOOT = (
    "import gc, sys; gc.disable(); sys.path[:] = {path!r};"
    " from berth import pack; pack.use(); from berth.bundle import deputy; deputy.serve({fd})"
)


class Deputy:
    """A deputy that has been started."""

    def __init__(self) -> None:
        from berth.kernel import sealing

        # Not by `berth.kernel.sockets`: whatever comes before the start holds both processes up.
        self._door, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        program, fd = sealing.sealed_interpreter(), theirs.fileno()
        boot = BOOT.format(path=[entry for entry in sys.path if entry], fd=fd)
        self._pid = posix.posix_spawn(
            f"/proc/self/fd/{program}",
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", boot],
            posix.environ,
            file_actions=[(posix.POSIX_SPAWN_DUP2, fd, fd)],  # to be inherited
        )
        posix.close(program)
        theirs.close()

    def make(self, plan: Plan, sync: sockets.Socket) -> int:
        """Have the process made, as a child of this one; return its pid."""
        from berth.errors import Failed, from_record
        from berth.kernel import sockets
        from berth.runtime import codec

        data, fds = _pack(plan, sync)
        try:
            sockets.send(self._door, data, fds)
            answer, _ = sockets.receive(self._door)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:
            raise Failed("the process that makes the container's first one was killed")
        message = codec.decode(answer)
        if "error" in message:
            raise from_record(message["error"])
        pid: int = message["pid"]
        return pid

    def dismiss(self) -> None:
        """Let it end, if it has not been asked for anything, and wait for that."""
        self._door.close()
        posix.waitpid(self._pid, 0)


def _pack(plan: Plan, sync: sockets.Socket) -> tuple[bytes, list[int]]:
    from berth.runtime import codec

    assert plan.listener is not None
    found = plan.hierarchies.found
    fds = [sync.fileno(), plan.listener.fileno(), *(h.fd for h in found), *plan.joined.values()]
    filter_: FilterMessage | None = None
    if plan.filter is not None:
        agent = plan.filter.agent
        filter_ = {
            "flags": plan.filter.flags,
            "metadata": plan.filter.metadata,
            "agent": agent is not None,
        }
        if agent is not None:
            fds.append(agent.fileno())
    if plan.console is not None:
        fds.append(plan.console.fileno())
    errand: Errand = {
        "id": plan.id,
        "bundle": plan.bundle,
        "spec": plan.spec,
        "no_pivot": plan.no_pivot,
        "no_new_keyring": plan.no_new_keyring,
        "preserved": plan.preserved,
        "has_group": plan.has_group,
        "group": plan.group.path,
        "hierarchies": [(h.name, list(h.controllers), h.unified) for h in found],
        "joined": list(plan.joined),
        "filter": filter_,
        "console": plan.console is not None,
    }
    program = b"" if plan.filter is None else plan.filter.program
    return codec.encode(errand) + b"\n" + program, fds


_started: Deputy | None = None


def start() -> None:
    """Start the deputy of this process."""
    global _started
    _started = Deputy()


def started() -> Deputy | None:
    """Return this process's deputy, if it has one; a process that is sealed itself needs none."""
    return _started


def dismiss() -> None:
    """Have none any more. Idempotent."""
    global _started
    if _started is not None:
        _started.dismiss()
        _started = None
