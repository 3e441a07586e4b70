"""The beginning of the command, in an interpreter that may have to be replaced before anything else."""

from __future__ import annotations

import gc
import posix
import sys

MAKING = ("create", "run")
ENTERING = (*MAKING, "exec", "restore", "zygote")
ZYGOTE, ZYGOTE_VARIABLE = b"/run/berth-oci.sock", b"BERTH_OCI_ZYGOTE"


def start() -> None:
    """Run the command line, here or elsewhere, and end the process."""
    gc.disable()  # it ends before there is anything to collect
    words = [word for word in sys.argv if word in ENTERING]
    zygote = posix.environ.get(ZYGOTE_VARIABLE, ZYGOTE)
    if "run" in words and zygote and posix.access(zygote, posix.W_OK):
        from berth.oci_cli import asking

        asking.run(zygote, sys.argv[1:])
    from berth import pack

    pack.use()
    if words:
        _have_sealed(words)
    from berth.oci_cli.main import leave

    leave(sys.argv)


def _have_sealed(words: list[str]) -> None:
    """Have what enters a container be a sealed copy of the interpreter: a deputy, or this process itself.

    The words are among the arguments, but any of them may be a name. So only where all speak of a new
    container does this process stay what it is.
    """
    from berth import pack
    from berth.kernel import sealing

    try:
        if sealing.is_sealed():
            return
    except FileNotFoundError:
        name = posix.environ.get(b"BERTH_OCI_NAME") or b"berth-oci"
        posix.write(
            2, name + b": /proc is not mounted, and no container can be made or entered without\n"
        )
        posix._exit(1)
    if all(word in MAKING for word in words):
        from berth.bundle import deputies

        deputies.start()
        pack.preload("berth.oci_cli.lives")
        return
    program = sealing.sealed_interpreter()
    posix.execve(f"/proc/self/fd/{program}", [sys.executable, *sys.orig_argv[1:]], posix.environ)
