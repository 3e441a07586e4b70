"""`docker compose build` and `up --build`, with the classic builder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.programs import run
from system.clients.conftest import client

if TYPE_CHECKING:
    from pathlib import Path

    from support.engine import EngineProcess

COMPOSE = """
name: built
services:
  app:
    network_mode: none
    build:
      context: .
      target: final
      args: {WHO: compose}
"""
# What has ended before Compose listens for its end, it waits for for ever: it asks while the service starts.
DOCKERFILE = """
FROM busybox AS base
ARG WHO
RUN echo "for $WHO" > /made
FROM base AS final
COPY note /note
CMD cat /made /note; sleep 2
FROM base
RUN exit 1
"""


def test_a_service_is_built_and_comes_up(
    environment: dict[str, str], engine: EngineProcess, tmp_path: Path
) -> None:
    program = client("debian", "usr", "libexec", "docker", "cli-plugins", "docker-compose")
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in (("compose.yaml", COMPOSE), ("Dockerfile", DOCKERFILE), ("note", "noted\n")):
        (folder / name).write_text(text)
    env = {**environment, "DOCKER_BUILDKIT": "0"}

    def compose(*args: str) -> str:
        done = run(program, "-f", str(folder / "compose.yaml"), *args, env=env)
        assert done.code == 0, str(done)
        return done.out

    try:
        assert "Successfully tagged built-app:latest" in compose("build")
        (folder / "note").write_text("changed\n")
        compose("up", "--build")
        assert compose("logs", "--no-log-prefix", "app") == "for compose\nchanged\n"
    finally:
        compose("down", "--rmi", "all")
    _, images = engine.request("GET", "/images/json")
    assert isinstance(images, list)
    assert not [image for image in images if "built-app:latest" in image["RepoTags"]]
