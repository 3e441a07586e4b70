from __future__ import annotations

import os

import pytest

from berth.snapshots.merging import Merge

pytestmark = pytest.mark.root


@pytest.mark.parametrize("link", [True, False])
def test_a_directory_is_what_the_topmost_layer_says(tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "low/both").mkdir(parents=True)
    os.setxattr(tmp_path / "low/both", "user.old", b"x")
    os.chown(tmp_path / "low/both", 0, 50)
    (tmp_path / "low/both").chmod(0o2775)
    (tmp_path / "low/both/yours").touch()
    (tmp_path / "high/both").mkdir(parents=True)
    (tmp_path / "high/both/mine").touch()
    (tmp_path / "root").mkdir()
    root = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    for name in ("low", "high"):
        layer = os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY)
        Merge(layer, root, link=link).run()
        os.close(layer)
    os.close(root)
    made = tmp_path / "root/both"
    assert os.listxattr(made) == []
    assert (made.stat().st_mode & 0o7777, made.stat().st_gid) == (0o755, 0)
    assert [(path.name, path.stat().st_gid) for path in sorted(made.iterdir())] == [
        ("mine", 0),
        ("yours", 50),
    ]
    assert (made / "mine").samefile(tmp_path / "high/both/mine") is link
