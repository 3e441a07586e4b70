"""Whether somebody has a container's root still, when all its processes and mounts are gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from berth.files import roots
from berth.kernel import mounts
from support.forks import in_child

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = {"file": os.O_RDWR, "directory": os.O_RDONLY, "place": os.O_PATH}


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(roots, "ROOTFS", str(tmp_path / "empty"))
    for name in ("empty", "lower", "1/fs/directory", "1/work"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("file", "place"):
        (tmp_path / "1/fs" / name).touch()
    return {"base": str(tmp_path), "lower": ["lower"], "upper": "1/fs", "work": "1/work"}


def is_left(message: dict[str, object], kept: str) -> bool:
    """Mount and unmount a root, but for something in it that is kept open; then ask."""
    roots.own_namespace()
    os.chdir(str(message["base"]))
    options = [("lowerdir", "lower"), ("upperdir", "1/fs"), ("workdir", "1/work")]
    tree = mounts.make_mount("overlay", options, read_only=False)
    if kept:
        os.open(kept, FLAGS[kept], dir_fd=tree)
    os.close(tree)
    return roots.is_left(message)


def test_nothing_is_left(message: dict[str, object], tmp_path: Path) -> None:
    assert in_child(lambda: is_left(message, ""))
    found = os.listxattr(tmp_path / "1/fs")
    assert not [name for name in found if "overlay" in name]
    assert sorted(os.listdir(tmp_path / "1/fs")) == ["directory", "file", "place"]


@pytest.mark.parametrize("kept", FLAGS)
def test_something_is_open_still(message: dict[str, object], kept: str) -> None:
    assert not in_child(lambda: is_left(message, kept))
