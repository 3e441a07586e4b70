"""Log drivers: where output goes, what is kept of it, and what happens when nobody takes it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import certificates
from support.engine import EngineProcess
from support.programs import Outcome, find
from support.programs import run as run_program
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Cli = Callable[..., Outcome]

RUN = ("--network", "none", "busybox", "sh", "-c")
SPEAK = "echo out 1; sleep 0.05; echo err 1 >&2; sleep 0.05; printf 'no end'"


def run(engine: EngineProcess, name: str, script: str, *flags: str) -> Outcome:
    return engine.docker("run", "--name", name, *flags, *RUN, script)


def folder(engine: EngineProcess, name: str) -> Path:
    return engine.data_root / "containers" / str(engine.inspect(name)["Id"])


def attached(engine: EngineProcess, name: str) -> socket.socket:
    """Return a connection to a container's input."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(engine.socket))
    head = f"POST /containers/{name}/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\n"
    client.sendall(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    assert client.recv(4096).startswith(b"HTTP/1.1 101")
    return client


# On disk


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_log_is_read_back(engine: EngineProcess, cli: Cli, driver: str) -> None:
    assert run(engine, "box", SPEAK, "--log-driver", driver).code == 0
    done = cli("logs", "box")
    assert (done.out, done.err) == ("out 1\nno end", "err 1\n")
    tail = cli("logs", "--tail", "2", "box")
    assert (tail.out, tail.err) == ("no end", "err 1\n")
    stamp = cli("logs", "-t", "box").lines[0].split()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp)
    assert "out 1" not in cli("logs", "--since", cli("logs", "-t", "box").err.split()[0], "box").out
    assert cli("logs", "--until", stamp, "box").out == "out 1\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("compress", ["false", "true"])
def test_a_rotated_log_is_read_back(
    engine: EngineProcess, cli: Cli, driver: str, compress: str
) -> None:
    options = ("max-size=20k", "max-file=4", f"compress={compress}")
    flags = ("--log-driver", driver, *(word for o in options for word in ("--log-opt", o)))
    assert run(engine, "box", "for i in $(seq 20000); do echo line $i; done", *flags).code == 0
    lines = cli("logs", "box").lines
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == list(range(numbers[0], 20001))
    assert len(numbers) > 500
    for count in (1, 3, 700):
        assert cli("logs", "--tail", str(count), "box").lines == lines[-count:]
    if compress == "true":
        packed = wait_for(lambda: sorted(folder(engine, "box").rglob("*.gz")), "files are packed")
        assert b"line" in gzip.decompress(packed[0].read_bytes())


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_log_is_followed_across_rotations(engine: EngineProcess, cli: Cli, driver: str) -> None:
    script = "for i in $(seq 8000); do echo line $i; test $((i % 500)) != 0 || sleep 0.02; done"
    # As many files as there will be: who follows too slowly misses nothing.
    options = ("max-size=40k", "max-file=50", "compress=true")
    flags = ("--log-driver", driver, *(word for o in options for word in ("--log-opt", o)))
    assert engine.docker("run", "-d", "--name", "box", *flags, *RUN, script).code == 0
    assert cli("logs", "-f", "box").lines == [f"line {i}" for i in range(1, 8001)]


def test_a_local_log_keeps_long_lines_and_any_byte(engine: EngineProcess, cli: Cli) -> None:
    script = "dd if=/dev/zero bs=40000 count=1 2>/dev/null | tr '\\0' a; echo; printf '\\377\\r\\000x\\n'"
    assert run(engine, "box", script, "--log-driver", "local").code == 0
    assert cli("logs", "box").raw == b"a" * 40000 + b"\n" + b"\xff\r\0x\n"


