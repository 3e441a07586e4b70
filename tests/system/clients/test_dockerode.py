"""dockerode, on which the tools of JavaScript are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from system.clients.conftest import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.programs import Outcome


def test_streams_come_apart_and_through(node: Callable[..., Outcome]) -> None:
    done = node(str(PROGRAMS / "use_dockerode.js"))
    assert (done.code, done.out) == (0, "done\n"), str(done)
