"""The command's hold on its deputy (`berth.bundle.deputy`), which starts while the command does.

So what enters the container is an interpreter that it cannot write to, and the command itself need not be
one. Root's is started by the script `berth-oci`, beside the command; where that cannot be, by the command.
"""

from __future__ import annotations

import _socket
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Iterable
    from typing import TypedDict

    from berth.bundle.plan import Plan
    from berth.kernel.sockets import Socket
    from berth.oci.runtime_spec import Spec

    class FilterMessage(TypedDict):
        """A seccomp filter; its program follows the document."""

        flags: int
        metadata: str
        agent: bool

    class Errand(TypedDict):
        """What the deputy is told of a plan.

        Descriptors beside it, in this order: the command's mount namespace, root, directory and ``streams``,
        if the deputy is elsewhere; the ``sync`` socket, the one of `start`, hierarchies, joined namespaces,
        the filter's agent, the console's socket.
        """

        streams: list[int] | None  # those of 0, 1 and 2 that are open
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


# The script says in it where the two meet, and to the command before that which process it has started.
VARIABLE = b"BERTH_OCI_DEPUTY"
PROGRAM = __file__.rpartition("/")[0] + "/__main__.py"
NETWORK = b"network"  # before the errand: a new network will be wanted
FIRST_PAUSE_S, LAST_PAUSE_S = 0.0002, 0.05
# With a command that has no use for its deputy after all, or that somebody has stopped.
PATIENCE_S = 5.0
PEER_BYTES = 12  # struct ucred: pid, uid, gid
KILL, CONTINUE = 9, 18
LOOK_EVERY_MS = 1000


def way(where: str, number: str) -> Socket:
    """Return, in the deputy, the way to its command: socket ``number``, or that of its parent ("beside").

    One that was started beside the command ends unless its interpreter cannot be written to. Who listens
    must be its parent. A pid alone does not tell that, for who had it before may have left a socket that
    listens; so nobody else may know the name while the command has not taken it.
    """
    if where == "socket":
        return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, int(number))
    command, pause = int(number), FIRST_PAUSE_S
    address = _address(posix.environ.pop(VARIABLE))
    if not posix.statvfs("/proc/self/exe").f_flag & posix.ST_RDONLY:
        posix._exit(1)
    door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    end = time.monotonic() + PATIENCE_S
    while posix.getppid() == command and time.monotonic() < end:
        try:
            door.connect(address)
        except ConnectionRefusedError:
            time.sleep(pause)  # noqa: TID251 - nothing tells when somebody begins to listen
            pause = min(pause * 2, LAST_PAUSE_S)
            continue
        if _peer(door) == command == posix.getppid():
            return door
        break
    posix._exit(1)


def _address(name: bytes) -> bytes:
    """Return where a command waits for the deputy that was started beside it."""
    return b"\0berth-oci/%s" % name


def _peer(sock: Socket) -> int:
    """Return the pid of who is at the other end."""
    data = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, PEER_BYTES)
    return int.from_bytes(data[:4], sys.byteorder)


