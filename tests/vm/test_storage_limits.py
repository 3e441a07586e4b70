"""`--storage-opt size`: quotas of projects, which not every kernel has, on xfs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from berth.kernel import quotas
from support.engine import EngineProcess
from support.programs import find, run
from support.waiting import wait_for
from system.conftest import clean, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
RUN = ("run", "--rm", "--network", "none")
FILL = "dd if=/dev/zero of=/full bs=65536 2>&1 | grep -o 'No space.*\\|.*quota.*'; stat -c %s /full"
SHOW = "df -m / | tail -n 1"


def make_engine(folder: Path, *flags: str) -> EngineProcess:
    """An engine whose data root is on a file system of its own, mounted for it alone."""
    image = folder / "image"
    image.touch()
    os.truncate(image, 512 * MIB)
    run(find("mkfs.xfs"), "-q", str(image), check=True)
    engine = EngineProcess(folder / "base")
    engine.data_root.mkdir(parents=True)
    mount = f'mount -t xfs -o loop,pquota {image} {engine.data_root} && exec "$@"'
    prefix = (find("unshare"), "--mount", "sh", "-ec", mount, "sh")
    return EngineProcess(folder / "base", flags=flags, prefix=prefix)


@pytest.fixture(scope="module")
def limiting_engine(
    tmp_path_factory: pytest.TempPathFactory,
    busybox_tar: bytes,
) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("xfs")
    engine = make_engine(folder, "--storage-opt", "overlay2.size=20m")
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def limiting(limiting_engine: EngineProcess) -> Iterator[EngineProcess]:
    yield limiting_engine
    clean(limiting_engine)


def size_of(lines: list[str]) -> int:
    return int(lines[-1])


def snapshots(engine: EngineProcess) -> str:
    return f"/proc/{engine.pid}/root{engine.data_root}/snapshots"


def projects(engine: EngineProcess) -> set[int]:
    """Return the projects of the directories that there are."""
    folder = snapshots(engine)
    return {quotas.project_of(f"{folder}/{name}") for name in os.listdir(folder)} - {0}


def test_a_container_writes_as_much_as_it_is_told(limiting: EngineProcess) -> None:
    done = limiting.docker(
        *(*RUN, "--storage-opt", "size=8M"),
        *("busybox", "sh", "-c", f"{SHOW}; {FILL}; rm /full; {FILL}"),
    )
    assert done.lines[0].split()[1] == "8", str(done)
    sizes = [int(line) for line in done.lines if line.isdecimal()]
    assert len(sizes) == 2
    assert all(7 * MIB < size <= 8 * MIB for size in sizes)
    assert "No space" in done.out or "quota" in done.out


def test_others_have_what_the_engine_says(limiting: EngineProcess) -> None:
    made = limiting.docker(
        *("run", "-d", "--name", "full", "--network", "none", "--storage-opt", "size=1M"),
        *("busybox", "sh", "-c", f"{FILL}; exec sleep 1000"),
    )
    assert made.code == 0, str(made)
    limiting.restart()
    done = limiting.docker(*RUN, "busybox", "sh", "-c", f"{SHOW}; {FILL}")
    assert done.lines[0].split()[1] == "20", str(done)
    assert 19 * MIB < size_of(done.lines) <= 20 * MIB, str(done)
    size = limiting.docker("exec", "full", "stat", "-c", "%s", "/full")
    assert size_of(size.lines) <= MIB


def test_a_limit_goes_with_its_container(limiting: EngineProcess) -> None:
    made = limiting.docker("create", "--name", "gone", "--network", "none", "busybox", "true")
    assert made.code == 0, str(made)
    (project,) = projects(limiting)
    with quotas.open_directory(snapshots(limiting)) as fd:
        assert quotas.is_used(fd, project)
        assert limiting.docker("rm", "gone").code == 0
        wait_for(lambda: not quotas.is_used(fd, project), "its project is given up")
    assert not projects(limiting)


def test_what_is_no_size_is_refused(limiting: EngineProcess) -> None:
    for option, words in (
        ("size=much", "invalid size: 'much'"),
        ("speed=1", "Unknown option speed"),
    ):
        done = limiting.docker(*RUN, "--storage-opt", option, "busybox", "true")
        assert done.code == 125
        assert words in done.err


def test_layers_of_builds_have_none(limiting: EngineProcess, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN dd if=/dev/zero of=/some bs=65536 count=16\n"
    )
    built = limiting.berth("build", "-t", "built", str(context))
    assert built.code == 0, str(built)
    done = limiting.docker(*RUN, "built", "sh", "-c", f"stat -c %s /some; {FILL}")
    assert done.lines[0] == str(MIB)
    assert 19 * MIB < size_of(done.lines) <= 20 * MIB, str(done)


FILL_VOLUME = f"df -m /v | tail -n 1; {FILL.replace('/full', '/v/full')}"


def volume_project(engine: EngineProcess, name: str) -> int:
    return quotas.project_of(f"/proc/{engine.pid}/root{engine.data_root}/volumes/{name}/_data")


@pytest.mark.parametrize("kind", ["created", "mounted"])
def test_a_volume_takes_as_much_as_it_is_told(limiting: EngineProcess, kind: str) -> None:
    if kind == "created":
        made = limiting.docker("volume", "create", "-o", "size=4M", "small")
        assert made.code == 0, str(made)
    mount = ("--mount", "type=volume,source=small,target=/v,volume-opt=size=4M")
    done = limiting.docker(*RUN, *mount, "busybox", "sh", "-c", f"{FILL_VOLUME}; rm /v/full")
    assert done.lines[0].split()[1] == "4", str(done)
    assert 3 * MIB < size_of(done.lines) <= 4 * MIB
    assert limiting.request("GET", "/volumes/small")[1]["Options"] == {"size": "4M"}
    limiting.restart()
    done = limiting.docker(*RUN, *mount, "busybox", "sh", "-c", FILL_VOLUME)
    assert 3 * MIB < size_of(done.lines) <= 4 * MIB
    project = volume_project(limiting, "small")
    with quotas.open_directory(snapshots(limiting)) as fd:
        assert quotas.is_used(fd, project)
        assert limiting.docker("volume", "rm", "small").code == 0
        assert not quotas.is_used(fd, project)


def test_a_volume_of_any_size_is_as_large_as_the_disk(limiting: EngineProcess) -> None:
    for options in ((), ("-o", "size=0")):
        assert limiting.docker("volume", "create", *options, "large").code == 0
        assert volume_project(limiting, "large") == 0
        done = limiting.docker(
            *RUN, "-v", "large:/v", "busybox", "sh", "-c", "df -m /v | tail -n 1"
        )
        assert int(done.lines[0].split()[1]) > 100
        assert limiting.docker("volume", "rm", "large").code == 0


def test_what_an_image_has_must_fit_into_a_volume(limiting: EngineProcess) -> None:
    mount = ("--mount", "type=volume,source=small,target=/bin,volume-opt=size=64K")
    done = limiting.docker("create", *mount, "busybox", "true")
    assert done.code == 1
    assert "no space left on device" in done.err.lower()
    assert limiting.docker("volume", "ls", "-q").out == ""
    assert limiting.docker("ps", "-aq").out == ""


@pytest.mark.parametrize("kind", ["tmpfs", "none"])
def test_what_is_mounted_from_elsewhere_has_no_quota(limiting: EngineProcess, kind: str) -> None:
    device = "tmpfs" if kind == "tmpfs" else "/tmp"
    flags = ("-o", f"type={kind}", "-o", f"device={device}", "-o", "o=bind", "-o", "size=1M")
    done = limiting.docker("volume", "create", *flags, "small")
    assert (done.code, "quota size requested but no quota support" in done.err) == (1, True)
    assert limiting.docker("volume", "ls", "-q").out == ""
