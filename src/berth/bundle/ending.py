"""`kill`, `delete`, `pause` and `resume`: what ends a container, and what makes it wait."""

from __future__ import annotations

import _signal
import errno
import os

from berth.bundle.status import (
    CREATED,
    CREATING,
    PAUSED,
    RUNNING,
    STOPPED,
    group,
    lives,
    state,
    status,
)
from berth.bundle.warnings import warn
from berth.errors import BerthError, Conflict, Failed, InvalidArgument, Unsupported
from berth.kernel import processes
from berth.kernel.cgroup_files import wait_until
from berth.runtime import hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.records import Folder, Record
    from berth.kernel.cgroups import Cgroup

PATIENCE_S = 10  # with a process that was killed: somebody else may have frozen it


def signal_number(text: str) -> int:
    """Return the number of "9", "KILL", "SIGKILL" or "sigkill"."""
    if text.isdecimal():
        number = int(text)
        if 0 <= number < _signal.NSIG:  # 0 only asks whether it is there
            return number
        raise InvalidArgument(f"unknown signal {text!r}")
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    found = getattr(_signal, name, None)
    if not isinstance(found, int):
        raise InvalidArgument(f"unknown signal {text!r}")
    return found


def kill(folder: Folder, record: Record, number: int, *, everyone: bool = False) -> None:
    """Send a signal to the first process, or to everyone in the container."""
    groups = group(record)
    if everyone:
        for pid in groups.pids() if groups is not None else ():
            _send(pid, number)
    elif not lives(record):
        raise Conflict("container not running")
    elif number == _signal.SIGKILL and not record.get("own_pid_namespace") and groups is not None:
        groups.kill()  # nothing ends the others when the first ends
        return
    else:
        _signal_first(record, number)
    if number == _signal.SIGKILL and groups is not None and status(folder, record) == PAUSED:
        groups.thaw()  # it dies once it goes on


def _signal_first(record: Record, number: int) -> None:
    """Signal the first process, and no other that has its number by now."""
    try:
        pidfd = os.pidfd_open(record.get("init_process_pid", 0))
    except (OSError, ValueError):
        raise Conflict("container not running") from None
    try:
        if not lives(record):
            raise Conflict("container not running")
        processes.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise Conflict("container not running") from None
    finally:
        os.close(pidfd)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def delete(folder: Folder, record: Record, *, force: bool, known: Cgroup | None = None) -> None:
    """Remove a stopped container, or with ``force`` any; then the poststop hooks run.

    ``known``: its groups, if the caller has them at hand.
    """
    now = status(folder, record)
    if not force and now not in (STOPPED, CREATING, CREATED):
        raise Conflict(f"cannot delete container {folder.id} that is not stopped: {now}")
    groups = known if known is not None and record.get("cgroup_path") else group(record)
    if now != STOPPED:
        _end(record)
    if groups is not None:
        if not record.get("own_pid_namespace"):
            groups.kill()  # otherwise all have died with the first, and who is in there is somebody else's
        _remove(groups)
    if unit := record.get("systemd_unit"):
        _stop_unit(unit)
    folder.remove()
    try:
        hooks.run(record.get("spec", {}), "poststop", state(record, STOPPED))
    except BerthError as error:  # the specification lets it be told only
        warn(str(error))


def _stop_unit(unit: str) -> None:
    from berth.bundle import systemd

    try:
        systemd.stop(unit)
    except BerthError as error:  # its groups are gone all the same
        warn(f"unit {unit} may be left: {error.message}")


def _remove(groups: Cgroup) -> None:
    try:
        groups.remove()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        warn(f"cgroup {groups.path} stays: there are processes of others in it")


def _end(record: Record) -> None:
    groups = group(record)
    try:
        _signal_first(record, _signal.SIGKILL)
    except Conflict:
        return
    if groups is not None and not record.get("own_pid_namespace"):
        groups.kill()
    elif groups is not None and groups.is_frozen():
        groups.thaw()  # it dies once it goes on
    pid = record.get("init_process_pid", 0)
    try:  # it is a child of ours within `run`
        os.waitpid(pid, 0)
    except ChildProcessError:
        if not any(wait_until(lambda: not lives(record)) for _ in range(PATIENCE_S)):
            raise Failed("container init still running") from None


def pause(folder: Folder, record: Record) -> None:
    """Stop all processes until they are resumed."""
    now = status(folder, record)
    if now not in (RUNNING, CREATED):
        raise Conflict(
            f"container not running: {now}" if now == STOPPED else "container not running"
        )
    _groups(record).freeze()


def resume(folder: Folder, record: Record) -> None:
    """Let them go on."""
    if status(folder, record) != PAUSED:
        raise Conflict("container not paused")
    _groups(record).thaw()


def _groups(record: Record) -> Cgroup:
    groups = group(record)
    if groups is None:
        raise Unsupported("the container has no cgroup of its own: there was no right to make one")
    return groups
