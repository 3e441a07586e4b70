"""`berth-oci zygote`: a warm process whose forks run the containers of later calls of `run`.

caller (cold, small)                        worker (forked before it is needed, waits for a caller)
   │── connects ──────────────────────────────►│ looks at who asks
   │◄── welcome ───────────────────────────────│ nothing is sent to one that somebody has stopped
   │── command line, streams, cwd ────────────►│
   │◄── declined ──────────────────────────────│ nothing was made: the caller does it itself
   │◄── taken ─────────────────────────────────│ from here on it is `berth-oci run`, with the caller's streams
   │◄── starting, ── ready ───────────────────►│ the container is made; the caller passes its signals on
   │── signal ────────────────────────────────►│
   │◄── exited ────────────────────────────────│ the container is deleted

worker                                      zygote
   │── taken ─────────────────────────────────►│ forks another unless one waits
   │── free ──────────────────────────────────►│ after a run that left nothing to be undone
   │◄── stay + the listening socket, or nothing│ at most two wait, and only they have the socket

The caller's end of file is its death, and the worker ends as the caller would have: at once. A container that
was not started then is removed; one that was goes on. Workers that wait end with the zygote, others go on.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import gc
import os
import select
import stat
import sys

from berth.bundle import descriptors, networks
from berth.errors import Conflict, Failed, Unsupported
from berth.kernel import processes, sockets
from berth.oci_cli import asking, callers, commands, main, start
from berth.oci_cli.invocation import Declined
from berth.runtime import compact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from berth.oci_cli.invocation import Invocation

BACKLOG = 128
KILL = 9
MOST_WAITING = 2
# What `run` loads when it is wanted, and a worker has.
WARM = (
    "berth.bundle.birth",
    "berth.bundle.mounting",
    "berth.kernel.cgroup_limits",
    "berth.runtime.seccomp.compiler",
)
MOST_LOST = 8
TAKEN, FREE, STAY = b"t", b"f", b"s"
ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


def do_zygote(call: Invocation) -> int:
    """Fork workers until a signal ends it."""
    if os.geteuid():
        raise Unsupported("the zygote serves root's calls only, and has to be root's")
    path = os.path.abspath(os.fsdecode(os.environb.get(start.ZYGOTE_VARIABLE) or start.ZYGOTE))
    listener = _listen(path)
    os.chdir("/")
    os.environ.clear()  # of whoever started it
    leave_streams()
    processes.set_name(b"berth-zygote")
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # nobody asks for the workers' status
    for number in ENDING:
        _signal.signal(number, lambda *_: _leave(path))
    commands.COMMANDS["run"].load("run")  # imported once for all
    for name in WARM:
        __import__(name)
    call.log.debug(f"listening on {path}")
    own = callers.Likeness(os.getpid())
    gc.collect()
    gc.freeze()
    compact.fill_holes()
    Zygote(listener, own).serve()


def leave_streams() -> None:
    """Let go of input and output; complaints still have where to go."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for stream in (0, 1):
        os.dup2(null, stream)
    os.close(null)


def _listen(path: str) -> sockets.Socket:
    """Listen there, also where one was killed before."""
    listener = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    previous = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _remove_stale(path)
        listener.bind(path)
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Conflict(f"{path} is there already, and is no socket")
    attempt = sockets.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        attempt.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    else:
        raise Conflict(f"a zygote listens on {path} already")
    finally:
        attempt.close()


def _leave(path: str) -> NoReturn:
    os.unlink(path)
    os._exit(0)


class Zygote:
    """Keeps workers waiting for callers."""

    def __init__(self, listener: sockets.Socket, own: callers.Likeness) -> None:
        self._listener = listener
        self._own = own
        self._workers: dict[int, sockets.Socket] = {}
        self._waiting: set[int] = set()
        self._poll = select.poll()
        self._lost = 0  # workers that ended while they waited, since one was taken

    def serve(self) -> NoReturn:
        """Do so until a signal ends it."""
        while True:
            if not self._waiting:
                self._fork()
            for fd, _ in self._poll.poll():
                self._hear(fd)

    def _fork(self) -> None:
        ours, theirs = sockets.pair()
        zygote = os.getpid()
        if os.fork() == 0:
            try:
                for other in (ours, *self._workers.values()):
                    other.close()
                Worker(theirs, self._listener, self._own).serve(zygote)
            except BaseException as error:  # noqa: BLE001 - the end of this process
                sys.excepthook(type(error), error, error.__traceback__)
            os._exit(1)
        theirs.close()
        fd = ours.fileno()
        self._workers[fd] = ours
        self._waiting.add(fd)
        self._poll.register(fd, select.POLLIN)

    def _hear(self, fd: int) -> None:
        try:
            word = self._workers[fd].recv(1)
            if word == FREE and len(self._waiting) < MOST_WAITING:
                sockets.send(self._workers[fd], STAY, [self._listener.fileno()])
                self._waiting.add(fd)
                return
        except OSError:  # it was killed
            word = b""
        if word == TAKEN:
            self._waiting.remove(fd)
            self._lost = 0
            return
        if fd in self._waiting:
            self._waiting.remove(fd)
            self._lost += 1
            if self._lost > MOST_LOST:
                raise Failed("workers that wait for callers end, one after the other")
        self._poll.unregister(fd)
        self._workers.pop(fd).close()


def _make_network() -> int:
    """Make the network of the next container while nobody waits for it; -1 where that is not possible."""
    try:
        return networks.make()
    except OSError:
        return -1


class Worker:
    """Serves one caller after the other."""

    def __init__(
        self, zygote: sockets.Socket, listener: sockets.Socket, own: callers.Likeness
    ) -> None:
        self._zygote = zygote
        self._listener = listener
        self._own = own
        self._complaints = os.dup(2)

    def serve(self, parent: int) -> NoReturn:
        """Do so while it is wanted."""
        for number in (*ENDING, _signal.SIGCHLD):
            _signal.signal(number, _signal.SIG_DFL)
        os.setsid()
        processes.set_name(b"berth-worker")
        while True:
            processes.prctl(processes.PR_SET_PDEATHSIG, KILL)
            if os.getppid() != parent:
                os._exit(0)
            network = _make_network()
            connection, _ = self._listener._accept()  # type: ignore[attr-defined]  # typeshed leaves it out
            self._listener.close()
            self._zygote.send(TAKEN)
            processes.prctl(processes.PR_SET_PDEATHSIG, 0)
            if (
                not self._serve(callers.Caller(sockets.adopt(connection), network))
                or not self._may_stay()
            ):
                os._exit(0)

    def _serve(self, caller: callers.Caller) -> bool:
        """Do what a caller asks; say whether nothing of it is left in this process."""
        try:
            caller.take_over(self._own)
            status: int | None = main.main(caller.arguments, caller)
        except Declined:
            status = None
        sys.stdout.flush()
        caller.answer(status)
        return caller.leaves_nothing

    def _may_stay(self) -> bool:
        """Let go of everything of the last caller's; ask the zygote whether to wait for another."""
        for number in asking.PASSED_ON:
            _signal.signal(number, _signal.SIG_DFL)
        leave_streams()
        os.dup2(self._complaints, 2)
        os.chdir("/")
        gc.collect()
        descriptors.close_all_but([self._zygote.fileno(), self._complaints])
        self._zygote.send(FREE)
        word, fds = sockets.receive(self._zygote)
        if word != STAY:
            return False
        self._listener = sockets.adopt(fds[0])
        return True
