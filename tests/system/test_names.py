"""Programs that ask for names while the engine is away: of three C libraries, with their own patience."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
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
