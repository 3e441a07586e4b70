"""The beginning of the command, in an interpreter that may have to be replaced before anything else."""

from __future__ import annotations

import gc
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ENTERING = ("create", "run", "exec", "restore", "zygote")
SEALED = "/memfd:berth"
ZYGOTE, ZYGOTE_VARIABLE = b"/run/berth-oci.sock", b"BERTH_OCI_ZYGOTE"
CHUNK_BYTES = 1 << 24


def start() -> None:
    """Run the command line, here or elsewhere, and end the process."""
    gc.disable()  # it ends before there is anything to collect
    # What enters a container must not be the machine's interpreter: the container could write to it through
    # /proc/self/exe (CVE-2019-5736). So those commands go on as a sealed copy of it, or in one.
    enters = any(word in ENTERING for word in sys.argv)
    if enters and not posix.readlink("/proc/self/exe").startswith(SEALED):
        zygote = posix.environ.get(ZYGOTE_VARIABLE, ZYGOTE)
        if "run" in sys.argv and zygote and posix.access(zygote, posix.W_OK):
            from berth.oci_cli import asking

            asking.run(zygote, sys.argv[1:])
        _go_on_sealed()
    from berth.oci_cli.main import leave

    leave(sys.argv)


def _go_on_sealed() -> NoReturn:
    from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl

    program = posix.open("/proc/self/exe", posix.O_RDONLY | posix.O_CLOEXEC)
    copy = posix.memfd_create("berth", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    while posix.sendfile(copy, program, None, CHUNK_BYTES):
        pass
    fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
    words = [sys.executable, *sys.orig_argv[1:]]
    posix.execve(f"/proc/self/fd/{copy}", words, posix.environ)
