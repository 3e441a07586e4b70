"""aiodocker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.programs import Outcome


def test_everything_that_is_awaited_comes(python: Callable[..., Outcome]) -> None:
    done = python("use_aiodocker.py")
    assert (done.code, done.out) == (0, "done\n"), str(done)