def test_a_json_log_has_the_attributes_that_options_choose(engine: EngineProcess) -> None:
    options = (
        "labels=one,none",
        "labels-regex=^tw",
        "env=A",
        "env-regex=^B",
        "tag={{.Name}}/{{.ID}}",
    )
    flags = (
        *("--label", "one=1", "--label", "two=2", "--label", "three=3"),
        *("-e", "A=a b", "-e", "BB=bb", "-e", "C=c"),
        *(word for option in options for word in ("--log-opt", option)),
    )
    assert run(engine, "box", "echo said", *flags).code == 0
    path = Path(str(engine.inspect("box")["LogPath"]))
    id_ = str(engine.inspect("box")["Id"])
    expected = {"one": "1", "two": "2", "A": "a b", "BB": "bb", "tag": f"box/{id_[:12]}"}
    entry = json.loads(path.read_text())
    assert (entry["log"], entry["attrs"]) == ("said\n", expected)
    shown = engine.docker("logs", "--details", "box").out
    assert "A=a+b" in shown
    assert shown.endswith(" said\n")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.ImageName}}/{{.Name}}/{{.ID}}", "{image}/{name}/{id:.12}"),
        ("{{.FullID}} {{.ImageID}} {{.ImageFullID}}", "{id} {image_id:.12} sha256:{image_id}"),
        ("{{.DaemonName}}:{{ .Name | upper | printf `<%s>` }}", "docker:<BOX>"),
        ('{{index .ContainerLabels "a.b"}}{{with .Command}} {{.}}{{end}}', "c sh -c echo said"),
        ('{{if eq .Name "box"}}it{{else}}other{{end}} {{lower "X"}}', "it x"),
        (
            '{{index (split .ImageName ":") 0}}{{truncate .Name 2}} {{json .Name}}',
            'busyboxbo "box"',
        ),
        ('{{(.ExtraAttributes nil).A}} {{join .ContainerArgs ","}}', "1 -c,echo said"),
        ("plain", "plain"),
    ],
)
def test_a_tag_is_a_template_of_go(engine: EngineProcess, template: str, expected: str) -> None:
    words = ("--label", "a.b=c", "-e", "A=1", "--log-opt", "env=A", "--log-opt", f"tag={template}")
    assert run(engine, "box", "echo said", *words).code == 0
    found = engine.inspect("box")
    entry = json.loads(Path(str(found["LogPath"])).read_text())
    names = {
        "name": "box",
        "image": "busybox",
        "id": found["Id"],
        "image_id": str(found["Image"]).removeprefix("sha256:"),
    }
    assert entry["attrs"] == {"A": "1", "tag": expected.format(**names)}


def test_a_log_that_is_not_kept_cannot_be_read(engine: EngineProcess, cli: Cli) -> None:
    assert run(engine, "box", "echo seen", "--log-driver", "none").out == "seen\n"
    done = cli("logs", "box")
    assert done.code == 1
    assert "configured logging driver does not support reading" in done.err
    assert engine.request("GET", "/containers/box/logs?stdout=1")[0] == 501
    assert engine.inspect("box")["LogPath"] == ""


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("gelf", (), "logger: no log driver named 'gelf' is registered"),
        ("json-file", ("x=y",), "unknown log opt 'x' for json-file log driver"),
        ("local", ("tag=y",), "unknown log opt 'tag' for log driver local"),
        ("syslog", ("x=y",), "unknown log opt 'x' for syslog log driver"),
        ("journald", ("max-size=1k",), "unknown log opt 'max-size' for journald log driver"),
        ("json-file", ("mode=fast",), "logger: logging mode not supported: fast"),
        ("json-file", ("max-buffer-size=1m",), "only supported with 'mode=non-blocking'"),
        ("json-file", ("compress=true",), "compress cannot be true when max-file is less than 2"),
        ("json-file", ("max-file=0",), "max-file cannot be less than 1"),
        ("json-file", ("max-size=big",), "invalid size: 'big'"),
        ("syslog", ("syslog-facility=nose",), "invalid syslog facility"),
        ("syslog", ("syslog-format=rfc1",), "Invalid syslog format"),
        ("syslog", ("syslog-address=here",), "should be in form proto://address, got here"),
        ("json-file", ("tag={{.Nose}}",), "template: log-tag"),
        ("json-file", ("tag={{.Name",), "template: log-tag"),
        ("json-file", ("tag={{nose .Name}}",), "template: log-tag"),
        ("json-file", ("env-regex=(",), "error parsing regexp"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: EngineProcess, driver: str, options: tuple[str, ...], message: str
) -> None:
    words = ("--log-driver", driver, *(word for o in options for word in ("--log-opt", o)))
    done = engine.docker("create", "--name", "box", *words, "busybox", "true")
    assert done.code == 1
    assert message in done.err
    assert engine.docker("ps", "-aq").out == ""


