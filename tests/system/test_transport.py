"""How clients reach an engine: unix sockets, TCP, TLS, ssh, sockets of systemd; and its metrics."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from berth.api.tls import MAX_STRANGERS
from berth.engine.instance import Instance
from support import certificates, kernel
from support.engine import SOURCE, EngineProcess
from support.programs import Outcome, find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., EngineProcess]

pytestmark = pytest.mark.berth_only  # flags of its own


@pytest.fixture
def start() -> Iterator[Start]:
    """Start an engine with more flags."""
    started: list[EngineProcess] = []

    def start(*flags: str) -> EngineProcess:
        started.append(EngineProcess(flags=flags))
        return started[-1].start()

    yield start
    for engine in started:
        engine.close()


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Say where an engine is to be that does not start; nothing of it may be left in the kernel."""
    yield ("--data-root", f"{tmp_path}/data", "--exec-root", f"{tmp_path}/exec")
    assert kernel.remove_objects(Instance.of(tmp_path / "data")) == []


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def berth(*words: str, **options: object) -> Outcome:
    return run(sys.executable, "-m", "berth", *words, **options)  # type: ignore[arg-type]


def docker(*words: str, **options: object) -> Outcome:
    return run(find("docker"), *words, **options)  # type: ignore[arg-type]


# Unix sockets


def test_a_socket_has_the_group_that_was_chosen(start: Start) -> None:
    engine = start("--group", "12345")
    status = engine.socket.stat()
    assert (status.st_gid, status.st_mode & 0o777) == (12345, 0o660)


def test_an_unknown_group_is_refused(tmp_path: Path, refused: tuple[str, ...]) -> None:
    done = berth("serve", "-H", f"unix://{tmp_path}/x", "-G", "no-such-group", *refused)
    assert (done.code, done.err) == (1, "berth: group no-such-group not found\n")


def test_an_engine_listens_at_several_places(start: Start, tmp_path: Path) -> None:
    port = free_port()
    engine = start(
        "-H", f"unix://{tmp_path}/second", "-H", f"tcp://127.0.0.1:{port}", "--tls=false"
    )
    for host in (engine.host, f"unix://{tmp_path}/second", f"tcp://127.0.0.1:{port}"):
        assert docker("-H", host, "version", "-f", "{{.Server.Version}}").code == 0
        assert berth("-H", host, "ps").code == 0


