from __future__ import annotations

import os
import tracemalloc

import pytest

from berth.runtime.removal import remove_tree


def test_a_tree_goes_and_its_neighbours_stay(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    top = tmp_path / "top"
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/file").write_text("x")
    (top / "a/b/link").symlink_to(outside)
    (top / "dangling").symlink_to("nowhere")
    os.mkfifo(top / "a/b/c/fifo")
    remove_tree(str(top))
    assert not top.exists()
    assert (outside / "file").read_text() == "kept"


def test_a_tree_deeper_than_paths_can_name_goes(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=fd)
        deeper = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove_tree(str(top))
    assert not top.exists()


def test_a_directory_of_many_files_takes_no_memory_for_each(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for number in range(10_000):
        os.mknod(f"{'long' * 50}{number}", dir_fd=fd)
    os.close(fd)
    tracemalloc.start()
    remove_tree(str(top))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not top.exists()
    assert peak < 200_000


def test_missing_is_fine(tmp_path):
    remove_tree(str(tmp_path / "none"))
    assert tmp_path.exists()


def test_a_link_to_a_tree_is_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").touch()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"):
        remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "real/file").exists()
