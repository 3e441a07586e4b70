from __future__ import annotations

import os
import socket
import stat
from contextlib import contextmanager

import pytest

from berth.runtime.treecopy import TreeCopy

pytestmark = pytest.mark.root

MTIME_NS = 1_500_000_000_123_456_789
CAPABILITY = b"\x01\0\0\x02\0\x20" + b"\0" * 14


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a copy has it for its own
    os.umask(0o022)
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    return tmp_path / "from", tmp_path / "to"


@contextmanager
def opened(*paths):
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def copy(source, target):
    with opened(source, target) as fds:
        TreeCopy(*fds).whole()


def facts(path):
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid, found.st_rdev, found.st_mtime_ns


def test_everything_about_files_is_copied(folders):
    source, target = folders
    (source / "inner").mkdir()
    (source / "inner/set").write_text("text")
    os.chown(source / "inner/set", 5, 6)
    (source / "inner/set").chmod(0o6755)
    os.setxattr(source / "inner/set", "security.capability", CAPABILITY)
    os.setxattr(source / "inner", "user.colour", b"blue")
    (source / "link").symlink_to("/etc/passwd")
    os.mknod(source / "device", stat.S_IFCHR | 0o620, os.makedev(1, 3))
    os.setxattr(source / "device", "trusted.mark", b"x")
    os.mkfifo(source / "fifo")
    os.chown(source / "inner", 7, 8)
    (source / "inner").chmod(0o2711)
    for path in (*source.iterdir(), source / "inner/set", source):
        os.utime(path, ns=(0, MTIME_NS), follow_symlinks=False)
    copy(source, target)
    for name in ("inner", "inner/set", "link", "device", "fifo", "."):
        assert facts(target / name) == facts(source / name), name
    assert (target / "inner/set").read_text() == "text"
    assert os.getxattr(target / "inner/set", "security.capability") == CAPABILITY
    assert os.getxattr(target / "inner", "user.colour") == b"blue"
    assert os.getxattr(target / "device", "trusted.mark") == b"x"
    assert (target / "link").readlink().as_posix() == "/etc/passwd"


def test_names_of_one_file_are_names_of_one_file_again(folders):
    source, target = folders
    (source / "first").write_text("x")
    (source / "deep/deeper").mkdir(parents=True)
    for name in ("second", "deep/deeper/third"):
        (source / name).hardlink_to(source / "first")
    copy(source, target)
    assert (target / "first").stat().st_nlink == 3
    assert (target / "deep/deeper/third").samefile(target / "second")


def test_holes_stay_holes(folders):
    source, target = folders
    with (source / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    copy(source, target)
    made = target / "sparse"
    assert made.stat().st_size == (64 << 20) + 3
    assert made.stat().st_blocks * 512 < 1 << 20
    with made.open("rb") as file:
        file.seek(64 << 20)
        assert file.read() == b"end"


def test_a_directory_that_passes_on_its_group_does_not_to_what_is_copied(folders):
    source, target = folders
    (source / "file").touch()
    (source / "inner").mkdir()
    os.chown(target, 0, 50)
    target.chmod(0o2775)
    with opened(source, target) as fds:
        TreeCopy(*fds).tree()
    assert [(target / name).stat().st_gid for name in ("file", "inner")] == [0, 0]
    assert stat.S_IMODE((target / "inner").stat().st_mode) == 0o755
    assert stat.S_IMODE(target.stat().st_mode) == 0o2775


def test_what_is_in_the_way_goes_and_directories_are_merged(folders):
    source, target = folders
    for name in ("file", "now-file", "was-file/inner"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("new")
    (source / "linked").hardlink_to(source / "file")
    (source / "both").mkdir()
    (source / "both/mine").touch()
    for name in ("file", "now-file/below", "was-file", "linked", "both/yours"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text("old")
    os.setxattr(target / "both", "user.old", b"x")
    copy(source, target)
    assert [(target / name).read_text() for name in ("file", "now-file", "was-file/inner")] == [
        "new"
    ] * 3
    assert (target / "linked").samefile(target / "file")
    assert sorted(os.listdir(target / "both")) == ["mine", "yours"]
    assert os.listxattr(target / "both") == ["user.old"]


def test_links_in_the_way_are_not_followed(folders, tmp_path):
    source, target = folders
    outside = tmp_path / "outside"
    outside.mkdir()
    (source / "folder").mkdir()
    (source / "folder/file").write_text("new")
    (source / "file").write_text("new")
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "victim")
    copy(source, target)
    assert os.listdir(outside) == []
    assert not (target / "folder").is_symlink()
    assert (target / "file").read_text() == "new"


def test_the_outermost_directories_may_be_links_that_stay_inside(folders, tmp_path):
    source, target = folders
    (source / "real").mkdir()
    (source / "real/file").touch()
    (source / "real/again").hardlink_to(source / "real/file")
    (source / "link").symlink_to("/real")
    (target / "place").mkdir()
    (target / "link").symlink_to("/place")
    with opened(source, target) as fds:
        TreeCopy(*fds).tree("link", "link")
    assert (target / "place/again").samefile(target / "place/file")
    assert (target / "link").is_symlink()


def test_sockets_are_left_out(folders):
    source, target = folders
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("from/socket")
        copy(source, target)
    assert os.listdir(target) == []


@pytest.mark.parametrize("umask", [0, 0o077])
def test_devices_and_fifos_have_their_mode_whatever_the_umask(folders, umask):
    source, target = folders
    os.mkfifo(source / "fifo")
    (source / "fifo").chmod(0o666)
    os.umask(umask)
    copy(source, target)
    assert facts(target / "fifo") == facts(source / "fifo")
    assert os.umask(0o022) == umask


def test_what_somebody_puts_in_the_place_of_a_fifo_leads_to_no_file(folders, monkeypatch):
    source, target = folders
    victim = target.parent / "victim"
    victim.touch(0o600)
    os.mkfifo(source / "fifo")
    (source / "fifo").chmod(0o666)
    make = os.mknod

    def replaced(name, *args, dir_fd):
        make(name, *args, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.symlink("../victim", name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", replaced)
    copy(source, target)
    assert (target / "fifo").is_symlink()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
