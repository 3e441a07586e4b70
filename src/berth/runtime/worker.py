"""Workers: short-lived forks of the zygote that do one job, confined to one root.

A job is a function named ``module:function`` within berth; it is imported after the fork, so the
zygote stays small. It reports progress and ends with a result or an error.
"""

from __future__ import annotations

import _signal
import fcntl
import os
import select
import sys

from berth.errors import BerthError, Failed
from berth.kernel import capabilities, namespaces, processes, sockets
from berth.runtime import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.oci.runtime_spec import Capabilities
    from berth.runtime.launch import Request

# For files of any owner, with all that belongs to them but trusted.* attributes.
FILE_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
)


def serve(request: Request, host_mounts_fd: int) -> None:
    """Do the job that ``request`` names and send its outcome.

    It works in the host's mount namespace, or in the zygote's, where containers' roots can be mounted.
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    control = sockets.adopt(request.take())
    template_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(host_mounts_fd, namespaces.CLONE_NEWNS)
    os.setsid()
    processes.set_name(b"berth-worker")
    leave_with(control)

    def report(progress: Mapping[str, object]) -> None:
        sockets.send(control, codec.encode({"progress": progress}))

    outcome: dict[str, object]
    try:
        module, _, name = request.message["entry"].partition(":")
        assert module.startswith("berth.")
        __import__(module)
        function = getattr(sys.modules[module], name)
        if request.message.get("template"):
            forget_imports()
            namespaces.setns(template_fd, namespaces.CLONE_NEWNS)
        os.close(template_fd)
        outcome = {"result": function(codec.decode(request.plan), request.fds, report)}
    except BerthError as error:
        outcome = {"error": error.record()}
    except OSError as error:
        outcome = {"error": Failed(str(error)).record()}
    try:
        sockets.send(control, codec.encode(outcome))
    except BrokenPipeError:  # berthd is gone, and this job was one that is finished all the same
        return


def leave_with(control: sockets.Socket) -> None:
    """End this process as soon as the other side hangs up: nobody wants what it does any more."""
    poll = select.poll()
    poll.register(control, select.POLLIN)

    def look(number: int, frame: object) -> None:
        del number, frame
        if poll.poll(0):  # nothing is ever sent to a worker
            os._exit(1)

    _signal.signal(_signal.SIGIO, look)
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(control, fcntl.F_SETFL, fcntl.fcntl(control, fcntl.F_GETFL) | fcntl.FASYNC)
    look(0, None)


def forget_imports() -> None:
    """Import nothing any more: the paths to modules lead to what is hostile from now on."""
    sys.meta_path.clear()
    sys.path.clear()


def confine(root: str | int, *, keep_capabilities: Sequence[str] = ()) -> None:
    """Make ``root`` (a path or a directory's descriptor) the process's root and drop privileges."""
    forget_imports()
    if isinstance(root, int):
        os.fchdir(root)
    else:
        os.chdir(root)
    os.chroot(".")
    os.chdir("/")
    names = list(keep_capabilities)
    wanted: Capabilities = {"bounding": names, "effective": names, "permitted": names}
    capabilities.drop_bounding(wanted)
    capabilities.apply(wanted)
    processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)
