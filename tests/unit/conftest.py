"""What tests of single modules share."""

from __future__ import annotations

import pytest

from berth.state import State


@pytest.fixture
def state(tmp_path):
    """The state database of an engine that never was."""
    found = State(tmp_path / "state.db")
    yield found
    found.close()
