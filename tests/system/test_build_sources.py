"""Where builds get things from: URLs, registries with passwords, archives from elsewhere."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engine import UnixConnection
from support.programs import find
from support.projects import Project, post_build
from support.registries import PASSWORD, USER, Registry
from support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engine import EngineProcess

# The engine that the tests are proved with has a loopback of its own.
pytestmark = pytest.mark.berth_only


class Files(Server):
    """Files that a server of HTTP has."""

    def __init__(self) -> None:
        files: dict[str, bytes] = {}

        class Shown(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = files.get(self.path)
                missing = 1000 if self.path.startswith("/cut") else 0
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"") + missing))
                self.send_header("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
                self.end_headers()
                self.wfile.write(data or b"")

        self.files = files
        super().__init__(Shown)


@pytest.fixture
def web() -> Iterator[Files]:
    with contextlib.closing(Files()) as files:
        yield files


def test_add_fetches_what_it_is_told_by_url(project: Project, web: Files) -> None:
    web.files["/some/file.txt"] = b"fetched"
    project.write(
        f"FROM busybox\nADD {web.url}/some/file.txt /in/\nADD {web.url}/some/file.txt /as\n"
    )
    built = project.build(t="fetched")
    assert not built.error, built
    script = "cat /in/file.txt /as; stat -c '%a %u %Y' /as"
    assert project.run("fetched", script) == "fetchedfetched600 0 946684800\n"
    assert project.build().cached == 2
    web.files["/some/file.txt"] = b"changed"
    assert project.build().cached == 0
    project.write(f"FROM busybox\nADD {web.url}/absent /in/\n")
    assert "404" in project.build().error
    project.write(f"FROM busybox\nADD {web.url}/ /in/\n")
    assert "cannot determine filename from url" in project.build().error


def test_certificates_of_registries_are_not_for_what_is_fetched(
    project: Project, web: Files
) -> None:
    web.files["/f"] = b"fetched"
    folder = Path("/etc/docker/certs.d", web.url.removeprefix("http://"))
    folder.mkdir(parents=True)
    try:
        (folder / "client.cert").write_text("whoever reads this complains that it has no key")
        built = project.write(f"FROM busybox\nADD {web.url}/f /f\n").build()
    finally:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):
            os.removedirs(folder.parent)
    assert not built.error, built


def test_checksums_of_what_is_fetched_are_verified(project: Project, web: Files) -> None:
    web.files["/file"] = b"fetched"
    digest = hashlib.sha256(b"fetched").hexdigest()
    project.write(f"FROM busybox\nADD --checksum=sha256:{digest} {web.url}/file /f\n")
    assert not project.build().error
    project.write(f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {web.url}/file /f\n")
    assert "digest mismatch" in project.build().error
    project.write(f"FROM busybox\nADD --checksum=sha256:{digest} file /f\n", file="fetched")
    assert "checksum requires HTTP(S) or Git sources" in project.build().error


def test_a_dockerfile_or_a_context_comes_from_a_url(project: Project, web: Files) -> None:
    web.files["/Dockerfile"] = b"FROM busybox\nRUN echo remote > /x\n"
    built = post_build(project.engine, b"", remote=f"{web.url}/Dockerfile", t="remote")
    assert not built.error, built
    assert project.run("remote", "cat /x") == "remote\n"
    project.write("FROM busybox\nCOPY f /f\n", f="in the archive")
    web.files["/context.tar"] = project.archive()
    built = post_build(project.engine, b"", remote=f"{web.url}/context.tar", t="remote")
    assert not built.error, built
    assert project.run("remote", "cat /f") == "in the archive"
    absent = post_build(project.engine, b"", remote=f"{web.url}/absent")
    assert absent.status == 500
    assert f"error downloading remote context {web.url}/absent: " in absent.error


def test_a_dockerfile_from_a_url_is_no_larger_than_others(project: Project, web: Files) -> None:
    web.files["/Dockerfile"] = b"FROM busybox\n" + b"#" * (4 << 20)
    built = post_build(project.engine, b"", remote=f"{web.url}/Dockerfile")
    assert (built.status, "larger than a Dockerfile may be" in built.error) == (400, True), built
    project.file("Dockerfile", web.files["/Dockerfile"])
    built = project.build()
    assert (built.status, "larger than a Dockerfile may be" in built.error) == (400, True), built


def test_a_body_that_is_cut_off_ends_the_build(project: Project, web: Files) -> None:
    web.files["/cut"] = b"not all of it"
    built = project.write(f"FROM busybox\nADD {web.url}/cut /f\n").build()
    assert f"fetch {web.url}/cut: unexpected EOF" in built.error, built
    assert "errorDetail" in built.messages[-1]
    built = post_build(project.engine, b"", remote=f"{web.url}/cut")
    assert f"error downloading remote context {web.url}/cut: " in built.error, built


def test_other_builders_are_refused(project: Project) -> None:
    project.write("FROM busybox\n")
    for query in ({"version": "2"}, {"outputs": "[]"}):
        answer = project.build(**query)
        assert answer.status == 400
        assert "BuildKit" in answer.error
    assert "invalid version '3'" in project.build(version="3").error


def test_a_base_is_pulled_with_the_password_of_its_registry(
    project: Project, tmp_path: Path
) -> None:
    find("docker-registry")
    engine = project.engine
    with contextlib.closing(Registry(tmp_path / "registry", password=True)) as registry:
        name = f"{registry.host}/base:1"
        entry = {"username": USER, "password": PASSWORD, "serveraddress": registry.host}
        auth = base64.urlsafe_b64encode(json.dumps(entry).encode()).decode()
        engine.request("POST", f"/images/busybox/tag?repo={registry.host}/base&tag=1")
        push(engine, f"/images/{registry.host}/base/push?tag=1", auth)
        engine.request("DELETE", f"/images/{name}")
        project.write(f"FROM {name}\nRUN echo pulled > /x\n")
        assert "no basic auth credentials" in project.build().error
        known = base64.urlsafe_b64encode(json.dumps({registry.host: entry}).encode()).decode()
        connection = UnixConnection(engine.socket)
        with contextlib.closing(connection):
            headers = {"X-Registry-Config": known}
            connection.request("POST", "/build?t=pulled", project.archive(), headers)
            answer = connection.getresponse().read().decode()
        assert "Successfully tagged pulled:latest" in answer
        assert '"status":"Pulling from base"' in answer
        engine.request("DELETE", f"/images/{name}")


def push(engine: EngineProcess, path: str, auth: str) -> None:
    connection = UnixConnection(engine.socket)
    with contextlib.closing(connection):
        connection.request("POST", path, b"", {"X-Registry-Auth": auth})
        answer = connection.getresponse().read().decode()
    assert '"error"' not in answer, answer
