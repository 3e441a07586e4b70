"""Programs that ask for names while the engine is away: of three C libraries, with their own patience."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from support.networks import within
from support.programs import find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engine import EngineProcess

pytestmark = pytest.mark.berth_only

# Looks a name up once, as the C library does unless told otherwise.
LOOKUP = """
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **words) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    char text[INET_ADDRSTRLEN];
    int error = getaddrinfo(words[1], 0, &hints, &found);
    if (error) { puts(gai_strerror(error)); return 1; }
    puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
    return 0;
}
"""
PROGRAMS = {
    "busybox": ("busybox", "nslookup -type=a server"),
    "glibc": ("host", "getent ahostsv4 server"),
    "musl": ("busybox", "/lookup server"),
}


class Asker:
    """A container that asks for the address of another one, by programs that the engine has no part in."""

    def __init__(self, engine: EngineProcess) -> None:
        self.pid = engine.inspect("client")["State"]["Pid"]
        self.address = engine.inspect("server")["NetworkSettings"]["Networks"]["named"]["IPAddress"]

    @contextmanager
    def running(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """Run a shell's script inside."""
        command = ("-t", str(self.pid), "-m", "-n", "--", "/bin/sh", "-c", script)
        with subprocess.Popen(
            [find("nsenter"), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def has_asked(self) -> bool:
        """Say whether a question waits to be read."""
        fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            lines = within(fd, _datagram_sockets)
        finally:
            os.close(fd)
        return any(int(line.split()[4].partition(":")[2], 16) for line in lines)


def _datagram_sockets() -> list[str]:
    with open("/proc/thread-self/net/udp") as file:
        return file.readlines()[1:]


@pytest.fixture(params=PROGRAMS)
def asker(
    request: pytest.FixtureRequest, fresh_engine: EngineProcess, tmp_path: Path
) -> tuple[Asker, str]:
    """Somebody who asks, and how."""
    cli = fresh_engine.docker
    image, command = PROGRAMS[request.param]
    assert cli("network", "create", "named").code == 0
    for name, kind in (("server", "busybox"), ("client", image)):
        done = cli("run", "-d", "--network=named", f"--name={name}", kind, "sleep", "600")
        assert done.code == 0, str(done)
    if request.param == "musl":
        source, program = tmp_path / "lookup.c", tmp_path / "lookup"
        source.write_text(LOOKUP)
        run(find("musl-gcc"), "-static", "-o", str(program), str(source), check=True)
        assert cli("cp", str(program), "client:/lookup").code == 0
    return Asker(fresh_engine), command


def test_a_question_that_is_asked_while_the_engine_is_away_is_answered_by_the_next_one(
    fresh_engine: EngineProcess, asker: tuple[Asker, str]
) -> None:
    client, command = asker
    fresh_engine.kill()
    with client.running(command) as program:
        wait_for(client.has_asked, "the question waits")
        assert program.poll() is None
        fresh_engine.start()
        answer, _ = program.communicate()
        assert (program.returncode, client.address in answer) == (0, True), answer


def test_no_question_of_many_fails_while_engines_come_and_go(
    fresh_engine: EngineProcess, asker: tuple[Asker, str]
) -> None:
    client, command = asker
    script = f"until [ -e /enough ]; do {command} >/got 2>&1 || {{ cat /got; exit 1; }}; done"
    with client.running(script) as program:
        for _ in range(3):
            fresh_engine.kill()
            wait_for(client.has_asked, "a question waits")
            fresh_engine.start()
            wait_for(lambda: not client.has_asked(), "it was read")
        assert fresh_engine.docker("exec", "client", "touch", "/enough").code == 0
        told, _ = program.communicate()
        assert program.returncode == 0, told


class Zone:
    """A name server in a container, which knows one name and says of all others that there are none."""

    def __init__(self, engine: EngineProcess, name: str) -> None:
        self.asked: list[str] = []
        pid = engine.inspect(name)["State"]["Pid"]
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            self._socket = within(fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        finally:
            os.close(fd)
        self._socket.bind(("0.0.0.0", 53))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Zone:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # it is connected to nobody, and its reader wakes nevertheless
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, peer = self._socket.recvfrom(512)
            except OSError:
                return
            if not question:
                return
            end = question.index(0, 12) + 5
            labels, place = [], 12
            while length := question[place]:
                labels.append(question[place + 1 : place + 1 + length].decode())
                place += 1 + length
            self.asked.append(".".join(labels))
            is_known = self.asked[-1] == "short.berth.example"
            kind = question[end - 3]
            answer = (
                b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xcb\0\x71\7" if is_known and kind == 1 else b""
            )
            flags = b"\x81\x80" if is_known else b"\x81\x83"
            head = question[:2] + flags + b"\0\1" + bytes((0, bool(answer))) + bytes(4)
            self._socket.sendto(head + question[12:end] + answer, peer)


@pytest.mark.parametrize("network", ["bridge", "named"])
@pytest.mark.parametrize("kind", ["docker", "berth"])
def test_a_short_name_is_found_in_the_search_domains(
    engine: EngineProcess, network: str, kind: str
) -> None:
    cli = engine.docker if kind == "docker" else engine.berth
    if network == "named":
        assert cli("network", "create", "named").code == 0
    try:
        flags = ("--network", network, "--name", "zone")
        assert cli("run", "-d", *flags, "busybox", "sleep", "600").code == 0
        found = engine.inspect("zone")["NetworkSettings"]["Networks"][network]["IPAddress"]
        ask = ("run", "--rm", "--network", network, "--dns", found)
        domains = ("--dns-search", "other.example", "--dns-search", "berth.example")
        with Zone(engine, "zone") as zone:
            done = cli(*ask, *domains, "host", "getent", "ahostsv4", "short")
            assert (done.code, done.lines[0].split()[0]) == (0, "203.0.113.7"), str(done)
            assert zone.asked.index("short.other.example") < zone.asked.index("short.berth.example")
            zone.asked.clear()
            done = cli(*ask, "--dns-search", ".", "host", "getent", "ahostsv4", "short")
            assert (done.code, done.out) == (2, ""), str(done)
            assert set(zone.asked) == {"short"}
    finally:
        engine.remove_containers()
        if network == "named":
            cli("network", "rm", "named")
