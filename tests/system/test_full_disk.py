"""A full disk: one clear line, what runs goes on, nothing half-made, and all is well with room again."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from berth.engine.instance import Instance
from support.archives import blobs_of, layers_of
from support.engine import EngineProcess
from support.programs import find, run
from support.waiting import wait_for
from system.conftest import assert_gone, import_busybox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.programs import Outcome

pytestmark = pytest.mark.berth_only
FULL = "no space left on device"


@pytest.fixture(scope="module")
def _small(busybox_tar: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine with a data root of 16 MB."""
    base = tmp_path_factory.mktemp("small")
    disk = base / "disk"
    disk.mkdir()
    run(find("mount"), "-t", "tmpfs", "-o", "size=16m", "small", str(disk), check=True)
    engine = EngineProcess(base)
    engine.data_root = disk / "data"
    engine.instance = Instance.of(engine.data_root)
    try:
        engine.start()
        import_busybox(engine, busybox_tar)
        yield engine
    finally:
        run(find("umount"), "-l", str(disk))
        engine.close()
    assert_gone(engine)


@pytest.fixture
def small(_small: EngineProcess) -> Iterator[EngineProcess]:
    yield _small
    _small.remove_containers()
    _small.wait_settled()


@pytest.fixture(params=["docker", "berth"])
def command(small: EngineProcess, request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    return small.docker if request.param == "docker" else small.berth


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Leave no byte in a file system."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1))
        yield
    finally:
        filler.unlink()


def noise(megabytes: int) -> bytes:
    """Return an archive with a file that cannot be compressed."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        entry = tarfile.TarInfo("noise")
        entry.size = megabytes << 20
        archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    return body.getvalue()


def test_what_needs_room_says_that_there_is_none(
    small: EngineProcess, command: Callable[..., Outcome], busybox_tar: bytes
) -> None:
    saved = small.docker("save", "busybox:latest").raw
    small.docker("run", "-d", "--name", "up", "--network", "none", "busybox", "sleep", "600")
    assert (
        small.docker("exec", "up", "sh", "-c", "head -c 300000 /dev/urandom > /root/file").code == 0
    )
    before = (blobs_of(small), layers_of(small))
    with filled(small.data_root):
        for words, data in (
            (("import", "-", "more"), busybox_tar),
            (("import", "-", "more"), noise(1)),
            (("load",), saved),
            (("commit", "up", "more"), b""),
            (("cp", "-", "up:/root"), noise(1)),
        ):
            done = command(*words, stdin=data)
            if words == ("load",) and done.code == 0:
                continue  # it has it all already
            assert done.code == 1, str(done)
            assert FULL in done.err.lower() + done.out.lower(), str(done)
            assert "Traceback" not in done.err
        done = command("run", "--rm", "--network", "none", "busybox", "true")
        assert done.code in (0, 125), str(done)
        assert done.code == 0 or FULL in done.err.lower(), str(done)
        assert command("exec", "up", "wc", "-c", "/root/file").out == "300000 /root/file\n"
        assert command("ps", "--format", "{{.Names}}").out == "up\n"
        full = small.docker("exec", "up", "sh", "-c", "head -c 300000 /dev/zero > /root/big")
        assert full.code == 1
    assert (blobs_of(small), layers_of(small)) == before
    assert command("commit", "up", "more").code == 0
    assert command("rmi", "more").code == 0


def test_lives_go_on_and_end_without_room(
    small: EngineProcess, command: Callable[..., Outcome]
) -> None:
    count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"
    for name, script in (("writer", count), ("short", "read x; exit 3")):
        words = ("-d", "-i", "--name", name, "--network", "none", "busybox", "sh", "-c", script)
        assert small.docker("run", *words).code == 0
    wait_for(lambda: "line 3\n" in small.docker("logs", "writer").out, "it writes")
    with filled(small.data_root):
        seen = len(command("logs", "writer").lines)
        assert seen >= 3
        assert small.docker("attach", "short", stdin=b"x\n").code in (0, 3)
        wait_for(lambda: small.inspect("short")["State"]["Status"] == "exited", "its end is known")
        assert small.inspect("short")["State"]["ExitCode"] == 3
        assert small.inspect("writer")["State"]["Running"] is True
    wait_for(lambda: len(small.docker("logs", "writer").lines) > seen + 3, "lines are kept again")
    with filled(small.data_root):
        assert command("stop", "-t", "0", "writer").code == 0
        assert command("ps", "-aq", "--filter", "status=running").out == ""
        assert small.docker("rm", "writer", "short").code == 0
    done = command("run", "--rm", "--network", "none", "busybox", "echo", "fine")
    assert (done.code, done.out) == (0, "fine\n")


def test_an_engine_starts_on_a_full_disk(small: EngineProcess) -> None:
    small.docker("run", "-d", "--name", "kept", "--network", "none", "busybox", "sleep", "600")
    with filled(small.data_root):
        small.restart()
        assert small.docker("exec", "kept", "true").code == 0
        assert small.docker("ps", "--format", "{{.Names}}").out == "kept\n"


def test_a_start_without_room_holds_nothing(
    small: EngineProcess, command: Callable[..., Outcome]
) -> None:
    words = ("--name", "later", "-v", "kept:/kept", "busybox", "sleep", "600")
    done = small.docker("create", *words)
    assert done.code == 0, str(done)
    folder = small.data_root / "containers" / done.out.strip()
    # Its folder alone: elsewhere what the engine keeps in reserve makes room.
    run(find("mount"), "-t", "tmpfs", "-o", "size=4k", "tiny", str(folder), check=True)
    try:
        with filled(folder):
            for _ in range(2):
                done = command("start", "later")
                assert done.code == 1, str(done)
                assert FULL in done.err, str(done)
                state = small.inspect("later")["State"]
                assert (state["Error"], state["Status"]) == (FULL, "created")
            assert not list((small.exec_root / "containers").iterdir())
            users = small.docker("network", "inspect", "bridge", "-f", "{{.Containers}}")
            assert users.out == "map[]\n"
    finally:
        run(find("umount"), "-l", str(folder), check=True)
    done = command("start", "later")
    assert (done.code, small.inspect("later")["State"]["Error"]) == (0, ""), str(done)
    assert small.docker("rm", "-f", "later").code == 0
    assert small.docker("volume", "rm", "kept").code == 0
