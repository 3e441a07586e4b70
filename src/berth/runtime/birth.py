"""A process that is cloned by its monitor, now or ahead of the container that it is going to be.

A *spare* is cloned ahead: it has namespaces, groups and the kernel's file systems of a container that has
the default spec, and waits for the plan of one.
"""

from __future__ import annotations

import os

from berth.errors import Failed, from_record
from berth.kernel import cgroup_files, namespaces, processes, sockets
from berth.runtime import codec, init

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.kernel.cgroups import Cgroup

SIGKILL = 9
DIED = "start container process: it died while it was made"


class Birth:
    """What a clone takes along, and what its monitor keeps of it. ``sync`` is the monitor's end."""

    def __init__(self, cgroup: Cgroup, steps: tuple[init.Step, ...], plan: bytes = b"") -> None:
        self.cgroup = cgroup
        self.sync, theirs = sockets.pair()
        self.child = init.Child(theirs, cgroup, steps, plan)
        self.run_child = init.run
        self.pid, self.pidfd = 0, -1
        self._group: int | None = None
        self._process: namespaces.Clone | None = None

    def open(self, flags: int, *, own_group: bool, foreign: list[int]) -> None:
        """Get everything ready. ``foreign``: descriptors that the process may not keep open.

        With ``own_group`` it is born in it; an exec is not, for a container at its limit of processes still
        takes one, as in runc.
        """
        if own_group:
            self._group = self.cgroup.open_to_clone_into()
        self.child.born_in_group = self._group is not None
        self._process = namespaces.Clone(namespaces.CLONE_PIDFD | flags, cgroup_fd=self._group)
        self.child.foreign = [self.sync.fileno(), *foreign]

    def make(self) -> None:
        """Clone it. What the caller has written before is copied once more afterwards."""
        assert self._process is not None
        pid = self._process.make()
        if pid == 0:
            self.run_child(self.child)
        self.pidfd = self._process.check(pid)
        self.pid = pid
        self.release()

    def follow(self) -> None:
        """Go on with the process that it makes in its place, see `berth.runtime.remapping`."""
        data, _ = sockets.receive(self.sync)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        if not data:
            raise Failed(DIED)
        report = codec.decode(data)
        if "error" in report:
            raise from_record(report["error"])
        pid: int = report["pid"]
        self.pid, self.pidfd = pid, os.pidfd_open(pid)

    def tell(self, plan: bytes) -> None:
        """Give a spare its plan and its standard streams."""
        try:
            sockets.send(self.sync, plan, self.child.stdio)
        except BrokenPipeError:  # it was killed; that is seen where it is followed
            pass
        self.release()

    def is_gone(self) -> bool:
        """Say whether the process has ended, and reap it."""
        return os.waitpid(self.pid, os.WNOHANG)[0] != 0

    def undo(self) -> None:
        """Leave nothing of a spare; its groups, should a container have them by now, are not touched."""
        self.kill()
        for hierarchy in self.cgroup.hierarchies.found:
            cgroup_files.remove_empty(hierarchy.fd, self.cgroup.path)
        self.close()

    def release(self) -> None:
        """Close what only the process needs."""
        self.child.sync.close()
        for fd in (*self.child.stdio, self.child.pidfd, self._group):
            if fd is not None:
                os.close(fd)
        self.child.stdio, self.child.pidfd, self._group = [], None, None

    def close(self) -> None:
        """Close everything, without a word to the process."""
        self.release()
        self.sync.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def kill(self) -> None:
        """Kill the process, wherever it is on its way: entering its groups later, it would keep them."""
        try:
            if self.pid:
                processes.pidfd_send_signal(self.pidfd, SIGKILL)
                os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):  # it has ended
            return

    def discard_groups(self) -> None:
        """Remove the groups with whatever is in them."""
        try:
            self.cgroup.kill()
            self.cgroup.remove()
        except OSError:  # berthd sees what is left, at the latest when it starts again
            return
