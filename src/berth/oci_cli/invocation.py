"""What a command gets: its flags, its arguments and where containers' folders are."""

from __future__ import annotations

import os

from berth.bundle import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.records import Folder, Record
    from berth.cli.options import Options
    from berth.oci_cli.callers import Caller
    from berth.oci_cli.log import Log

DEFAULT_ROOT = "/run/berth-oci"


class Declined(BaseException):
    """A caller of the zygote makes its container itself: here it would not be the same.

    No failure, so nothing that logs failures sees it.
    """


class Invocation:
    """One call of the command; ``caller`` is there when it came to the zygote."""

    def __init__(
        self,
        given: Options,
        own: Options,
        arguments: list[str],
        log: Log,
        caller: Caller | None = None,
    ) -> None:
        self.caller = caller
        self.given = given
        self.options = own
        self.arguments = arguments
        self.log = log
        self.root = os.path.abspath(given.text("root") or _default_root())

    @property
    def id(self) -> str:
        """The container's id, the first argument of most commands."""
        return self.arguments[0]

    def open(self) -> tuple[Folder, Record]:
        """Lock the container and read its record."""
        folder = records.Folder(self.root, self.id)
        return folder, folder.open()

    def look(self) -> tuple[Folder, Record]:
        """Read the container's record without a lock."""
        return records.peek(self.root, self.id)


def _default_root() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() and runtime:
        return f"{runtime}/berth-oci"
    return DEFAULT_ROOT
