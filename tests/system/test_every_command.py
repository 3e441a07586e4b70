"""Every command that the docker CLI has: those of a swarm and of plugins, contexts, and the long forms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.programs import find, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

NO_MANAGER = "This node is not a swarm manager."
NO_MEMBER = "This node is not part of a swarm"
NO_SWARM = "this engine has no swarm mode"
NO_PLUGIN = 'plugin "x" not found'
# What an engine says that has neither a swarm nor plugins.
REFUSED = [
    *((line, NO_MANAGER) for line in (
        "config create x FILE", "config ls", "config inspect x", "config rm x", "node ls", "node inspect x",
        "node ps", "node rm x", "node demote x", "node promote x", "node update --role worker x",
        "secret create x FILE", "secret ls", "secret inspect x", "secret rm x", "service create busybox",
        "service inspect x", "service logs x", "service ls", "service ps x", "service rm x",
        "service rollback x", "service scale x=2", "service update x", "stack ls", "stack ps x",
        "stack rm x", "stack services x", "stack deploy -c STACK x", "swarm ca", "swarm join-token worker",
        "swarm unlock-key", "swarm update --autolock", "network create -d overlay x",
    )),
    ("network create --scope swarm x", "cannot create a swarm scoped network when swarm is not active"),
    ("network create --ingress x", "Ingress network can only be global scope network"),
    ("swarm leave", NO_MEMBER),
    ("swarm unlock", NO_MEMBER),
    ("swarm init", NO_SWARM),
    ("swarm join --token x 127.0.0.1:2377", NO_SWARM),
    *((f"plugin {verb} x", NO_PLUGIN) for verb in ("inspect", "rm", "enable", "disable", "upgrade")),
    ("plugin set x a=b", NO_PLUGIN),
    ("plugin push x", 'plugin "x:latest" not found'),
    ("plugin install --grant-all-permissions x", "this engine has no managed plugins"),
    ("plugin create x FOLDER", "this engine has no managed plugins"),
    ("volume update x", "no such volume"),
]  # fmt: skip
# Long forms of commands that the other tests give in the short one, in the order of a life.
LONG = """
image import TAR long:1
image tag long:1 long:2
image ls -q long
image history -q long:1
image inspect -f {{.Id}} long:1
image save -o SAVED long:1
image load -i SAVED
container run -d --name long --network none long:1 sleep 600
container ls -q
container exec long true
container top long
container stats --no-stream long
container port long
container logs long
container cp FILE long:/tmp
container diff long
container export -o EXPORTED long
container pause long
container unpause long
container update --memory 64m --memory-swap 128m long
container rename long longer
container restart -t 0 longer
container commit longer long:3
container stop -t 0 longer
container start longer
container kill longer
container wait longer
container inspect -f {{.Id}} longer
container create --name last --network none long:1 true
container start -a last
container rm longer last
container ls -a
image rm long:1 long:2 long:3
system info
system events --since 1 --until 2
system df
system dial-stdio
"""
# They ask a registry of signatures or a registry, no engine, or are tried where they are tested.
ELSEWHERE = {
    *("trust key", "trust signer", "trust inspect", "trust revoke", "trust sign"),
    *("manifest create", "manifest annotate", "manifest inspect", "manifest push", "manifest rm"),
    *("checkpoint create", "checkpoint ls", "checkpoint rm", "builder build", "builder prune"),
    *("image build", "image prune", "image pull", "image push", "container attach"),
    *("container prune", "system prune", "plugin ls"),
    *(f"network {verb}" for verb in ("connect", "disconnect", "inspect", "ls", "prune", "rm")),
    *(f"volume {verb}" for verb in ("create", "inspect", "ls", "prune", "rm")),
    *(f"context {verb}" for verb in ("create", "export", "import", "inspect", "ls", "rm")),
    *("context show", "context update", "context use", "network create", "stack config"),
}


@pytest.fixture
def files(tmp_path: Path, busybox_tar: bytes) -> dict[str, str]:
    """Files that commands take, and places for those that they make, by the word for them."""
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "stack.yaml").write_text("version: '3'\nservices: {web: {image: busybox}}\n")
    (tmp_path / "root.tar").write_bytes(busybox_tar)
    plugin = tmp_path / "plugin"
    (plugin / "rootfs").mkdir(parents=True)
    (plugin / "config.json").write_text("{}")
    names = {"FILE": "file", "STACK": "stack.yaml", "TAR": "root.tar", "FOLDER": "plugin"}
    names |= {"SAVED": "saved.tar", "EXPORTED": "exported.tar"}
    return {word: str(tmp_path / name) for word, name in names.items()}


def words(line: str, files: dict[str, str]) -> list[str]:
    return [files.get(word, word) for word in line.split()]


def commands(*group: str) -> Iterator[tuple[str, ...]]:
    """Return what a group of commands has, as the CLI itself lists it."""
    shown = run(find("docker"), *group, "--help").out
    for block in re.findall(r"^(?:[A-Z]\w+ )?Commands:\n((?: .*\n)+)", shown, re.MULTILINE):
        for name in re.findall(r"^  ([a-z-]+)", block, re.MULTILINE):
            yield (*group, name)


def test_no_command_is_left_out() -> None:
    groups = [group for group in commands() if any(commands(*group))]
    known = {command for group in groups for command in map(" ".join, commands(*group))}
    tried = [line for line, _ in REFUSED] + LONG.splitlines()
    assert known - {" ".join(line.split()[:2]) for line in tried} - ELSEWHERE == set()


@pytest.mark.berth_only
@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_needs_a_swarm_or_plugins_is_refused_as_docker_does(
    session_engine: EngineProcess, files: dict[str, str], line: str, said: str
) -> None:
    done = session_engine.docker(*words(line, files), stdin=b"SWMKEY\n")
    assert done.code == 1, str(done)
    assert said.lower() in done.err.lower()


def test_there_are_no_plugins(docker_cli: Cli) -> None:
    assert docker_cli("plugin", "ls", "-q").raw == b""


def test_commands_have_long_forms(docker_cli: Cli, files: dict[str, str]) -> None:
    for line in LONG.strip().splitlines():
        done = docker_cli(*words(line, files), stdin=b"")
        assert done.code == 0, str(done)


def test_contexts_lead_to_engines(engine: EngineProcess, tmp_path: Path) -> None:
    def docker(*args: str) -> Outcome:
        environment = {"DOCKER_CONFIG": str(tmp_path / "config"), "DOCKER_HOST": ""}
        return run(find("docker"), *args, env=environment, cwd=tmp_path)

    assert docker("context", "create", "ours", "--docker", f"host={engine.host}").code == 0
    name = ("info", "--format", "{{.ID}}")
    ours = engine.docker(*name).out
    assert docker("--context", "ours", *name).out == ours
    assert docker("context", "use", "ours").code == 0
    assert docker("context", "show").out == "ours\n"
    assert docker("run", "--rm", "--network", "none", "busybox", "echo", "by it").out == "by it\n"
    assert docker("context", "export", "ours", "exported").code == 0
    assert docker("context", "import", "again", "exported").code == 0
    assert docker("context", "update", "again", "--description", "same").code == 0
    assert docker("--context", "again", *name).out == ours
    assert docker("context", "ls", "-q").lines == ["again", "default", "ours"]
    assert engine.host in docker("context", "inspect", "again").out
    assert docker("context", "rm", "-f", "ours", "again").code == 0
