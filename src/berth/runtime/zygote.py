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
import json
import os
import sys
import traceback

from berth.kernel import cgroups, processes, sockets
from berth.runtime import launch, template, worker

CONTROL_FD = 3


class Warm:
    """What is opened once, before the host's mounts are left behind."""

    def __init__(self) -> None:
        self.hierarchies = cgroups.detect()
        self.null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.host_mounts_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def main(data_root: str, exec_root: str, hidden: list[str]) -> None:
    """Serve fork requests on descriptor 3 until berthd is gone."""
    control = sockets.adopt(CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    processes.close_from(CONTROL_FD + 1)  # what berthd was started with is nobody's here
    processes.set_name("berth-zygote")
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    processes.reset_hidden_signals()
    # Children are reaped by the kernel: nobody asks for their status here.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    warm = Warm()
    template.enter(data_root, exec_root, hidden)
    gc.collect()
    gc.disable()
    gc.freeze()
    sockets.send(control, b'{"event": "ready"}')
    while True:
        data, fds = sockets.receive(control)
        if not data:
            return
        request = launch.Request(json.loads(data), fds)
        _fork_for(request, control, warm)
        for fd in request.fds:
            os.close(fd)


def _fork_for(request: launch.Request, control: sockets.Socket, warm: Warm) -> None:
    """Fork what was asked for; a failure is told to berthd, or shows by the end of the job's socket."""
    planned = None
    if request.message["op"] != "job":
        planned = launch.plan(request, warm.hierarchies, warm.null_fd)
        if planned is None:
            return
    try:
        pid = os.fork()
    except OSError as error:  # no process or memory is left for now
        pid = -1
        if planned is not None:
            planned.fail(error)
    if pid == 0:
        control.close()
        _run_child(request, planned, warm)
    if planned is not None:
        planned.close()


def _run_child(request: launch.Request, planned: launch.Launch | None, warm: Warm) -> None:
    """Do what was asked for and end; a bug's traceback goes to the zygote's log."""
    status = 0
    try:
        for number in (_signal.SIGCHLD, _signal.SIGTERM, _signal.SIGHUP):
            _signal.signal(number, _signal.SIG_DFL)
        if planned is not None:
            launch.serve(planned)
        else:
            worker.serve(request, warm.host_mounts_fd)
    except BaseException:  # noqa: BLE001 - the end of this process, logged
        traceback.print_exc(file=sys.stderr)
        status = 1
    finally:
        os._exit(status)
