"""What a command gets: its options, its arguments and the way to the engine."""

from __future__ import annotations

import sys

from berth.client import startup
from berth.client.connection import Connection
from berth.errors import BerthError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.cli.options import Options
    from berth.client.address import Address


class Call:
    """One invocation of a command."""

    def __init__(
        self, name: str, options: Options, arguments: list[str], address: Address | None
    ) -> None:
        self.name = name
        self.options = options
        self.arguments = arguments
        self.address = address
        self._engine: Connection | None = None

    @property
    def engine(self) -> Connection:
        """The connection for plain requests; the first use opens it."""
        if self._engine is None:
            self._engine = startup.connect(self.address)
        return self._engine

    def another(self) -> Connection:
        """Return a further connection to the same engine, for a request that lasts."""
        connection = Connection(self.engine.address)
        connection.open()
        return connection

    def each(self, act: Callable[[str], str], *, force: bool = False) -> int:
        """Do something for every argument and print what comes back; go on after errors, then return 1.

        With ``force`` a thing that does not exist is told, but no failure.
        """
        failed = self.failures(act, force=force)
        return 1 if failed else 0

    def failures(self, act: Callable[[str], str], *, force: bool = False) -> list[str]:
        """Do the same, and return the arguments for which it failed."""
        failed = []
        for argument in self.arguments:
            try:
                if answer := act(argument):
                    print(answer, flush=True)
            except BerthError as error:
                report(error)
                if not (force and isinstance(error, NotFound)):
                    failed.append(argument)
        return failed


def report(error: BerthError, *, prefix: str = "berth: ") -> None:
    """Say an error, and the remedy when there is one, on stderr."""
    sys.stdout.flush()
    print(f"{prefix}{error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
