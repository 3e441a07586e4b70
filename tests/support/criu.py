"""criu: the current one, which tools/test-clients.sh gets, or the machine's."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from support.programs import PATH, run

FETCHED = Path(__file__).parents[2] / ".build/clients/criu/bin"


@cache
def folder() -> str | None:
    """Return the folder of a criu that works with this kernel."""
    for path in (str(FETCHED / "criu"), shutil.which("criu", path=PATH)):
        if path and Path(path).exists() and run(path, "check").code == 0:
            return str(Path(path).parent)
    return None


def path() -> str:
    """Return a PATH with such a criu first; skip the test where there is none."""
    found = folder()
    if found is None:
        pytest.skip("needs a criu that works with this kernel")
    return f"{found}:{PATH}"
