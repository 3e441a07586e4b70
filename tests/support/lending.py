"""`berth`, with builds whose client lends what is in a directory: `secrets/ID`, and one `agent.sock`."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from berth.api.routes import builds
from berth.cli.main import leave

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from berth.api.parameters import Call
    from berth.builds.requests import BuildRequest

FOLDER = "BERTH_TEST_LENDING"


class Lent:
    """See berth.builds.offers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def secret(self, id_: str) -> bytes | None:
        path = self._folder / "secrets" / id_
        return path.read_bytes() if path.exists() else None

    async def credentials(self, server: str) -> str:
        return ""

    async def agent(self, id_: str) -> AbstractAsyncContextManager[Path] | None:
        return self._agent() if id_ == "default" else None

    @asynccontextmanager
    async def _agent(self) -> AsyncIterator[Path]:
        yield self._folder / "agent.sock"


request_of = builds.request_of


def lending(call: Call) -> BuildRequest:
    return replace(request_of(call), offers=Lent(Path(os.environ[FOLDER])))


builds.request_of = lending

if __name__ == "__main__":
    leave(sys.argv)
