"""Ansible's collection for Docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.programs import run
from system.clients.conftest import PROGRAMS, client

if TYPE_CHECKING:
    from support.engine import EngineProcess


def test_a_playbook_makes_things_once_and_removes_them(
    environment: dict[str, str], engine: EngineProcess
) -> None:
    folder = client("python-environment", "bin")
    env = {
        **environment,
        "ANSIBLE_COLLECTIONS_PATH": client("python", "collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "LC_ALL": "C.UTF-8",
    }
    done = run(
        *(f"{folder}/ansible-playbook", "-i", "localhost,", "-c", "local"),
        *("-e", f"interpreter={folder}/python", str(PROGRAMS / "playbook.yaml")),
        env=env,
    )
    assert done.code == 0, str(done)
    assert "failed=0" in done.out
    assert engine.docker("ps", "-aq").out == ""