@pytest.mark.parametrize("flags", [("--tls=false", "-H", "tcp://"), ("--metrics-addr", "")])
def test_a_port_that_is_taken_is_told(
    tmp_path: Path, refused: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        *before, last = flags
        own = ("-H", f"unix://{tmp_path}/sock")
        done = berth("serve", *own, *before, last + address, *refused)
    assert done.code == 1
    assert f"listen on tcp://{address}: Address already in use" in done.err
    assert not (tmp_path / "sock").exists()


# TCP


def test_tcp_without_tls_must_be_meant(tmp_path: Path) -> None:
    done = berth("serve", "-H", "tcp://127.0.0.1:2375", "--data-root", f"{tmp_path}/d")
    assert done.code == 1
    assert "without TLS whoever can connect to it is root on this machine" in done.err
    assert "--tls=false" in done.err
    assert not (tmp_path / "d").exists()


def test_tcp_refuses_web_pages(start: Start) -> None:
    port = free_port()
    start("-H", f"tcp://127.0.0.1:{port}", "--tlsverify=false")
    for headers, expected in (
        ({}, 200),
        ({"Host": f"localhost:{port}"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Origin": "http://page.example"}, 403),
        ({"Origin": f"http://localhost:{port + 1}", "Host": f"localhost:{port}"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/_ping", headers=headers)
        assert connection.getresponse().status == expected, headers
        connection.close()


# TLS


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: authority, engine, client as ca/cert/key.pem, and one client of a stranger's."""
    folder = tmp_path_factory.mktemp("papers")
    certificates.make(folder, "ca")
    certificates.make(folder, "stranger")
    names = "subjectAltName = DNS:localhost,IP:127.0.0.1\nextendedKeyUsage = serverAuth\n"
    certificates.make(folder, "engine", signer="ca", extensions=names)
    for signer, name in (("ca", "client"), ("stranger", "intruder")):
        certificates.make(folder, name, signer=signer, extensions="extendedKeyUsage=clientAuth\n")
        (folder / f"of-{name}").mkdir()
        shutil.copy(folder / "ca.pem", folder / f"of-{name}" / "ca.pem")
        shutil.copy(folder / f"{name}.pem", folder / f"of-{name}" / "cert.pem")
        shutil.copy(folder / f"{name}-key.pem", folder / f"of-{name}" / "key.pem")
    return folder


def tls_flags(papers: Path, port: int) -> tuple[str, ...]:
    return (
        *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{papers}/ca.pem"),
        *("--tlscert", f"{papers}/engine.pem", "--tlskey", f"{papers}/engine-key.pem"),
    )


@pytest.fixture
def secured(start: Start, papers: Path, busybox_tar: bytes) -> tuple[EngineProcess, int]:
    """An engine with mutual TLS and its port."""
    port = free_port()
    engine = start(*tls_flags(papers, port))
    assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
    return engine, port


@pytest.mark.parametrize("program", ["docker", "berth"])
def test_clients_with_a_certificate_may_do_everything(
    secured: tuple[EngineProcess, int], papers: Path, program: str
) -> None:
    _, port = secured
    name, call = program.upper(), docker if program == "docker" else berth
    env = {
        **os.environ,
        f"{name}_HOST": f"tcp://127.0.0.1:{port}",
        f"{name}_TLS_VERIFY": "1",
        f"{name}_CERT_PATH": str(papers / "of-client"),
    }
    words = ("run", "--rm", "-i", "--network", "none", "busybox")
    data = os.urandom(3 << 20)
    assert call(*words, "cat", stdin=data, env=env).raw == data
    # The end of input, and what comes after it.
    done = call(
        *words, "sh", "-c", "cat; sleep 0.2; seq 20000; echo e >&2; exit 7", stdin=b"", env=env
    )
    assert (done.code, done.out.count("\n"), done.err) == (7, 20000, "e\n")
    assert call("ps", env=env).code == 0


@pytest.mark.parametrize("program", ["docker", "berth"])
def test_others_are_refused(secured: tuple[EngineProcess, int], papers: Path, program: str) -> None:
    _, port = secured
    call, host = docker if program == "docker" else berth, f"tcp://127.0.0.1:{port}"
    plain = call("-H", host, "ps")
    assert plain.code == 1
    no_certificate = call("-H", host, "--tls", "ps")
    assert no_certificate.code == 1
    of = papers / "of-intruder"
    files = (
        "--tlscacert",
        f"{of}/ca.pem",
        "--tlscert",
        f"{of}/cert.pem",
        "--tlskey",
        f"{of}/key.pem",
    )
    stranger = call("-H", host, "--tlsverify", *files, "ps")
    assert stranger.code == 1


def test_a_plain_request_is_told_that_tls_is_spoken(secured: tuple[EngineProcess, int]) -> None:
    with socket.create_connection(("127.0.0.1", secured[1]), 20) as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
    assert answer.endswith(b"Client sent an HTTP request to an HTTPS server.\n")


def test_clients_that_say_nothing_hold_nobody_up(
    secured: tuple[EngineProcess, int], papers: Path
) -> None:
    engine, port = secured
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    context = ssl.create_default_context(cafile=f"{papers}/ca.pem")
    context.load_cert_chain(papers / "client.pem", papers / "client-key.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    connection.request("GET", "/_ping")
    assert connection.getresponse().read() == b"OK"
    connection.close()
    before = len(list(Path(f"/proc/{engine.pid}/fd").iterdir()))
    for sock in silent:
        sock.close()
    wait_for(
        lambda: len(list(Path(f"/proc/{engine.pid}/fd").iterdir())) < before - 40,
        "their descriptors are closed",
    )


def test_clients_that_say_nothing_do_not_take_the_engines_descriptors(
    secured: tuple[EngineProcess, int],
) -> None:
    engine, port = secured
    before = len(list(Path(f"/proc/{engine.pid}/fd").iterdir()))
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MAX_STRANGERS + 200)]
    assert engine.request("GET", "/_ping") == (200, b"OK")
    taken = len(list(Path(f"/proc/{engine.pid}/fd").iterdir())) - before
    assert taken < MAX_STRANGERS + 100
    for sock in silent:
        sock.close()


def test_missing_certificates_are_named(refused: tuple[str, ...]) -> None:
    flags = ("-H", "tcp://127.0.0.1:0", "--tlsverify", "--tlscert", "/missing/cert")
    done = berth("serve", *flags, *refused)
    assert done.code == 1
    assert "could not load certificate and key (/missing/cert" in done.err


# ssh, with a program of that name that runs the command here


@pytest.fixture
def ssh(tmp_path: Path, engine: EngineProcess) -> dict[str, str]:
    """An environment in which `ssh HOST COMMAND` is COMMAND on this machine."""
    source = os.pathsep.join((str(SOURCE), *filter(None, (os.environ.get("PYTHONPATH"),))))
    for name, text in (
        ("ssh", 'while [ "$1" != -- ]; do shift; done; shift 2; exec "$@"'),
        ("berth", f'PYTHONPATH={source} exec {sys.executable} -m berth "$@"'),
        ("docker", f'shift 0; PYTHONPATH={source} exec {sys.executable} -m berth "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "BERTH_HOST": engine.host}


@pytest.mark.parametrize("program", ["docker", "berth"])
def test_ssh_reaches_the_engine_of_another_machine(ssh: dict[str, str], program: str) -> None:
    call = docker if program == "docker" else berth
    words = ("-H", "ssh://somebody@elsewhere:2222", "run", "--rm", "-i", "--network", "none")
    data = os.urandom(1 << 20)
    assert call(*words, "busybox", "cat", stdin=data, env=ssh).raw == data
    done = call(*words, "busybox", "sh", "-c", "cat; echo after; exit 4", stdin=b"x", env=ssh)
    assert (done.code, done.out) == (4, "xafter\n")


def test_ssh_takes_the_path_of_a_socket(engine: EngineProcess, ssh: dict[str, str]) -> None:
    env = {**ssh, "BERTH_HOST": "unix:///nowhere"}
    assert berth("-H", f"ssh://elsewhere{engine.socket}", "ps", env=env).code == 0


def test_a_host_that_is_an_option_is_refused(engine: EngineProcess) -> None:
    done = berth("-H", "ssh://-oProxyCommand=touch", "ps")
    assert (done.code, "invalid host" in done.err) == (1, True)


# Sockets of systemd


def serve_activated(
    tmp_path: Path, sock: socket.socket, *words: str, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start an engine as systemd does: sockets from descriptor 3, variables with its process id."""
    command = [
        *(sys.executable, "-m", "berth", "serve", *words),
        *("--data-root", f"{tmp_path}/data", "--exec-root", f"{tmp_path}/exec"),
    ]
    script = f"import os; os.dup2({sock.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid())"
    script += f"; os.execv({sys.executable!r}, {command!r})"
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"}
    env["NOTIFY_SOCKET"] = f"{tmp_path}/notify"
    return subprocess.Popen(
        [sys.executable, "-c", script], env=env, pass_fds=(sock.fileno(), 3), stderr=stderr
    )


@pytest.mark.parametrize("host", ["fd://", "fd://api", "fd://3"])
def test_an_engine_takes_its_socket_from_systemd(tmp_path: Path, host: str) -> None:
    with (
        socket.socket(socket.AF_UNIX) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        sock.bind(f"{tmp_path}/sock")
        sock.listen()
        notified.bind(f"{tmp_path}/notify")
        notified.settimeout(30)
        process = serve_activated(tmp_path, sock, "-H", host)
        try:
            assert docker("-H", f"unix://{tmp_path}/sock", "version").code == 0
            assert notified.recv(100) == b"READY=1"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert (tmp_path / "sock").exists()
    EngineProcess(tmp_path).close()


@pytest.mark.usefixtures("refused")
def test_a_tcp_socket_from_systemd_is_not_served_without_tls(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        process = serve_activated(tmp_path, sock, "-H", "fd://", stderr=subprocess.PIPE)
        error = process.communicate(timeout=60)[1].decode()
    assert (process.returncode, "listen on fd://: without TLS whoever" in error) == (1, True), error


def test_a_tcp_socket_from_systemd_is_served_without_tls_when_that_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        process = serve_activated(tmp_path, sock, "-H", "fd://", "--tls=false")
        try:
            host = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
            assert docker("-H", host, "version").code == 0
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    EngineProcess(tmp_path).close()


def test_without_systemd_there_is_no_such_socket(refused: tuple[str, ...]) -> None:
    done = berth("serve", "-H", "fd://", *refused)
    assert (done.code, "no sockets were passed to this process" in done.err) == (1, True)


# Metrics


def test_metrics_are_there_for_prometheus(start: Start, busybox_tar: bytes) -> None:
    port = free_port()
    engine = start("--metrics-addr", f"127.0.0.1:{port}")
    assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
    words = ("--network", "none", "busybox")
    assert engine.docker("run", "-d", "--name", "on", *words, "sleep", "600").code == 0
    assert engine.docker("run", *words, "true").code == 0
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics", headers={"Host": "prometheus-target.example"})
    response = connection.getresponse()
    assert response.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
    lines = response.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert found['engine_daemon_container_states_containers{state="running"}'] == "1"
    assert found['engine_daemon_container_states_containers{state="stopped"}'] == "1"
    assert found['engine_daemon_container_actions_seconds_count{action="start"}'] == "2"
    assert float(found['engine_daemon_container_actions_seconds_sum{action="create"}']) > 0
    assert int(found["engine_daemon_events_total"]) >= 5
    assert 1e7 < float(found["process_resident_memory_bytes"]) < 2e8
    assert float(found["process_cpu_seconds_total"]) > 0
    assert any(name.startswith("engine_daemon_engine_info{") for name in found)
    connection.request("GET", "/containers/json")
    assert connection.getresponse().status == 404
    connection.close()