class Deputy:
    """A deputy that has been started, by the script as ``pid`` and to come to ``name``, or here."""

    def __init__(self, pid: int = 0, name: bytes = b"") -> None:
        # Not by `berth.kernel.sockets`: whatever comes before the start holds both processes up.
        self._pid = pid
        self._door: Socket | None = None
        self._listener: Socket | None = None  # for one that is elsewhere
        self._wants_network = False
        if pid:
            self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            self._listener.bind(_address(name))
            self._listener.listen(1)
        else:
            self._door = self._spawn()

    def _spawn(self, kept: Iterable[int] = ()) -> Socket:
        """Start it, with descriptors that programs were not to have any more."""
        from berth.kernel import sealing

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        program, fd = sealing.sealed_interpreter(), theirs.fileno()
        inherited = (fd, *kept)
        self._pid = posix.posix_spawn(
            f"/proc/self/fd/{program}",
            [sys.executable, "-I", "-S", "-X", "utf8", PROGRAM, "socket", str(fd)],
            posix.environ,
            file_actions=[(posix.POSIX_SPAWN_DUP2, one, one) for one in inherited],
        )
        posix.close(program)
        theirs.close()
        return ours

    def make_network(self) -> None:
        """Have it make a new network for the container, while this process goes on."""
        door = self._admit(wait=False)
        if door is None:
            self._wants_network = True
            return
        try:
            door.send(NETWORK)
        except BrokenPipeError:  # it was killed; `make` finds out, and says so
            return

    def make(self, plan: Plan, sync: Socket) -> int:
        """Have the process made, as a child of this one; return its pid."""
        import select

        from berth.bundle import descriptors
        from berth.errors import Failed, from_record
        from berth.kernel import sockets
        from berth.runtime import codec

        door = self._admit(descriptors.preserved(), wait=True)
        assert door is not None
        data, fds = _pack(plan, sync, is_elsewhere=self._listener is not None)
        try:
            if self._wants_network:
                door.send(NETWORK)
            sockets.send(door, data, fds)
            poll = select.poll()
            poll.register(door, select.POLLIN)
            self._ready(poll, wait=True)
            answer, _ = sockets.receive(door)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:
            raise Failed("the process that makes the container's first one was killed")
        message = codec.decode(answer)
        if "error" in message:
            raise from_record(message["error"])
        pid: int = message["pid"]
        return pid

    def _ready(self, poll: select.poll, *, wait: bool) -> dict[int, int]:
        """Return what can be read; with ``wait`` there is something. One that was stopped goes on then.

        So it is when somebody has stopped the command with it (^Z), and lets only that go on.
        """
        while not (ready := dict(poll.poll(LOOK_EVERY_MS if wait else 0))) and wait:
            posix.kill(self._pid, CONTINUE)
        return ready

    def _admit(self, kept: Iterable[int] = (), *, wait: bool) -> Socket | None:
        """Return the way to it, if it has come. Instead of one that has ended there is another one."""
        import select

        if self._door is not None or self._listener is None:
            return self._door
        pidfd = posix.pidfd_open(self._pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        try:
            while ready := self._ready(poll, wait=wait):
                if self._listener.fileno() not in ready:
                    posix.waitpid(self._pid, 0)
                    self._listener = None
                    self._door = self._spawn(kept)
                    break
                fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # what accept() is made of
                door = _socket.socket(fileno=fd)
                if _peer(door) == self._pid:
                    self._door = door
                    break
        finally:
            posix.close(pidfd)
        return self._door

    def dismiss(self) -> None:
        """Let it end, if it has not been asked for anything, and wait for that."""
        if self._door is None:
            posix.kill(self._pid, KILL)
        else:
            self._door.close()
        while posix.WIFSTOPPED(posix.waitpid(self._pid, posix.WUNTRACED)[1]):
            posix.kill(self._pid, CONTINUE)


def _pack(plan: Plan, sync: Socket, *, is_elsewhere: bool) -> tuple[bytes, list[int]]:
    from berth.bundle import descriptors
    from berth.runtime import codec

    assert plan.listener is not None
    found = plan.hierarchies.found
    streams = [fd for fd in (0, 1, 2) if descriptors.is_inherited(fd)] if is_elsewhere else None
    fds = [] if streams is None else [*_surroundings(), *streams]
    fds += [sync.fileno(), plan.listener.fileno(), *(h.fd for h in found), *plan.joined.values()]
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
        "streams": streams,
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


def _surroundings() -> tuple[int, int, int]:
    """Open this process's mount namespace, root and directory. They end with it."""
    path = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
    namespace = posix.open("/proc/self/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)
    return namespace, posix.open("/", path), posix.open(".", path)


_started: Deputy | None = None


def start() -> None:
    """Start the deputy of this process."""
    global _started
    pid, _, name = posix.environ.pop(VARIABLE, b"").partition(b" ")
    _started = Deputy(int(pid), name) if name and _is_child(int(pid)) else Deputy()


def _is_child(pid: int) -> bool:
    try:
        posix.waitid(posix.P_PID, pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def started() -> Deputy | None:
    """Return this process's deputy, if it has one; a process that is sealed itself needs none."""
    return _started


def dismiss() -> None:
    """Have none any more. Idempotent."""
    global _started
    if _started is not None:
        _started.dismiss()
        _started = None
