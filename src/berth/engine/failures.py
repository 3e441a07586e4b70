"""Starts that failed: Docker's words for them, and the exit codes that inspect shows."""

from __future__ import annotations

from berth.errors import BerthError, Failed, InvalidArgument

CODES = {"command-not-found": 127, "command-not-executable": 126, "mount-mismatch": 127}
DEFAULT_CODE = 128
PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed:"
    " berth create failed: unable to start container process: "
)


def exit_code(error: BerthError) -> int:
    """Return the exit code of a container that did not start."""
    return CODES.get(error.code, DEFAULT_CODE)


def of_runtime(error: BerthError) -> BerthError:
    """Return what the runtime said as Docker says it."""
    if type(error) is InvalidArgument:  # Docker says this itself, not its runtime
        return Failed(error.message)
    return type(error)(PREFIX + error.message)
