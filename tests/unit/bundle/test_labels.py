"""Labels of security modules, on files that stand for the kernel's."""

from __future__ import annotations

import os

import pytest

from berth.bundle import labels, mounting
from berth.errors import Failed, Unsupported


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that a process writes its labels to, and the modules in use."""
    for name in ("apparmor", "exec"):
        (tmp_path / name).touch()
    (tmp_path / "enabled").write_text("Y\n")
    monkeypatch.setattr(labels, "APPARMOR", str(tmp_path / "enabled"))
    monkeypatch.setattr(labels, "SELINUX", str(tmp_path / "enabled"))
    monkeypatch.setattr(labels, "APPARMOR_FILES", (str(tmp_path / "apparmor"),))
    monkeypatch.setattr(labels, "SELINUX_FILES", (str(tmp_path / "exec"),))
    return tmp_path


def test_each_module_has_its_words(files):
    process = {"apparmorProfile": "mine", "selinuxLabel": "u:r:t:s0"}
    labels.check(process)
    found = labels.Labels(process)
    assert len(found.descriptors()) == 2
    assert not any(os.get_inheritable(fd) for fd in found.descriptors())
    found.apply()
    assert (files / "apparmor").read_text() == "exec mine"
    assert (files / "exec").read_text() == "u:r:t:s0"


def test_nothing_is_opened_for_a_process_without(files):
    for process in ({}, {"apparmorProfile": "unconfined"}, {"apparmorProfile": ""}):
        labels.check(process)
        assert labels.Labels(process).descriptors() == []


def test_a_module_that_is_not_used_is_named(files, monkeypatch):
    (files / "enabled").write_text("N\n")
    monkeypatch.setattr(labels, "SELINUX", "/nowhere")
    with pytest.raises(Unsupported, match="apparmor is not supported on the host"):
        labels.check({"apparmorProfile": "mine"})
    with pytest.raises(Unsupported, match="selinux is not supported on the host"):
        labels.check({"selinuxLabel": "u:r:t:s0"})


def test_a_label_that_the_kernel_refuses_is_named(files, monkeypatch):
    monkeypatch.setattr(labels, "APPARMOR_FILES", ("/dev/full",))
    with pytest.raises(Failed, match="unable to apply apparmor profile mine: No space left"):
        labels.Labels({"apparmorProfile": "mine"}).apply()


def test_new_file_systems_get_the_label_of_mounts():
    assert mounting.mount_label("u:r:t:s0,c1") == 'context="u:r:t:s0,c1"'
    assert mounting.mount_label("") == ""
    assert {"proc", "sysfs", "mqueue"} == set(mounting.UNLABELLED)