@pytest.mark.berth_only
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs_are_cleared(engine: EngineProcess, driver: str) -> None:
    options = ("--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    script = "seq 9000; echo ready; read x; echo more; read x"
    words = ("run", "-di", "--name", "box", *options, *RUN, script)
    assert engine.docker(*words).code == 0
    wait_for(lambda: engine.docker("logs", "--tail", "1", "box").out == "ready\n", "it has spoken")
    with attached(engine, "box") as client:
        assert engine.berth("logs", "--clear", "box").code == 0
        wait_for(lambda: engine.docker("logs", "box").out == "", "the log is empty")
        client.sendall(b"go\n")
        wait_for(lambda: engine.docker("logs", "box").out == "more\n", "it goes on")
        client.sendall(b"go\n")
        assert engine.docker("wait", "box").out == "0\n"
    assert engine.berth("logs", "--clear", "box").code == 0
    assert engine.docker("logs", "box").out == ""
    assert engine.docker("start", "box").code == 0
    wait_for(lambda: "ready" in engine.docker("logs", "box").out, "it speaks again")


@pytest.mark.berth_only  # where Docker has no word of what it threw away
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_disk_that_does_not_write_stops_no_container_that_asks_for_it(
    engine: EngineProcess, driver: str
) -> None:
    options = ("mode=non-blocking", "max-buffer-size=200k", "max-size=-1")
    options = options if driver == "json-file" else options[:2]
    flags = ("--log-driver", driver, *(word for o in options for word in ("--log-opt", o)))
    script = f"yes {'x' * 99} | head -c 3000000; echo; echo end"
    assert engine.docker("create", "--name", "box", *flags, *RUN, script).code == 0
    assert engine.docker("start", "-a", "box").raw.endswith(b"\nend\n")
    log = next(folder(engine, "box").glob("*.log"))
    log.unlink()
    os.mkfifo(log)  # which takes no more than a pipe does, like a disk that is stuck
    stuck = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    command = [find("docker"), "-H", engine.host, "start", "-a", "box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attached:
        try:
            assert attached.stdout is not None
            said = b""
            while not said.endswith(b"\nend\n"):
                data = os.read(attached.stdout.fileno(), 1 << 16)
                assert data, said[-500:]
                said += data
            assert len(said) > 3_000_000  # the one who is attached got all of it
            os.set_blocking(stuck, True)
            written = b"".join(iter(lambda: os.read(stuck, 1 << 16), b""))
        finally:
            os.close(stuck)
            log.unlink()
    assert attached.returncode == 0
    assert re.search(rb"berth: \d+ bytes of the log are missing here: its disk is", written)
    assert len(written) < 1_000_000


# Servers


class Server:
    """A log server: datagrams or the bytes of streams, as they come."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.sock = sock
        self.context = context
        self.got: list[bytes] = []
        self._closing = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        reading = [self.sock, self._closing[0]]
        while True:
            for sock in select.select(reading, [], [])[0]:
                if sock is self._closing[0]:
                    for client in reading[2:]:
                        client.close()
                    return
                if sock is self.sock and self.sock.type == socket.SOCK_STREAM:
                    reading += self._accepted()
                    continue
                try:
                    data = sock.recv(1 << 16)
                except OSError:
                    data = b""
                if data:
                    self.got.append(data)
                elif sock is not self.sock:
                    reading.remove(sock)
                    sock.close()

    def _accepted(self) -> list[socket.socket]:
        client = self.sock.accept()[0]
        try:
            return [self.context.wrap_socket(client, server_side=True) if self.context else client]
        except OSError:  # it was not content with our certificate, or we with its
            return []

    @property
    def text(self) -> str:
        return b"".join(self.got).decode()

    def close(self) -> None:
        self._closing[1].close()
        self._thread.join()
        self.sock.close()


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[str], tuple[Server, str]]]:
    """Start a server of a kind; return it and its address."""
    servers: list[Server] = []

    def listen(kind: str) -> tuple[Server, str]:
        family = socket.AF_UNIX if kind.startswith("unix") else socket.AF_INET
        stream = kind in ("tcp", "unix")
        sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        path = f"{tmp_path}/server"
        sock.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
        if stream:
            sock.listen()
        where = path if family == socket.AF_UNIX else f"127.0.0.1:{sock.getsockname()[1]}"
        servers.append(Server(sock))
        return servers[-1], f"{kind}://{where}"

    yield listen
    for server in servers:
        server.close()


@pytest.mark.parametrize("kind", ["udp", "tcp", "unix", "unixgram"])
def test_syslog_gets_every_line(
    engine: EngineProcess, listen: Callable[[str], tuple[Server, str]], kind: str
) -> None:
    server, address = listen(kind)
    words = ("--log-driver", "syslog", "--log-opt", f"syslog-address={address}")
    assert run(engine, "box", SPEAK, *words, "--log-opt", "tag=it/{{.Name}}").code == 0
    wait_for(lambda: "no end" in server.text, "the last line is there")
    stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    expected = (
        rf"<30>{stamp} it/box\[\d+\]: out 1\n<27>{stamp} it/box\[\d+\]: err 1\n"
        rf"<30>{stamp} it/box\[\d+\]: no end\n"
    )
    assert re.fullmatch(expected, server.text), server.text
    # And clients read the copy.
    assert engine.docker("logs", "box").out == "out 1\nno end"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    certificates.make(folder, "ca")
    certificates.make(folder, "stranger")
    names = "subjectAltName=IP:127.0.0.1\n"
    certificates.make(folder, "server", signer="ca", extensions=names)
    certificates.make(folder, "elsewhere", signer="ca", extensions="subjectAltName=DNS:other\n")
    certificates.make(folder, "us", signer="ca", extensions="extendedKeyUsage=clientAuth\n")
    return folder


@contextlib.contextmanager
def secure_server(keys: Path, name: str = "server", *, asks: bool = False) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / f"{name}.pem", keys / f"{name}-key.pem")
    if asks:
        context.load_verify_locations(keys / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    server = Server(socket.create_server(("127.0.0.1", 0)), context)
    try:
        yield server
    finally:
        server.close()


def secure_words(server: Server, *options: str) -> list[str]:
    address = f"syslog-address=tcp+tls://127.0.0.1:{server.sock.getsockname()[1]}"
    chosen = (address, *options)
    return [
        *("--log-driver", "syslog"),
        *(w for option in chosen for w in ("--log-opt", option)),
    ]


def test_syslog_over_tls_gets_every_line(engine: EngineProcess, keys: Path) -> None:
    with secure_server(keys) as server:
        words = secure_words(server, f"syslog-tls-ca-cert={keys}/ca.pem", "tag=it")
        assert run(engine, "box", SPEAK, *words).code == 0
        wait_for(lambda: "no end" in server.text, "the last line is there")
        stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
        expected = rf"<30>{stamp} it\[\d+\]: out 1\n<27>{stamp} it\[\d+\]: err 1\n"
        assert re.match(expected, server.text), server.text
        assert engine.docker("logs", "box").out == "out 1\nno end"


def test_syslog_over_tls_takes_much_and_counts_its_messages(
    engine: EngineProcess, keys: Path
) -> None:
    with secure_server(keys, asks=True) as server:
        options = (
            *(f"syslog-tls-ca-cert={keys}/ca.pem", f"syslog-tls-cert={keys}/us.pem"),
            *(f"syslog-tls-key={keys}/us-key.pem", "syslog-format=rfc5424"),
        )
        words = secure_words(server, *options)
        assert run(engine, "box", "seq 50000", *words).code == 0
        wait_for(lambda: server.got[-1].endswith(b" 50000\n"), "the last line is there")
        rest, lines = b"".join(server.got), []
        while rest:
            size, _, rest = rest.partition(b" ")
            lines.append(rest[: int(size)])
            rest = rest[int(size) :]
        assert [int(line.split()[-1]) for line in lines] == list(range(1, 50001))


@pytest.mark.parametrize(
    ("server", "ca", "said"),
    [
        ("server", "stranger", "tls: failed to verify certificate"),
        ("elsewhere", "ca", "tls: failed to verify certificate"),
        ("server", "none", "could not read CA certificate"),
    ],
)
def test_a_log_server_that_is_another_gets_nothing(
    engine: EngineProcess, keys: Path, server: str, ca: str, said: str
) -> None:
    with secure_server(keys, server) as log:
        words = secure_words(log, f"syslog-tls-ca-cert={keys}/{ca}.pem")
        done = run(engine, "box", "echo secret", *words)
        assert done.code in (125, 127)  # the docker CLI says 127 when it reads "no such file"
        assert "failed to initialize logging driver" in done.err
        assert said in done.err
        assert engine.docker("rm", "box").code == 0
        assert log.text == ""
        careless = secure_words(log, "syslog-tls-skip-verify=true")
        assert run(engine, "box", "echo x", *careless).code == 0
        wait_for(lambda: log.text.endswith(": x\n"), "whoever asks for it trusts anybody")


@pytest.mark.berth_only
@pytest.mark.parametrize("option", ["ca-cert", "cert", "key"])
def test_a_certificate_that_is_no_regular_file_is_refused(
    engine: EngineProcess, keys: Path, tmp_path: Path, option: str
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    files = {"ca-cert": "ca.pem", "cert": "us.pem", "key": "us-key.pem"}
    paths = {name: str(keys / file) for name, file in files.items()} | {option: str(fifo)}
    with secure_server(keys) as log:
        words = secure_words(log, *(f"syslog-tls-{name}={path}" for name, path in paths.items()))
        done = run(engine, "box", "true", *words)
    assert done.code == 125
    assert "failed to initialize logging driver" in done.err
    assert f"open {fifo}: not a regular file" in done.err


@pytest.mark.berth_only  # Docker lets them pass
@pytest.mark.parametrize("format_", ["", "rfc3164", "rfc5424"])
def test_a_label_in_a_tag_begins_no_message_of_its_own(engine: EngineProcess, format_: str) -> None:
    with contextlib.closing(Server(socket.create_server(("127.0.0.1", 0)))) as server:
        address = f"syslog-address=tcp://127.0.0.1:{server.sock.getsockname()[1]}"
        tag = 'tag={{index .ContainerLabels "l"}}'
        flags = ["--log-driver", "syslog", "--label", "l=a\n<8>b\x7f\x85c\t\u00e9"]
        for option in (address, tag, *([f"syslog-format={format_}"] if format_ else [])):
            flags += ["--log-opt", option]
        assert run(engine, "box", "echo said", *flags).code == 0
        wait_for(lambda: server.text.endswith("said\n"), "the line is there")
        assert server.text.count("\n") == 1
        assert "a_<8>b__c_\u00e9" in server.text


def test_a_secure_log_server_that_comes_back_gets_the_rest(
    engine: EngineProcess, keys: Path
) -> None:
    with secure_server(keys) as first:
        port = first.sock.getsockname()[1]
        words = secure_words(first, f"syslog-tls-ca-cert={keys}/ca.pem")
        script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"
        assert run(engine, "box", script, "-d", *words).code == 0
        wait_for(lambda: first.text, "it has begun")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server-key.pem")
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as sock:
        sock.settimeout(20)
        with context.wrap_socket(sock.accept()[0], server_side=True) as client:
            assert re.search(rb": \d+\n$", client.recv(1000))


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("rfc3164", r"<150>[A-Z][a-z]{2} [ \d]\d [\d:]{8} \S+ [0-9a-f]{12}\[\d+\]: x\n"),
        ("rfc5424", r"<150>1 \d{4}-\d\d-\d\dT[\d:]{8}\S+ \S+ ([0-9a-f]{12}) \d+ \1 - x\n"),
        (
            "rfc5424micro",
            r"<150>1 \d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}\S+ \S+ ([0-9a-f]{12}) \d+ \1 - x\n",
        ),
    ],
)
def test_syslog_has_formats(
    engine: EngineProcess,
    listen: Callable[[str], tuple[Server, str]],
    format_: str,
    expected: str,
) -> None:
    server, address = listen("udp")
    options = (f"syslog-address={address}", f"syslog-format={format_}", "syslog-facility=local2")
    words = (word for option in options for word in ("--log-opt", option))
    assert run(engine, "box", "echo x", "--log-driver", "syslog", *words).code == 0
    wait_for(lambda: server.text, "the line is there")
    assert re.fullmatch(expected, server.text), server.text


def test_a_container_does_not_start_without_its_log_server(engine: EngineProcess) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    address = f"syslog-address=tcp://127.0.0.1:{port}"
    done = run(engine, "box", "echo x", "--log-driver", "syslog", "--log-opt", address)
    assert done.code == 125
    assert f"failed to initialize logging driver: dial tcp 127.0.0.1:{port}: connect" in done.err
    assert "connection refused" in done.err
    assert engine.inspect("box")["State"]["Status"] == "created"  # type: ignore[index]


def test_a_server_that_does_not_read_stops_no_container(engine: EngineProcess) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"syslog-address=tcp://127.0.0.1:{sock.getsockname()[1]}"
        words = ("--log-driver", "syslog", "--log-opt", address, "--log-opt", "mode=non-blocking")
        script = f"yes {'x' * 99} | head -c 20000000; exit 3"
        done = run(engine, "box", script, *words)
        assert (done.code, len(done.raw)) == (3, 20_000_000)


@pytest.mark.berth_only  # dockerd waits for ever
def test_a_server_that_does_not_read_is_given_up(engine: EngineProcess) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"syslog-address=tcp://127.0.0.1:{sock.getsockname()[1]}"
        words = ("-d", "--log-driver", "syslog", "--log-opt", address)
        script = f"yes {'x' * 99} | head -c 12000000; exit 3"
        assert run(engine, "box", script, *words).code == 0
        assert engine.docker("wait", "box").out == "3\n"


def test_a_server_that_comes_back_gets_the_rest(engine: EngineProcess, tmp_path: Path) -> None:
    path = f"{tmp_path}/log"
    first = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    first.bind(path)
    words = ("-d", "--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{path}")
    assert (
        run(engine, "box", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done", *words).code
        == 0
    )
    first.settimeout(20)
    assert b": 0\n" in first.recv(1000)
    first.close()
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(path)
        second.settimeout(20)
        assert re.search(rb": \d+\n$", second.recv(1000))


@pytest.mark.berth_only
def test_a_start_that_fails_keeps_no_folder_of_a_server_open(
    engine: EngineProcess, listen: Callable[[str], tuple[Server, str]], tmp_path: Path
) -> None:
    _, address = listen("unixgram")
    words = ("--log-driver", "syslog", "--log-opt", f"syslog-address={address}")
    mismatch = ("-v", "/etc/passwd/below:/there")
    done = engine.docker("create", "--name", "box", *words, *mismatch, "busybox", "true")
    assert done.code == 0, str(done)
    for _ in range(2):
        done = engine.docker("start", "box")
        assert (done.code, "not a directory" in done.err) == (1, True), str(done)
    assert str(tmp_path) not in held_by(engine.pid)


def held_by(pid: int) -> list[str]:
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return found


JOURNAL = Path("/run/systemd/journal/socket")


@pytest.fixture
def journal() -> Iterator[Server]:
    """A journal in place of systemd's, which this machine does not have."""
    if JOURNAL.exists():
        pytest.skip("needs a machine without systemd's journal")
    made = [p for p in (JOURNAL.parent.parent, JOURNAL.parent) if not p.exists()]
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(JOURNAL))
    server = Server(sock)
    yield server
    server.close()
    JOURNAL.unlink()
    for path in reversed(made):
        path.rmdir()


def test_journald_gets_fields(engine: EngineProcess, journal: Server) -> None:
    words = (
        "--log-driver",
        "journald",
        "--log-opt",
        "labels=com.example.rack",
        "--label",
        "com.example.rack=7",
    )
    script = "echo hello; sleep 0.05; echo oh >&2; sleep 0.05; printf half"
    assert run(engine, "box", script, *words).code == 0
    wait_for(lambda: len(journal.got) == 3, "three entries are there")
    found = [dict(line.split("=", 1) for line in e.decode().splitlines()) for e in journal.got]
    id_ = str(engine.inspect("box")["Id"])
    assert [(e["MESSAGE"], e["PRIORITY"]) for e in found] == [
        ("hello", "6"),
        ("oh", "3"),
        ("half", "6"),
    ]
    for entry in found:
        assert (
            entry["CONTAINER_ID"]
            == entry["CONTAINER_TAG"]
            == entry["SYSLOG_IDENTIFIER"]
            == id_[:12]
        )
        assert entry["CONTAINER_ID_FULL"] == id_
        assert (entry["CONTAINER_NAME"], entry["IMAGE_NAME"]) == ("box", "busybox")
        assert entry["COM_EXAMPLE_RACK"] == "7"
    assert found[2]["CONTAINER_PARTIAL_MESSAGE"] == "true"
    assert engine.docker("logs", "box").out == "hello\nhalf"


def test_journald_is_missed_at_the_start(engine: EngineProcess) -> None:
    if JOURNAL.exists():
        pytest.skip("needs a machine without systemd's journal")
    done = run(engine, "box", "true", "--log-driver", "journald")
    assert (done.code, "journald is not enabled on this host" in done.err) == (125, True)


def test_no_copy_is_kept_when_that_is_said(
    engine: EngineProcess, listen: Callable[[str], tuple[Server, str]]
) -> None:
    _, address = listen("udp")
    options = ("--log-opt", f"syslog-address={address}", "--log-opt", "cache-disabled=true")
    assert run(engine, "box", "echo x", "--log-driver", "syslog", *options).code == 0
    done = engine.docker("logs", "box")
    assert "configured logging driver does not support reading" in done.err
    assert not list(folder(engine, "box").glob("*.log"))


def test_a_full_disk_costs_log_lines_and_no_container(tmp_path: Path, busybox_tar: bytes) -> None:
    base = tmp_path / "small"
    data = base / "data"
    data.mkdir(parents=True)
    run_program(find("mount"), "-t", "tmpfs", "-o", "size=24m", "none", str(data), check=True)
    engine = EngineProcess(base)

    def is_full() -> bool:
        return os.statvfs(data).f_bavail < 32

    try:
        engine.start()
        assert engine.docker("import", "-", "busybox", stdin=busybox_tar).code == 0
        script = "seq 700000 | sed s/^/a.longer.line.of.output./; read x; echo after; exit 9"
        assert engine.docker("run", "-di", "--name", "box", *RUN, script).code == 0
        with attached(engine, "box") as client:
            wait_for(is_full, "the disk is full")
            client.sendall(b"x\n")
            assert engine.docker("wait", "box").out == "9\n"
        lines = Path(str(engine.inspect("box")["LogPath"])).read_bytes().splitlines()
        assert len(lines) > 100_000
        assert all(json.loads(line)["log"] for line in lines)
        # With room again what happened is stored, and outlives berthd.
        run_program(find("mount"), "-o", "remount,size=64m", str(data), check=True)
        assert engine.docker("rename", "box", "over").code == 0
        engine.restart()
        assert engine.inspect("over")["State"]["ExitCode"] == 9  # type: ignore[index]
    finally:
        engine.close()
        run_program(find("umount"), "-l", str(data))
