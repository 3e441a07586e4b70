"""`docker build` with buildx installed, and `docker buildx`: BuildKit's protocol as its own client has it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.programs import find, run
from support.projects import Project, everything, remains
from support.registries import PASSWORD, USER, Registry
from support.repositories import Web, Work, basic
from support.servers import Folder
from support.waiting import wait_for
from system.clients.conftest import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome


def test_a_project_is_built_and_runs(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nCOPY . /app\nRUN echo built > /app/made\n", note="noted\n")
    project.file("sub/file", "below\n")
    done = docker.build(project, "-t", "example:one", "-t", "example:two")
    assert "[internal] load build definition from Dockerfile" in done.err
    assert "[2/3] COPY . /app" in done.err
    assert "[3/3] RUN echo built > /app/made" in done.err
    assert "naming to docker.io/library/example:two done" in done.err
    assert project.run("example:two", "cd /app; cat note sub/file made") == "noted\nbelow\nbuilt\n"


def test_steps_that_were_done_are_cached(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nCOPY note /\nRUN cat /note\n", note="noted\n")
    assert docker.build(project).err.count(" CACHED\n") == 0
    assert docker.build(project).err.count(" CACHED\n") == 2
    assert docker.build(project, "--no-cache").err.count(" CACHED\n") == 0


def test_arguments_targets_and_labels(project: Project, docker: Client) -> None:
    project.write(
        "ARG TAG=none\nFROM busybox:$TAG AS one\nARG WHO\nRUN echo $WHO > /who\n"
        "FROM one AS two\nRUN exit 1\n"
    )
    flags = ("--build-arg", "TAG=latest", "--build-arg", "WHO=me", "--label", "a=b c")
    done = docker.build(project, "--target", "one", *flags, "-t", "argued")
    assert "[one 2/2] RUN echo $WHO > /who" in done.err
    assert project.run("argued", "cat /who") == "me\n"
    assert project.inspect("argued")["Config"]["Labels"]["a"] == "b c"  # type: ignore[index]


def test_a_failing_command_is_shown_with_its_code(project: Project, docker: Client) -> None:
    project.write('FROM busybox\nRUN echo "why" >&2; exit 3\n')
    done = docker.try_to_build(project)
    assert done.code == 1
    assert (
        'process "/bin/sh -c echo \\"why\\" >&2; exit 3" did not complete successfully: exit code: 3'
        in done.err
    )
    assert " why\n" in done.err


@pytest.mark.parametrize(
    ("dockerfile", "why"),
    [
        ("FROM busybox\nFOO\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM busybox\nCOPY none /\n", "COPY failed: file not found in build context"),
        ("# syntax=me/mine:1\nFROM busybox\n", "frontend me/mine:1 is not run"),
    ],
)
def test_what_is_wrong_is_said(project: Project, docker: Client, dockerfile: str, why: str) -> None:
    project.write(dockerfile)
    done = docker.try_to_build(project)
    assert done.code == 1
    assert why in done.err


def test_a_dockerfile_that_is_not_there_is_named(project: Project, docker: Client) -> None:
    project.file("file", "")
    done = docker.try_to_build(project, "-f", str(project.folder / "Missing"))
    assert done.code == 1
    assert "failed to read dockerfile: open Missing: no such file or directory" in done.err


def test_dockers_own_syntax_is_ours(project: Project, docker: Client) -> None:
    project.write("# syntax=docker/dockerfile:1.7\nFROM busybox\nRUN true\n")
    assert docker.build(project, "--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1").code == 0
    done = docker.try_to_build(project, "--build-arg", "BUILDKIT_SYNTAX=me/mine")
    assert "frontend me/mine is not run" in done.err


def test_what_dockerignore_names_is_not_sent(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nCOPY . /got\n")
    for name in ("a.log", "keep.log", "deep/b.log", "deep/er/c.txt", "out/x", "d.txt", "um läut"):
        project.file(name, name)
    project.file(".dockerignore", "**/*.log\n!keep.log\nout\num läut\n.dockerignore\nDockerfile\n")
    docker.build(project, "-t", "ignoring")
    found = project.run("ignoring", "cd /got; find . -type f | sort").split()
    assert found == ["./d.txt", "./deep/er/c.txt", "./keep.log"]
    project.file("Dockerfile.dockerignore", "deep\n*.log\n")
    docker.build(project, "-t", "ignoring")
    assert "deep" not in project.run("ignoring", "ls /got").split()


def test_files_come_as_they_are(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nCOPY . /got\n")
    os.symlink("../elsewhere", project.folder / "link")
    os.mkfifo(project.folder / "pipe")
    project.file("a/one", "x" * 3_000_000, mode=0o4755)
    os.link(project.folder / "a/one", project.folder / "b")
    os.mkdir(project.folder / "empty", 0o700)
    for number in range(300):
        project.file(f"many/{number}", str(number))
    docker.build(project, "-t", "exact")
    script = (
        "cd /got; readlink link; test -p pipe && echo pipe; stat -c '%a %s %h' a/one b; "
        "stat -c %a empty; ls many | wc -l; cat many/299"
    )
    assert project.run("exact", script).split("\n") == [
        *("../elsewhere", "pipe", "4755 3000000 2", "4755 3000000 2", "700", "300", "299"),
    ]


def test_a_context_that_nothing_is_copied_from_is_not_sent(
    project: Project, docker: Client
) -> None:
    project.write("FROM busybox\nRUN true\n", file="x")
    assert "load build context" not in docker.build(project).err


def test_dockerfiles_and_contexts_come_by_standard_input(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nCOPY note /note\n", note="noted\n")
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(project.folder, ".")
    assert docker("build", "-t", "piped", "-", stdin=body.getvalue()).code == 0
    assert project.run("piped", "cat /note") == "noted\n"
    dockerfile = b"FROM busybox\nCOPY note /other\n"
    assert docker.build(project, "-t", "piped", "-f", "-", stdin=dockerfile).code == 0
    assert project.run("piped", "cat /other") == "noted\n"
    assert docker("build", "-t", "piped", "-", stdin=b"FROM busybox\nRUN echo > /made").code == 0
    assert project.run("piped", "ls /made") == "/made\n"


def test_files_are_exported(project: Project, docker: Client, tmp_path: Path) -> None:
    project.write(
        "FROM busybox AS made\nRUN mkdir -p /out/in; echo x > /out/in/file; ln -s in/file /out/link;"
        " ln /out/in/file /out/hard; dd if=/dev/zero of=/out/big bs=1M count=3\n"
        "FROM scratch\nCOPY --from=made /out /\n"
    )
    out = tmp_path / "out"
    docker.build(project, "-o", str(out))
    assert sorted(os.listdir(out)) == ["big", "hard", "in", "link"]
    assert (out / "hard").read_text() == (out / "link").read_text() == "x\n"
    assert (out / "big").stat().st_size == 3 << 20
    docker.build(project, "-o", f"type=tar,dest={tmp_path}/files.tar")
    with tarfile.open(tmp_path / "files.tar") as archive:
        assert sorted(archive.getnames()) == ["big", "hard", "in", "in/file", "link"]


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_images_are_exported(project: Project, docker: Client, tmp_path: Path, kind: str) -> None:
    project.write("FROM busybox\nRUN echo exported > /note\n")
    path = tmp_path / "image.tar"
    docker.build(project, "-t", "sent:1", "-o", f"type={kind},dest={path}")
    _, images = project.engine.request("GET", "/images/json")
    assert "sent:1" not in str(images)
    assert project.engine.docker("load", "-i", str(path)).code == 0
    assert project.run("sent:1", "cat /note") == "exported\n"


def test_clients_are_told_of_the_image(project: Project, docker: Client, tmp_path: Path) -> None:
    project.write("FROM busybox\nENV A=b\n")
    metadata, iid = tmp_path / "metadata", tmp_path / "iid"
    docker.build(
        project, "-t", "told", "--metadata-file", str(metadata), "--iidfile", str(iid), "--load"
    )
    found = json.loads(metadata.read_text())
    id_ = project.inspect("told")["Id"]
    assert found["containerimage.config.digest"] == id_ == iid.read_text()
    assert found["image.name"] == "docker.io/library/told:latest"
    done = docker("build", "-q", str(project.folder))
    assert done.out.strip() == id_


def test_progress_is_there_for_programs(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nRUN echo out; echo err >&2\n")
    done = docker("build", "--progress=rawjson", str(project.folder))
    assert done.code == 0, str(done)
    lines = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    vertexes = [vertex for line in lines for vertex in line.get("vertexes", ())]
    run_vertexes = [v for v in vertexes if v["name"].startswith("[2/2] RUN")]
    assert "started" in run_vertexes[0]
    assert "completed" in run_vertexes[-1]
    logs = [log for line in lines for log in line.get("logs", ())]
    assert {log["stream"] for log in logs} == {1, 2}


def test_an_interrupted_build_leaves_nothing(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nCOPY . /\nRUN echo begun; sleep 1000\n", file="x")
    args = (find("docker"), "build", "--progress=plain", str(project.folder))
    process = subprocess.Popen(args, env=docker.env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("begun" in line for line in process.stderr if " RUN " not in line)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130

    def gone() -> bool:
        _, containers = project.engine.request("GET", "/containers/json?all=1")
        return not containers and not remains(project.engine)

    wait_for(gone, "the build is gone")


def test_two_builds_at_once(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nARG N\nRUN echo $N > /n\nCOPY . /got\n", file="x")

    def build(number: int) -> str:
        docker.build(project, "--build-arg", f"N={number}", "-t", f"twin:{number}")
        return project.run(f"twin:{number}", "cat /n")

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(build, range(2))) == ["0\n", "1\n"]


def test_targets_are_baked(project: Project, docker: Client) -> None:
    project.write("FROM busybox AS one\nCOPY file /\nFROM one AS two\nRUN echo > /two\n", file="x")
    project.file(
        "docker-bake.hcl",
        """
        group "default" { targets = ["one", "two"] }
        target "one" {
          target = "one"
          tags = ["baked:one"]
        }
        target "two" {
          target = "two"
          tags = ["baked:two"]
        }
        """,
    )
    done = docker("buildx", "bake", "--progress=plain", cwd=project.folder)
    assert done.code == 0, str(done)
    assert project.run("baked:two", "ls /file /two") == "/file\n/two\n"
    assert project.run("baked:one", "ls /file") == "/file\n"


def test_a_target_is_the_context_of_another(project: Project, docker: Client) -> None:
    project.write(
        "FROM base\nCOPY --from=files note /\nRUN cat /made /note > /both\n", note="noted\n"
    )
    project.file(
        "docker-bake.hcl",
        """
        target "base" {
          dockerfile-inline = "FROM busybox\\nRUN echo made > /made\\n"
        }
        target "default" {
          contexts = { base = "target:base", files = "." }
          tags = ["linked"]
        }
        """,
    )
    done = docker("buildx", "bake", "--progress=plain", cwd=project.folder)
    assert done.code == 0, str(done)
    assert project.run("linked", "cat /both") == "made\nnoted\n"


def test_contexts_have_names(project: Project, docker: Client, tmp_path: Path) -> None:
    project.write(
        "FROM alias AS one\nCOPY --from=files in/file /file\n"
        "RUN --mount=from=files,source=in,target=/mnt cat /mnt/file > /read\n"
    )
    other = tmp_path / "other"
    (other / "in").mkdir(parents=True)
    (other / "in/file").write_text("named\n")
    (other / "in/not").write_text("")
    (other / ".dockerignore").write_text("in/not\n")
    contexts = ("alias=docker-image://busybox", f"files={other}")
    flags = [flag for context in contexts for flag in ("--build-context", context)]
    done = docker.build(project, *flags, "-t", "contexts")
    assert "[context files] load from client" in done.err
    assert project.run("contexts", "cat /file /read") == "named\nnamed\n"


def test_secrets_are_lent(project: Project, docker: Client, tmp_path: Path) -> None:
    project.write(
        "FROM busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token > /seen\n"
        "RUN --mount=type=secret,id=other,env=OTHER echo $OTHER > /env; ! test -s /run/secrets/token\n"
    )
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    flags = ("--secret", f"id=token,src={secret}", "--secret", "id=other,env=LENT")
    docker.env["LENT"] = "from the environment"
    docker.build(project, *flags, "-t", "secretive")
    assert project.run("secretive", "cat /seen /env") == "hush\nfrom the environment\n"
    project.write("FROM busybox\nRUN --mount=type=secret,id=none,required=true true\n")
    done = docker.try_to_build(project, *flags)
    assert done.code == 1
    assert "secret none: not found" in done.err


def test_secrets_leave_no_trace(project: Project, docker: Client, tmp_path: Path) -> None:
    began, git = time.time(), Work(tmp_path)
    git.commit(f="of a repository")
    values = {name: secrets.token_hex(12) for name in ("TOKEN", "KEY", "HEADER")}
    docker.env |= values
    with contextlib.closing(Web(tmp_path / "bare")) as web:
        web.wanted = basic(values["TOKEN"])
        project.write(
            f"FROM busybox\nADD {web.url}/r.git /r\n"
            "RUN --mount=type=secret,id=KEY --mount=type=secret,id=KEY,env=KEY"
            ' test "$KEY" = "$(cat /run/secrets/KEY)"\n'
        )
        lent = ("GIT_AUTH_TOKEN.127.0.0.1,env=TOKEN", "KEY,env=KEY", "GIT_AUTH_HEADER,env=HEADER")
        flags = [word for id_ in lent for word in ("--secret", f"id={id_}")]
        done = docker.build(project, *flags, "--progress", "rawjson", "-t", "private")
        assert set(web.seen) == {web.wanted}
    project.write("FROM busybox\nRUN --mount=type=secret,id=KEY,env=KEY exit 3\n")
    failed = docker.try_to_build(project, *flags)
    used = docker("buildx", "du", "--verbose")
    assert (failed.code, used.code) == (1, 0)
    said = "".join(one.out + one.err for one in (done, failed, used)).encode()
    found = said + everything(project.engine, "private", began)
    assert b"of a repository" in found
    for name, value in values.items():
        for form in (value, basic(value).split()[1]):
            assert form.encode() not in found, name


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The socket of an agent that has one key."""
    path, key = str(tmp_path / "agent.sock"), str(tmp_path / "key")
    process = subprocess.Popen([find("ssh-agent"), "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: os.path.exists(path), "the agent listens")
        args = ("-q", "-t", "ed25519", "-N", "", "-C", "lent key", "-f", key)
        run(find("ssh-keygen"), *args, check=True)
        run(find("ssh-add"), key, env={**os.environ, "SSH_AUTH_SOCK": path}, check=True)
        yield path
    finally:
        process.kill()
        process.wait()


def test_agents_are_lent(project: Project, docker: Client, agent: str) -> None:
    project.write(f"FROM host\nRUN --mount=type=ssh {find('ssh-add')} -l\n")
    done = docker.build(project, "--ssh", f"default={agent}")
    assert "lent key" in done.err
    project.write("FROM busybox\nRUN --mount=type=ssh,required=true true\n")
    done = docker.try_to_build(project)
    assert done.code == 1
    assert 'no SSH key "default" forwarded from the client' in done.err


def test_commands_keep_caches(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/f; cat /c/f > /f\n")
    docker.build(project, "--no-cache", "-t", "cached")
    docker.build(project, "--no-cache", "-t", "cached")
    assert project.run("cached", "cat /f") == "x\nx\n"
    assert "exec.cachemount" in docker("buildx", "du", "--verbose").out
    assert docker("buildx", "prune", "-af").code == 0
    assert "exec.cachemount" not in docker("buildx", "du", "--verbose").out


def test_images_are_pushed_and_bases_pulled_with_the_clients_credentials(
    project: Project, docker: Client, private: Registry, tmp_path: Path
) -> None:
    name = f"{private.host}/made:1"
    project.write("FROM busybox\nRUN echo pushed > /note\n")
    done = docker.try_to_build(project, "-t", name, "--push")
    assert done.code == 1
    assert "no basic auth credentials" in done.err
    docker("login", "-u", USER, "--password-stdin", private.host, stdin=PASSWORD.encode())
    metadata = tmp_path / "metadata"
    done = docker.build(project, "-t", name, "--push", "--metadata-file", str(metadata))
    assert f"pushing {name}" in done.err
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    assert f"made@{digest}" in str(project.inspect(name)["RepoDigests"])
    assert docker("rmi", "-f", name).code == 0
    project.write(f"FROM {name}\nRUN cat /note\n")
    assert " pushed\n" in docker.build(project).err


COMPOSE = """
name: composed
services:
  app:
    network_mode: none
    build:
      context: .
      target: final
      args: {WHO: compose}
"""


def test_compose_builds_and_comes_up(project: Project, docker: Client) -> None:
    project.write(
        "FROM busybox AS base\nARG WHO\nRUN echo for $WHO > /made\n"
        "FROM base AS final\nCOPY note /\nCMD cat /made /note; sleep 2\n",
        note="noted\n",
    )
    compose = ("compose", "-f", str(project.file("compose.yaml", COMPOSE)))
    try:
        done = docker(*compose, "build")
        assert done.code == 0, str(done)
        project.file("note", "changed\n")
        done = docker(*compose, "up", "--build")
        assert done.code == 0, str(done)
        logs = docker(*compose, "logs", "--no-log-prefix", "app")
        assert logs.out == "for compose\nchanged\n"
    finally:
        docker(*compose, "down", "--rmi", "all")


def older_cli() -> str:
    """The path of a docker CLI that speaks BuildKit's protocol itself, as those before 23 did."""
    for folder in ("/usr/bin", "/usr/local/bin"):
        path = f"{folder}/docker"
        if os.path.exists(path) and " 20.10" in run(path, "--version").out:
            return path
    pytest.skip("needs Debian 12's docker.io")


def test_older_clients_build_without_a_plugin(
    project: Project, environment: dict[str, str], tmp_path: Path
) -> None:
    def build(*args: str) -> Outcome:
        return run(older_cli(), "build", *args, str(project.folder), env=environment)

    project.write(
        "FROM busybox AS made\nRUN echo x > /x\nFROM scratch\nCOPY --from=made /x /\nCOPY note /\n",
        note="n",
    )
    done = build("-t", "older", "--label", "a=b")
    assert done.code == 0, str(done)
    assert "[stage-1 1/2] COPY --from=made /x /" in done.err
    assert project.inspect("older")["Config"]["Labels"] == {"a": "b"}  # type: ignore[index]
    assert build("-q", "--label", "a=b").out.strip() == project.inspect("older")["Id"]
    assert build("-o", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/x").read_text() == "x\n"
    project.write("FROM busybox\nRUN exit 3\n")
    done = build()
    assert done.code == 1
    assert "did not complete successfully: exit code: 3" in done.err


def test_a_dockerfile_may_be_somewhere_else(
    project: Project, docker: Client, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "Other").write_text("FROM busybox\nCOPY note /note\n")
    with tarfile.open(served / "files.tgz", "w:gz") as archive:
        archive.add(served / "Other", "packed")
    project.file("note", "noted\n")
    with contextlib.closing(Folder(served)) as server:
        docker.build(project, "-f", f"{server.url}/Other", "-t", "elsewhere")
        project.write("FROM busybox\nCOPY --from=files packed /\n")
        docker.build(project, "--build-context", f"files={server.url}/files.tgz", "-t", "packed")
        assert (
            docker("build", f"{server.url}/Other").code == 1
        )  # it copies, and there is no context
    assert project.run("elsewhere", "cat /note") == "noted\n"
    assert project.run("packed", "ls /packed") == "/packed\n"


def test_some_stages_are_built_anew(project: Project, docker: Client) -> None:
    project.write("FROM busybox AS one\nRUN true\nFROM one AS two\nRUN echo\n")
    docker.build(project)
    done = docker.build(project, "--no-cache-filter", "two")
    assert done.err.count(" CACHED\n") == 1


def test_caches_elsewhere_are_not_kept_and_that_is_said(
    project: Project, docker: Client, tmp_path: Path
) -> None:
    project.write("FROM busybox\nRUN true\n")
    done = docker.build(project, "--cache-to", f"type=local,dest={tmp_path}/cache")
    assert "cache export of type local" in done.err
    assert "WARN: is not part of berth" in done.err
    assert "WARN" not in docker.build(project, "--cache-to", "type=inline").err


def test_how_commands_run(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nRUN cat /etc/hosts; ulimit -n; ls /sys/class/net; df /dev/shm\n")
    flags = ("--add-host=a:1.2.3.4", "--add-host=gate:host-gateway", "--ulimit=nofile=100:200")
    done = docker.build(project, *flags, "--network=none", "--shm-size=32m")
    words = done.err.split()
    assert {"1.2.3.4", "gate", "100", "lo", "32768"} <= set(words)
    assert "eth0" not in words


def test_an_engine_that_leaves_ends_builds(fresh_engine: EngineProcess, tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": fresh_engine.host, "HOME": str(tmp_path)}
    docker = Client({**environment, "DOCKER_CONFIG": str(tmp_path)}, tmp_path)
    folder = tmp_path / "context"
    folder.mkdir()
    Project(folder, fresh_engine).write("FROM busybox\nRUN echo begun; sleep 1000\n")
    args = (find("docker"), "build", "--progress=plain", str(folder))
    process = subprocess.Popen(args, env=docker.env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("begun" in line for line in process.stderr if " RUN " not in line)
    assert fresh_engine.stop() == 0
    process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in fresh_engine.log.read_text()
    fresh_engine.start()
    _, containers = fresh_engine.request("GET", "/containers/json?all=1")
    assert not containers
    assert not remains(fresh_engine)


def test_what_builds_left_is_shown_and_removed(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nRUN echo step > /step\nENV A=b\n")
    docker.build(project)
    usage = docker("buildx", "du")
    assert usage.code == 0, str(usage)
    assert usage.out.count("sha256:") == 2
    pruned = docker("buildx", "prune", "-af")
    assert pruned.code == 0, str(pruned)
    assert pruned.out.count("sha256:") == 2
    assert "sha256:" not in docker("buildx", "du").out


def test_what_is_left_is_chosen_by_filters(project: Project, docker: Client) -> None:
    project.write("FROM busybox\nRUN --mount=type=cache,target=/c echo step > /step\nENV A=b\n")
    docker.build(project, "-t", "kept")
    project.write("FROM busybox\nRUN echo other > /other\n")
    docker.build(project)

    def found(*filters: str) -> list[str]:
        flags = [flag for one in filters for flag in ("--filter", one)]
        done = docker("buildx", "du", "--format={{json .}}", *flags)
        assert done.code == 0, str(done)
        return [json.loads(line)["Description"] for line in done.out.splitlines()]

    assert len(found()) == 4
    assert found("type=exec.cachemount") == found("description~=cache") != []
    assert [text[-8:] for text in found("description~=echo.other")] == ["> /other"]
    assert len(found("private=true")) == 2
    assert len(found("shared=true", "type=regular")) == 2
    assert found("id=none") == []
    verbose = docker("buildx", "du", "--verbose", "--filter", "description~=echo.other").out
    assert "Reclaimable:  true" in verbose
    assert "Parents:" in verbose
    pruned = docker("buildx", "prune", "-f", "--filter", "type=exec.cachemount")
    assert pruned.code == 0, str(pruned)
    assert len(found()) == 3
    assert docker("buildx", "prune", "-f", "--filter", "until=1h").code == 0
    assert len(found()) == 3
    assert docker("buildx", "prune", "-f", "--max-used-space", "1mb").code == 0
    wrong = docker("buildx", "du", "--filter", "id~=(a+)+")
    assert wrong.code == 1
    assert "of a filter has groups" in wrong.err


def test_the_builder_is_described(docker: Client) -> None:
    listed = docker("buildx", "ls")
    assert listed.code == 0, str(listed)
    assert "running" in listed.out
    assert "Status:" in docker("buildx", "inspect").out
    history = docker("buildx", "history", "ls")
    assert history.code == 0, str(history)
    assert len(history.out.splitlines()) == 1


def test_what_berth_does_not_do_is_refused_by_name(project: Project, docker: Client) -> None:
    project.write("FROM busybox\n")
    for flags, why in (
        (("--provenance=true",), "Attestations are not supported"),
        (("-o", "type=oci,dest=out,tar=false"), "tar=false is not part of berth"),
    ):
        done = docker.try_to_build(project, *flags, cwd=project.folder)
        assert done.code != 0
        assert why in done.err, str(done)


def test_a_build_with_a_policy_for_sources_is_refused(
    project: Project, docker: Client, tmp_path: Path
) -> None:
    project.write("FROM busybox\n")
    policy = tmp_path / "policy.json"
    rule = {"action": "DENY", "selector": {"identifier": "docker-image://*"}}
    policy.write_text(json.dumps({"rules": [rule]}))
    docker.env["EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"] = str(policy)
    done = docker.try_to_build(project)
    assert done.code != 0, str(done)
    assert "policies for sources are not part of berth" in done.err
