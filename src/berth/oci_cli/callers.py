"""Who asks the zygote: declined unless it is what the zygote is; what containers inherit is taken over.

A container made for a caller must be the one that the caller itself would have made, with no right more. So
namespaces, root, privileges, labels and scheduling have to be the zygote's; streams, working directory and
limits become those of the process that serves the caller, and its environment, which hooks may have.
"""

from __future__ import annotations

import _socket
import errno
import os
import resource
import select
import sys

from berth.kernel import scheduling, sockets
from berth.oci_cli import asking
from berth.oci_cli.invocation import Declined

SO_PEERPIDFD = 77  # since Linux 6.5
# Lines of /proc/PID/status, and files and links beside it, that have to be the same.
PRIVILEGES = (
    *("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed"),
)
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
LINKS = (
    *("root", "ns/pid_for_children", "ns/time_for_children"),
    *(f"ns/{name}" for name in NAMESPACES),
)
TEXTS = ("attr/current", "loginuid", "personality")
# What a process may set for itself; the kernel shows some numbers without what it wants before them.
SETTINGS = {"oom_score_adj": "", "coredump_filter": "0x"}
CHUNK_BYTES = 1 << 16
LIMITS = range(16)  # getrlimit(2)


class Likeness:
    """What a process and its children's containers are like."""

    def __init__(self, pid: int) -> None:
        status = dict(line.partition(":")[::2] for line in _read(pid, "status").splitlines())
        self.umask = int(status.get("Umask", "022"), 8)
        self.is_filtered = status.get("Seccomp", "0").strip() != "0"
        self.fixed = [
            *(status.get(name, "").split() for name in PRIVILEGES),
            *(_link(pid, name) for name in LINKS),
            *(_read(pid, name) for name in TEXTS),
            os.sched_getscheduler(pid),
            os.getpriority(os.PRIO_PROCESS, pid),
            scheduling.ioprio_get(pid),
        ]
        self.settings = {name: prefix + _read(pid, name) for name, prefix in SETTINGS.items()}
        self.limits = [resource.prlimit(pid, limit) for limit in LIMITS]


class Caller:
    """The other end of a connection."""

    def __init__(self, connection: sockets.Socket, network: int) -> None:
        """Serve who is at ``connection``; ``network``: a namespace for its container, or -1."""
        self._connection = connection
        self.network = network
        self.arguments: list[str] = []
        self._streams: list[int] = []
        self._folder = -1
        self._changed = self._under_way = False
        self.is_in_other_groups = False  # than this process
        of = connection.getsockopt(
            _socket.SOL_SOCKET, _socket.SO_PEERCRED, asking.CREDENTIALS_BYTES
        )
        self.pid = int.from_bytes(of[: asking.FD_BYTES], sys.byteorder)

    def take_over(self, own: Likeness) -> None:
        """Take over streams, directory and limits of a caller that is otherwise like this process."""
        try:
            self._connection.send(asking.WELCOME)
            pidfd = self._connection.getsockopt(_socket.SOL_SOCKET, SO_PEERPIDFD)
            theirs = Likeness(self.pid)
            environment = _read(self.pid, "environ")
            groups = _read(self.pid, "cgroup")
            self.is_in_other_groups = groups != _read(os.getpid(), "cgroup")
            # Not before it was looked at: its number may be another's as soon as it has ended.
            # What two filters forbid cannot be compared: a process with one is like no other.
            if theirs.fixed != own.fixed or theirs.is_filtered or _has_ended(pidfd):
                raise Declined
            self._receive()
            self._adopt(theirs, own)
            _adopt_environment(environment)
        except (OSError, ValueError) as error:  # no such option yet; limits that cannot be raised
            raise Declined from error

    def _receive(self) -> None:
        data, fds = sockets.receive(self._connection)
        code, *words = data.split(b"\0")
        if code != asking.CODE or len(fds) != len(asking.STREAMS) + 1:
            raise Declined
        self.arguments = [word.decode(*asking.ENCODING) for word in words]
        *self._streams, self._folder = fds

    def _adopt(self, theirs: Likeness, own: Likeness) -> None:
        for name, value in theirs.settings.items():
            if value != own.settings[name]:
                self._changed = True
                _write(name, value)
        for limit, (mine, wanted) in enumerate(zip(own.limits, theirs.limits, strict=True)):
            if mine != wanted:
                self._changed = True
                resource.setrlimit(limit, wanted)
        os.umask(theirs.umask)
        for number, stream in enumerate(self._streams):
            os.dup2(stream, number)
            os.close(stream)
        os.fchdir(self._folder)
        os.close(self._folder)

    @property
    def leaves_nothing(self) -> bool:
        """Whether another can be served by this process, once it has let go of what it has open."""
        return not self._changed and not self._under_way

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._connection.fileno()

    def take(self) -> None:
        """Say that from here on it is done here."""
        self._under_way = True
        self._connection.send(asking.TAKEN)

    def finish(self) -> None:
        """Note that it was done, to the end."""
        self._under_way = False

    def say_starting(self) -> None:
        """Have signals passed on from now on; raises ConnectionError when the caller was killed."""
        self._connection.send(asking.STARTING)
        if not self._connection.recv(1):
            raise ConnectionResetError(errno.ECONNRESET, "the caller was killed")

    def take_signal(self) -> int:
        """Return the number of a signal that the caller got. One that was killed ends this process, too."""
        try:
            number = self._connection.recv(1)
        except ConnectionResetError:
            number = b""
        if not number:
            os._exit(1)
        return number[0]

    def answer(self, status: int | None) -> None:
        """Tell the exit code, or that it was declined."""
        try:
            self._connection.send(
                asking.DECLINED if status is None else asking.EXITED + str(status).encode()
            )
        except OSError:  # it was killed
            return


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except FileNotFoundError:  # not in this kernel
        return ""


def _read(pid: int, name: str) -> str:
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return b"".join(iter(lambda: os.read(fd, CHUNK_BYTES), b"")).decode(
                errors="surrogateescape"
            )
        finally:
            os.close(fd)
    except FileNotFoundError:  # not in this kernel
        return ""
    except OSError as error:
        if error.errno == errno.EINVAL:  # there are no labels
            return ""
        raise


def _adopt_environment(text: str) -> None:
    """Have the environment that a caller began with."""
    os.environ.clear()
    for entry in text.split("\0"):
        name, equals, value = entry.partition("=")
        if name and equals:
            os.environ[name] = value


def _write(name: str, value: str) -> None:
    fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
