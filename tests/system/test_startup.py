"""The default engine starts when it is needed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from berth import __version__
from berth.client import startup
from berth.client.address import Address, Roots
from berth.client.connection import Connection
from berth.engine.instance import Instance
from berth.errors import Unavailable
from support import kernel
from support.engine import EngineProcess
from support.programs import run
from support.waiting import wait_for
from system.conftest import make_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.berth_only


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Roots]:
    found = Roots(str(tmp_path / "data"), str(tmp_path / "exec"))
    yield found
    try:
        with open(f"{found.data}/lock", encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the engine left")
    kernel.remove_objects(Instance.of(Path(found.data)))


def connection_to(roots: Roots) -> Connection:
    return Connection(Address(f"unix://{roots.socket}", path=roots.socket))


def test_clients_at_the_same_time_start_one_engine(roots: Roots) -> None:
    pings: list[bytes] = []

    def use() -> None:
        connection = connection_to(roots)
        startup.start(roots, connection)
        pings.append(connection.request("GET", "/_ping").read())
        connection.close()

    clients = [threading.Thread(target=use) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert pings == [b"OK"] * 3


def test_engines_that_start_at_the_same_time_have_subnets_of_their_own() -> None:
    engines = [make_engine() for _ in range(3)]
    try:
        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(EngineProcess.start, engines))
            asked = [(engine, {"Name": name}) for name in ("one", "two") for engine in engines]
            made = list(pool.map(lambda a: a[0].request("POST", "/networks/create", a[1]), asked))
        assert {status for status, _ in made} == {201}
        networks = [engine.request("GET", "/networks")[1] for engine in engines]
        subnets = [
            config["Subnet"]
            for found in networks
            for network in found
            for config in network["IPAM"]["Config"] or ()
        ]
        assert len(subnets) == 9
        assert len(set(subnets)) == 9, subnets
    finally:
        for engine in engines:
            engine.close()


def test_an_engine_that_does_not_start_is_told_with_its_last_words(roots: Roots) -> None:
    with open(roots.data, "w", encoding="ascii"):
        pass  # a file where the data root should be
    with pytest.raises(Unavailable, match=r"start engine: .*data") as caught:
        startup.start(roots, connection_to(roots))
    assert caught.value.hint == f"its log is {roots.exec}/berthd.log"


def test_the_installed_command_finds_what_it_depends_on(
    engine: EngineProcess, tmp_path: Path
) -> None:
    installed = str(Path(sys.executable).with_name("berth"))
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY Dockerfile /copied\n")
    built = run(installed, "-H", engine.host, "build", "-q", str(tmp_path))
    assert built.code == 0, str(built)
    engine.docker("create", "--name", "made", built.out.strip(), "true")
    copied = run(installed, "-H", engine.host, "cp", "made:/copied", "-")
    assert copied.code == 0, str(copied)
    assert b"FROM busybox" in copied.raw
    engine.docker("rm", "made")
    engine.docker("rmi", built.out.strip())


def test_the_installed_command_runs_without_site_and_from_anywhere(tmp_path: Path) -> None:
    installed = Path(sys.executable).with_name("berth")
    link = tmp_path / "berth"
    link.symlink_to(installed)
    for command in (str(installed), str(link)):
        done = run(command, "--version", cwd="/")
        assert (done.code, done.out) == (0, f"berth version {__version__}\n"), str(done)
