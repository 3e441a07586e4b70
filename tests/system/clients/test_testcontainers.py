"""Testcontainers for Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from support.engine import EngineProcess
    from support.programs import Outcome


def test_containers_of_a_test_suite_come_and_go(
    python: Callable[..., Outcome], engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its reaper is an image of a registry's, which there is none of here.
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    done = python("use_testcontainers.py")
    assert done.code == 0, str(done)
    assert engine.request("GET", f"/containers/{done.out.strip()}/json")[0] == 404
