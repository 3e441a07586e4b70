"""How berth's errors look over HTTP: a status, and the document clients read the message from."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from berth import errors

if TYPE_CHECKING:
    from berth.errors import BerthError

log = logging.getLogger("berth.api")

# The first that an error is an instance of.
STATUSES: tuple[tuple[type[errors.BerthError], int], ...] = (
    (errors.NotModified, 304),
    (errors.InvalidArgument, 400),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unsupported, 501),
    (errors.Unavailable, 503),
)
OTHERS = 500  # Corrupt, Failed


def status_of(error: BerthError) -> int:
    """Return the HTTP status of an error's kind."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), OTHERS)


def document_of(error: BerthError) -> dict[str, str]:
    """Return the body of an error response: Docker's ``message``, and our ``code`` and ``hint``."""
    return error.record()


def message_of(error: BerthError) -> dict[str, object]:
    """Return the last message of a stream that failed after its response began."""
    return {
        "errorDetail": {"code": status_of(error), "message": error.message},
        "error": error.message,
    }


def unforeseen(error: Exception, request: str) -> BerthError:
    """Return what a client is told of an error that nobody expected: a full disk as such, others by an id."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"write {error.filename}: " if error.filename else ""
        return errors.Failed(f"{place}no space left on device")
    id_ = os.urandom(6).hex()
    log.error("internal error %s: %s", id_, request, exc_info=error)
    return errors.Failed(f"internal error (id {id_})")
