"""The kinds of errors berth raises on purpose.

    BerthError
    ├── InvalidArgument           the request or spec is wrong; fix it and retry
    │   ├── MountMismatch         a directory onto a file, or a file onto a directory
    │   ├── CommandNotFound       the payload does not exist (exit code 127)
    │   └── CommandNotExecutable  the payload cannot be executed (exit code 126)
    ├── Unauthorized              a registry or the API wants other credentials
    ├── Forbidden                 it will not allow this with any
    ├── NotFound                  the named thing does not exist
    ├── Conflict                  exists already, or the status is wrong for the verb
    ├── NotModified               an idempotent verb found nothing to do
    ├── Unsupported               this kernel, driver or version cannot
    ├── Unavailable               busy, shutting down, unreachable; a retry may work
    ├── Corrupt                   stored or received bytes fail verification
    └── Failed                    the kernel refused; the cause is in the message

Kinds cross process borders and are persisted as ``{"code", "message"}``; only the edges (API, CLI)
translate them to statuses and exit codes. Anything else that is raised is a bug of ours.
"""

from __future__ import annotations


class BerthError(Exception):
    """Base of all kinds. ``str(error)`` is one line for the person at the terminal."""

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def record(self) -> dict[str, str]:
        """Return what :func:`from_record` rebuilds this error from."""
        record = {"code": self.code, "message": self.message}
        if self.hint:
            record["hint"] = self.hint
        return record


class InvalidArgument(BerthError):
    """The request or spec is wrong; fix it and retry."""

    code = "invalid-argument"


class MountMismatch(InvalidArgument):
    """A directory was to be mounted onto a file, or a file onto a directory."""

    code = "mount-mismatch"

    @classmethod
    def of(cls, source: str, target: str, why: str) -> MountMismatch:
        """Return it in Docker's words."""
        return cls(
            f'error during container init: error mounting "{source}" to rootfs at "{target}": {why}:'
            " Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified"
            " host path exists and is the expected type"
        )


class CommandNotFound(InvalidArgument):
    """The payload does not exist."""

    code = "command-not-found"


class CommandNotExecutable(InvalidArgument):
    """The payload exists and cannot be executed."""

    code = "command-not-executable"


class Unauthorized(BerthError):
    """Credentials are missing or wrong."""

    code = "unauthorized"


class Forbidden(BerthError):
    """Not allowed, whatever the credentials."""

    code = "forbidden"


class NotFound(BerthError):
    """The named thing does not exist."""

    code = "not-found"


class Conflict(BerthError):
    """The thing exists already, or its status does not allow the verb."""

    code = "conflict"


class NotModified(BerthError):
    """An idempotent verb found nothing to do."""

    code = "not-modified"


class Unsupported(BerthError):
    """This kernel, driver or version cannot do it."""

    code = "unsupported"


class Unavailable(BerthError):
    """Busy, shutting down or unreachable; a retry may work."""

    code = "unavailable"


class Corrupt(BerthError):
    """Stored or received bytes fail verification."""

    code = "corrupt"


class Failed(BerthError):
    """The kernel refused something that should have worked."""

    code = "failed"


KINDS: dict[str, type[BerthError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        MountMismatch,
        CommandNotFound,
        CommandNotExecutable,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        NotModified,
        Unsupported,
        Unavailable,
        Corrupt,
        Failed,
    )
}


def from_record(record: dict[str, str]) -> BerthError:
    """Rebuild the error that :meth:`BerthError.record` described."""
    kind = KINDS.get(record.get("code", ""), Failed)
    return kind(record.get("message", "unknown error"), hint=record.get("hint"))
