"""The built-in image: what is hidden of this machine, and how old it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.images import host

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_other_engines_data_is_hidden_where_they_were_told_to_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "daemon.json").write_text('{"data-root": "/srv/docker", "exec-root": 7, "x": {}}')
    (tmp_path / "storage.conf").write_text(
        '[storage]\ngraphroot = "/srv/podman"\nrunroot = "rel"\n'
    )
    (tmp_path / "broken.json").write_text("{")
    settings = (
        (str(tmp_path / "daemon.json"), ("data-root", "exec-root", "x.y")),
        (str(tmp_path / "storage.conf"), ("storage.graphroot", "storage.runroot")),
        (str(tmp_path / "broken.json"), ("data-root",)),
        (str(tmp_path / "missing.json"), ("data-root",)),
    )
    monkeypatch.setattr(host, "SETTINGS", settings)
    assert {"/srv/docker", "/srv/podman"} <= set(host.hidden_paths(tmp_path))
    assert [str(path) for path in host.other_engines()] == ["/srv/docker", "/srv/podman"]


def test_the_image_is_as_old_as_the_machine_and_its_id_does_not_depend_on_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "machine-id"
    mark.touch()
    monkeypatch.setattr(host, "SET_UP", (str(tmp_path / "missing"), str(mark)))
    young = host.image()
    assert young.created.startswith("20")
    monkeypatch.setattr(host, "SET_UP", ())
    old = host.image()
    assert (old.id, old.created) == (young.id, host.CREATED)
