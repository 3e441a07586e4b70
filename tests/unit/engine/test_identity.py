"""The names of an engine on its host are one engine's at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from berth.engine import identity
from berth.engine.instance import Instance
from berth.errors import Conflict

ROOT = Path("/nowhere/berth/identity")
INSTANCE = Instance.of(ROOT)


def test_names_are_one_engines_until_it_ends() -> None:
    held = identity.hold(INSTANCE, ROOT)
    with pytest.raises(Conflict, match="data root is called /nowhere/berth/identity, too"):
        identity.hold(INSTANCE, ROOT)
    held.close()
    identity.hold(INSTANCE, ROOT).close()


def test_other_names_are_free() -> None:
    with identity.hold(INSTANCE, ROOT), identity.hold(Instance.of(ROOT / "x"), ROOT / "x") as other:
        assert other.fileno() >= 0
