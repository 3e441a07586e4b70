"""Clients of every age: what the docker CLI and docker-py say when they speak an older version of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker
import pytest

if TYPE_CHECKING:
    from support.engine import EngineProcess

VERSIONS = ("1.24", "1.40", "1.44", "1.56")


@pytest.mark.berth_only  # 20.10 ends at 1.41
@pytest.mark.parametrize("version", VERSIONS)
def test_docker_py_of_any_version_works(engine: EngineProcess, version: str) -> None:
    client = docker.DockerClient(base_url=engine.host, version=version)
    try:
        assert client.ping()
        assert client.version()["ApiVersion"] == "1.56"
        assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
        container = client.containers.run(
            "busybox", "sleep 600", name="aged", detach=True, ports={"80/tcp": ("127.0.0.1", None)}
        )
        assert container.exec_run("sh -c 'echo out; exit 4'") == (4, b"out\n")
        container.reload()
        assert container.status == "running"
        assert container.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
        assert [found.name for found in client.containers.list()] == ["aged"]
        assert container.top()["Processes"]
        stats = next(container.stats(stream=True, decode=True))
        assert stats["pids_stats"]["current"] == 1
        bits, stat = container.get_archive("/etc/passwd")
        assert stat["name"] == "passwd"
        assert b"root" in b"".join(bits)
        container.kill()
        assert container.wait()["StatusCode"] == 137
        container.remove()
        image = client.images.get("busybox")
        assert "busybox:latest" in image.tags
        assert [found.id for found in client.images.list("busybox")] == [image.id]
        sizes = image.attrs.get("VirtualSize"), client.images.list()[0].attrs.get("VirtualSize")
        assert all(sizes) == (version < "1.44")  # it was called so before
        network = client.networks.create("aged-network", driver="bridge")
        network.remove()
        volume = client.volumes.create("aged-volume")
        volume.remove()
    finally:
        client.close()


@pytest.mark.berth_only
@pytest.mark.parametrize("version", VERSIONS)
def test_the_docker_cli_of_any_version_works(engine: EngineProcess, version: str) -> None:
    def cli(*words: str) -> str:
        done = engine.docker(*words, env={"DOCKER_API_VERSION": version})
        assert done.code == 0, str(done)
        return done.out

    spoken, served = cli("version", "-f", "{{.Client.APIVersion}} {{.Server.APIVersion}}").split()
    assert (spoken, served) == (version, "1.56")
    assert cli("run", "--rm", "--network", "none", "busybox", "echo", "hello") == "hello\n"
    cli("run", "-d", "--name", "aged", "busybox", "sleep", "600")
    assert cli("exec", "aged", "echo", "in") == "in\n"
    assert cli("ps", "--format", "{{.Names}} {{.State}}") == "aged running\n"
    assert cli("inspect", "-f", "{{.Name}} {{.State.Status}}", "aged") == "/aged running\n"
    assert "busybox" in cli("images")
    assert cli("commit", "aged", "aged:1").startswith("sha256:")
    cli("rmi", "aged:1")
    assert cli("rm", "-f", "aged") == "aged\n"


@pytest.mark.berth_only
@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("1.57", "client version 1.57 is too new. Maximum supported API version is 1.56"),
    ],
)
def test_clients_out_of_range_are_told_so(
    engine: EngineProcess, version: str, complaint: str
) -> None:
    done = engine.docker("ps", env={"DOCKER_API_VERSION": version})
    assert done.code == 1
    assert complaint in done.err
    if version == "1.23":  # docker-py itself does not go so far back
        return
    client = docker.APIClient(base_url=engine.host, version=version)
    with pytest.raises(docker.errors.APIError, match=complaint.replace(".", r"\.")) as raised:
        client.containers()
    assert raised.value.status_code == 400
    client.close()


def test_a_client_that_asks_first_speaks_the_newest_that_both_know(engine: EngineProcess) -> None:
    client = docker.APIClient(base_url=engine.host, version="auto")
    told = client.version()
    assert told["ApiVersion"] == client.api_version
    client.close()
    words = ("version", "-f", "{{.Client.APIVersion}} {{.Server.APIVersion}}")
    both = engine.docker(*words).out
    spoken, served = ([*map(int, text.split("."))] for text in both.split())
    assert spoken <= served
