"""The names of an engine on its host are one engine's at a time, and nobody else's business."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest

from berth.engine import identity
from berth.engine.instance import Instance
from berth.errors import Conflict

ROOT = Path("/nowhere/berth/identity")
INSTANCE = Instance.of(ROOT)


def test_names_are_one_engines_until_it_ends() -> None:
    held = identity.hold(INSTANCE, ROOT)
    for _ in range(20):
        with pytest.raises(Conflict, match="data root is called /nowhere/berth/identity, too"):
            identity.hold(INSTANCE, ROOT)
    held.close()
    identity.hold(INSTANCE, ROOT).close()


def test_other_names_are_free() -> None:
    with identity.hold(INSTANCE, ROOT), identity.hold(Instance.of(ROOT / "x"), ROOT / "x") as other:
        assert other.fileno() >= 0


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0berth/{INSTANCE.name[:6]}")
    return sock


@pytest.mark.root
def test_who_may_not_run_engines_keeps_none_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    with bound() as sock, caplog.at_level(logging.WARNING, "berth"):
        identity.hold(INSTANCE, ROOT).close()  # nobody answers
        os.seteuid(65534)
        try:
            sock.listen(0)
        finally:
            os.seteuid(0)
        for _ in range(4):  # at last nobody is let in any more
            identity.hold(INSTANCE, ROOT).close()
    assert caplog.text.count(f"no engine has the socket @berth/{INSTANCE.name[:6]}") == 5
