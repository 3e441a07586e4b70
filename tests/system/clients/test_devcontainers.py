"""The CLI of Dev Containers: a workspace in a container, and commands in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.programs import find
from system.clients.conftest import client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

CONFIGURATION = {
    "image": "busybox",
    "remoteUser": "alice",
    "updateRemoteUserUID": False,
    "containerEnv": {"COLOUR": "blue"},
    "mounts": ["type=volume,source=cache,target=/cache"],
    "postCreateCommand": "echo created > /tmp/created",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    folder = tmp_path / "workspace"
    (folder / ".devcontainer").mkdir(parents=True)
    (folder / ".devcontainer/devcontainer.json").write_text(json.dumps(CONFIGURATION))
    (folder / "file").write_text("source\n")
    return folder


def test_a_workspace_comes_up_and_takes_commands(
    node: Callable[..., Outcome], engine: EngineProcess, workspace: Path
) -> None:
    program = client("node", "node_modules", "@devcontainers", "cli", "devcontainer.js")
    flags = ("--docker-path", find("docker"), "--workspace-folder", str(workspace))
    up = node(program, "up", *flags)
    assert up.code == 0, str(up)
    told = json.loads(up.lines[-1])
    assert (told["outcome"], told["remoteUser"]) == ("success", "alice")
    script = "id -un; pwd; cat file /tmp/created; echo $COLOUR; ls -d /cache"
    done = node(program, "exec", *flags, "sh", "-c", script)
    assert done.code == 0, str(done)
    assert done.lines == ["alice", "/workspaces/workspace", "source", "created", "blue", "/cache"]
    engine.remove_containers()
    engine.docker("volume", "rm", "cache")
