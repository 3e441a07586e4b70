"""Clients of others that `tools/test-clients.sh` has put into .build/clients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.programs import find, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome
    from support.projects import Project

CLIENTS = Path(__file__).parents[3] / ".build/clients"
PROGRAMS = Path(__file__).parent / "programs"


def client(*parts: str) -> str:
    """Return the path of a client's file; skip the test where it could not be got."""
    path = CLIENTS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of tools/test-clients.sh")
    return str(path)


@pytest.fixture
def environment(engine: EngineProcess, tmp_path: Path) -> dict[str, str]:
    """The environment of a client: the engine, and a home of its own."""
    return {"DOCKER_HOST": engine.host, "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}


@pytest.fixture
def python(environment: dict[str, str]) -> Callable[..., Outcome]:
    """Run one of the programs with the clients' interpreter."""
    interpreter = client("python-environment", "bin", "python")

    def run_python(name: str, *args: str) -> Outcome:
        return run(interpreter, str(PROGRAMS / name), *args, env=environment)

    return run_python


@pytest.fixture
def node(environment: dict[str, str]) -> Callable[..., Outcome]:
    """Run a program of node's."""
    modules = client("node", "node_modules")

    def run_node(path: str, *args: str) -> Outcome:
        return run(find("node"), path, *args, env={**environment, "NODE_PATH": modules})

    return run_node


class Client:
    """The docker CLI with its plugins, in a configuration of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.env = environment
        plugins = folder / "cli-plugins"
        plugins.mkdir()
        for package, name in (("buildx", "docker-buildx"), ("debian", "docker-compose")):
            program = client(package, "usr", "libexec", "docker", "cli-plugins", name)
            (plugins / name).symlink_to(program)

    def __call__(self, *args: str, **options: object) -> Outcome:
        return run(find("docker"), *args, env=self.env, **options)  # type: ignore[arg-type]

    def build(self, project: Project, *args: str, **options: object) -> Outcome:
        """Build a project; it must go well."""
        done = self.try_to_build(project, *args, **options)
        assert done.code == 0, str(done)
        return done

    def try_to_build(self, project: Project, *args: str, **options: object) -> Outcome:
        """Build a project."""
        return self("build", "--progress=plain", *args, str(project.folder), **options)


@pytest.fixture
def docker(environment: dict[str, str], tmp_path: Path) -> Client:
    """The docker CLI with its plugins."""
    return Client(environment, tmp_path)
