"""`docker build` with buildx installed, and `docker buildx`: BuildKit's protocol as its own client has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.programs import find, run
from support.projects import Project
from system.clients.conftest import client
from system.test_builds import clear_images, remains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome


@pytest.fixture
def docker(environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """The docker CLI with its plugin."""
    plugins = tmp_path / "cli-plugins"
    plugins.mkdir()
    program = client("buildx", "usr", "libexec", "docker", "cli-plugins", "docker-buildx")
    (plugins / "docker-buildx").symlink_to(program)

    def docker(*args: str, **options: object) -> Outcome:
        env = {**environment, **options.pop("env", {})}  # type: ignore[dict-item]
        return run(find("docker"), *args, env=env, **options)  # type: ignore[arg-type]

    return docker


@pytest.fixture
def project(engine: EngineProcess, tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "context"
    folder.mkdir()
    yield Project(folder, engine)
    clear_images(engine)
    assert not remains(engine)


def test_a_project_is_built_and_runs(project: Project, docker: Callable[..., Outcome]) -> None:
    project.write("FROM busybox\nCOPY . /app\nRUN echo built > /app/made\n", note="noted\n")
    project.file("sub/file", "below\n")
    done = docker("build", "--progress=plain", "-t", "example:one", str(project.folder))
    assert done.code == 0, str(done)
    assert "[internal] load build definition from Dockerfile" in done.err
    assert "[2/3] COPY . /app" in done.err
    assert "[3/3] RUN echo built > /app/made" in done.err
    assert project.run("example:one", "cd /app; cat note sub/file made") == "noted\nbelow\nbuilt\n"


def test_steps_that_were_done_are_cached(project: Project, docker: Callable[..., Outcome]) -> None:
    project.write("FROM busybox\nCOPY note /\nRUN cat /note\n", note="noted\n")
    for _ in range(2):
        done = docker("build", "--progress=plain", str(project.folder))
        assert done.code == 0, str(done)
    assert done.err.count(" CACHED\n") == 2
