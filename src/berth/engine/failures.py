"""Starts that failed: Docker's words for them, and the exit codes that inspect shows."""

from __future__ import annotations

import logging

from berth.errors import BerthError, Failed, InvalidArgument

log = logging.getLogger("berth")

CODES = {"command-not-found": 127, "command-not-executable": 126, "mount-mismatch": 127}
MISSING = ("executable file not found", "no such file or directory")
DENIED = ("permission denied", "is a directory")
DEFAULT_CODE = 128
PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed:"
    " berth create failed: unable to start container process: "
)


def exit_code(error: BerthError, default: int = DEFAULT_CODE) -> int:
    """Return the exit code of what did not start; like Docker's it depends on the words."""
    if error.code in CODES:
        return CODES[error.code]
    if any(words in error.message for words in MISSING):
        return 127
    return 126 if any(words in error.message for words in DENIED) else default


def of_start(error: BerthError | OSError | ValueError) -> BerthError:
    """Return why a container did not start as clients and its record are told."""
    if isinstance(error, BerthError):
        return error
    if not isinstance(error, OSError):
        log.error("a start failed by a mistake of ours", exc_info=error)
        return Failed(str(error))
    place = f"{error.filename}: " if error.filename else ""
    return Failed(place + (error.strerror or str(error)).lower())


def of_runtime(error: BerthError) -> BerthError:
    """Return what the runtime said as Docker says it."""
    if type(error) is InvalidArgument:  # Docker says this itself, not its runtime
        return Failed(error.message)
    return type(error)(PREFIX + error.message)
