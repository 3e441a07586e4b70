"""What berth writes into the files of a container that runs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from berth.engine import hostfiles

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "127.0.0.1\tlocalhost\n"


def hosts(folder: Path, text: str) -> Path:
    path = folder / "hosts"
    path.write_text(text)
    return path


def test_an_address_is_changed_in_place(tmp_path: Path) -> None:
    path = hosts(tmp_path, f"{HEAD}172.17.0.2\tdb\nof its own\n")
    inode = path.stat().st_ino
    for address in ("172.17.0.200", "172.17.0.3"):  # longer, then shorter
        hostfiles.relink(tmp_path, [(address, "db")])
        assert sorted(path.read_text().splitlines()) == sorted(
            ["127.0.0.1\tlocalhost", f"{address}\tdb", "of its own"]
        )
    assert path.stat().st_ino == inode


def test_whoever_reads_meanwhile_finds_a_whole_file(tmp_path: Path) -> None:
    path = hosts(tmp_path, f"{HEAD}172.17.0.2\tdb\n")
    over = threading.Event()

    def write() -> None:
        for number in range(2000):
            address = "172.17.100.200" if number % 2 else "172.17.0.2"
            hostfiles.relink(tmp_path, [(address, "db")])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    found = set()
    while not over.is_set():
        found.add(path.read_text()[: len(HEAD)])
    writer.join()
    assert found == {HEAD}


def test_a_disk_that_is_full_leaves_the_old_text(tmp_path: Path) -> None:
    text = f"{HEAD}172.17.0.2\tdb\n"
    path = hosts(tmp_path, text)
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(text) + 2, len(text) + 2))
            hostfiles.relink(tmp_path, [("172.17.100.200", "db")])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert path.read_text() == text


@pytest.mark.parametrize("kind", [fcntl.F_RDLCK, fcntl.F_WRLCK])
def test_nobody_waits_for_who_has_a_lease_on_a_file(tmp_path: Path, kind: int) -> None:
    text = f"{HEAD}172.17.0.2\tdb\n"
    path = hosts(tmp_path, text)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, kind)
            os.write(writer, b"x")
            signal.pause()
        finally:
            os._exit(0)
    os.read(reader, 1)
    before = time.monotonic()
    hostfiles.relink(tmp_path, [("172.17.100.200", "db")])
    waited_s = time.monotonic() - before
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert waited_s < 5
    assert path.read_text() == text
    for fd in (reader, writer):
        os.close(fd)


@pytest.mark.parametrize("size_mb", [0, 32])
def test_the_engine_does_not_wait_for_the_end_of_a_large_file(tmp_path: Path, size_mb: int) -> None:
    """One of a million pieces takes the kernel a minute, be it to remove or to cut off."""
    folder = tmp_path / "container"
    folder.mkdir()
    with (folder / "hosts").open("wb") as file:
        if size_mb:
            os.posix_fallocate(file.fileno(), 0, size_mb << 20)
    seen: list[bool] = []

    def remove() -> None:
        seen.append(threading.current_thread() is threading.main_thread())
        hostfiles.remove_tree(folder)

    asyncio.run(hostfiles.apart(folder, remove))
    assert seen == [not size_mb]
    assert not folder.exists()
    asyncio.run(hostfiles.apart(folder, remove))  # there is nothing any more


def test_a_folder_goes_while_its_log_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "container"
    folder.mkdir()
    plain, half, packed = (folder / name for name in ("log.1", "log.1.packing", "log.1.gz"))
    plain.touch()
    half.touch()
    unlink = os.unlink

    def pack_and_unlink(*args: object, **options: object) -> None:
        if half.exists():
            half.rename(packed)
            unlink(plain)
        unlink(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", pack_and_unlink)
    hostfiles.remove_tree(folder)
    assert not folder.exists()


@pytest.mark.parametrize("address", ["172.17.0.200", "172.17.0.9", "10.1.1.1"])
def test_a_large_file_gets_the_new_address_and_keeps_its_lines(
    tmp_path: Path, address: str
) -> None:
    rest = "".join(f"192.0.2.1\tname{number}\n" for number in range(100_000))
    path = hosts(tmp_path, f"{HEAD}172.17.0.2\tdb\n{rest}the end")
    inode = path.stat().st_ino
    hostfiles.relink(tmp_path, [(address, "db")])
    expected = [*HEAD.splitlines(), f"{address}\tdb", *rest.splitlines(), "the end"]
    found = [line for line in path.read_text().splitlines() if line]
    assert sorted(found) == sorted(expected)
    assert path.stat().st_ino == inode
