"""The zygote: the small, single-threaded, warm process from which everything forks.

    berthd                              zygote
       │ {"op": "task" | "exec" | "job", …} + descriptors  ──► │ fork; the child answers on the
       │                                                       │ first descriptor, not the zygote
       │ (end of file)  ─────────────────────────────────────► │ leaves; its children go on

It runs a sealed copy of the interpreter, so that no container can change the one on disk through
/proc/PID/exe (CVE-2019-5736), and is not dumpable.
"""

from __future__ import annotations

import _signal
import gc
import os

from berth.kernel import cgroup_limits, cgroups, namespaces, processes, sockets
from berth.runtime import compact, imports, launch, rehearsal, template, worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from berth.oci.runtime_spec import Spec

KEPT_BYTES = 1 << 20  # of a fork's heap: what a chunk of output is written with, and more


def main(
    control_fd: int,
    data_root: str,
    exec_root: str,
    hidden: list[str],
    descriptors: int,
    default_spec: Spec,
) -> None:
    """Serve fork requests on a descriptor, the last that is open, until berthd is gone."""
    control = sockets.adopt(control_fd)
    os.set_inheritable(control_fd, False)
    processes.close_from(control_fd + 1)  # what berthd was started with is nobody's here
    processes.set_name(b"berth-zygote")
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    processes.lower_descriptor_limit(descriptors)
    processes.reset_hidden_signals()
    processes.heed_ignored_signals()
    processes.keep_freed_memory(KEPT_BYTES)
    # Children are reaped by the kernel: nobody asks for their status here.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    # A monitor inherits this: what a terminal or a shutdown sends to all must not cost a container its
    # record; its process hears such signals itself.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP))
    here = launch.Here(cgroups.detect(), default_spec)
    cgroup_limits.load_seldom()
    imports.remember(here.host_mounts_fd)
    template.enter(data_root, exec_root, hidden)
    try:
        rehearsal.rehearse(exec_root, here)
    except Exception as error:  # noqa: BLE001 - then forks copy more; nothing else depends on it
        _tell_bug(error)
    compact.make_first_instances()
    gc.collect()
    gc.disable()
    gc.freeze()
    compact.fill_holes()
    sockets.send(control, b'{"event": "ready"}')
    fork = namespaces.Clone()
    while True:
        data, fds = sockets.receive(control)
        if not data:
            return
        request = launch.Request(data, fds)
        if request.message["op"] == "job":
            _fork_worker(request, control, here)
            continue
        asked_on = sockets.adopt(request.take())
        if planned := launch.plan(request, asked_on, control.fileno(), here):
            _fork_monitor(planned, fork)


def _fork_monitor(planned: launch.Launch, fork: namespaces.Clone) -> None:
    """Fork the monitor of what was planned. A failure is told to berthd."""
    pid = fork.make()
    if pid == 0:
        _end_with(lambda: launch.serve(planned))
    try:
        fork.check(pid)
    except OSError as error:  # no process or memory is left for now
        planned.fail(error)
    planned.close()


def _fork_worker(request: launch.Request, control: sockets.Socket, here: launch.Here) -> None:
    """Fork a worker. A failure shows by the end of its socket."""
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid == 0:
        control.close()
        _end_with(lambda: worker.serve(request, here.host_mounts_fd))
    request.close()


def _end_with(act: Callable[[], None]) -> NoReturn:
    """Do what this fork is for and end; a bug's traceback goes to the zygote's log."""
    status = 0
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - the end of this process, logged
        _tell_bug(error)
        status = 1
    finally:
        os._exit(status)


def _tell_bug(error: BaseException) -> None:
    """Write a traceback without lines of code to the log.

    The interpreter's own reads them from files of the root that a fork has by then, which may be hostile, and
    imports the codec that such a file asks for.
    """
    if earlier := error.__cause__ or error.__context__:
        _tell_bug(earlier)
    lines = ["Traceback (most recent call last):"]
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    text = "\n".join([*lines, f"{type(error).__name__}: {error}\n"])
    os.write(2, text.encode(errors="backslashreplace"))
