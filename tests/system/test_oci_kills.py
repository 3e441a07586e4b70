"""`berth-oci` where it is killed at any moment, or does not end: `delete --force` leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.programs import find
from support.waiting import wait_for

PATIENT_S = 15  # more than `delete --force` may take


def running(word):
    """Return the processes that have a word in their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.fixture
def slow_hook(bundle, tmp_path):
    """Give a bundle a hook of some kind that does not end; return what says which processes it is."""
    script = f"exec -a {tmp_path}/child sleep 1000 & exec -a {tmp_path}/hook sleep 1000"

    def add(kind):
        hook = {"path": find("bash"), "args": ["bash", "-c", script]}
        bundle.edit(lambda spec: spec.update(hooks={kind: [hook]}))
        return lambda: [
            pid for name in ("child", "hook") for pid in running(f"{tmp_path}/{name}\0")
        ]

    return add


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_container_whose_hook_does_not_end_is_removed_by_force(oci, bundle, slow_hook, kind):
    pids = slow_hook(kind)
    words = ("create", "--bundle", str(bundle.path), "a")
    process = oci.background(*words, stdin=subprocess.DEVNULL)
    wait_for(lambda: len(pids()) == 2, "the hook runs")
    before = time.monotonic()
    assert oci("delete", "--force", "a").code == 0
    assert time.monotonic() - before < PATIENT_S
    assert process.wait(timeout=PATIENT_S) == -signal.SIGKILL
    wait_for(lambda: not pids(), "the hook's end")
    assert oci("state", "a").code == 1
    assert oci.create(bundle.edit(lambda spec: spec.pop("hooks")), "a").code == 0


def test_a_container_whose_start_does_not_end_is_removed_by_force(oci, bundle, slow_hook):
    pids = slow_hook("poststart")
    oci.create(bundle.runs("sleep", "1000"), "a")
    process = oci.background("start", "a")
    wait_for(lambda: len(pids()) == 2, "the hook runs")
    assert oci("delete", "--force", "a").code == 0
    assert process.wait(timeout=PATIENT_S) == -signal.SIGKILL
    wait_for(lambda: not pids(), "the hook's end")
    assert oci("list", "-q").out == ""


def test_a_run_at_the_zygote_whose_hook_does_not_end_is_removed_by_force(
    oci, bundle, slow_hook, shared_zygote, monkeypatch
):
    monkeypatch.setenv("BERTH_OCI_ZYGOTE", shared_zygote)
    pids = slow_hook("poststart")
    process = oci.background("run", "--bundle", str(bundle.runs("sleep", "1000").path), "a")
    wait_for(lambda: len(pids()) == 2, "the hook runs")
    assert oci("delete", "--force", "a").code == 0
    assert process.wait(timeout=PATIENT_S) != 0
    wait_for(lambda: not pids(), "the hook's end")
    assert oci("list", "-q").out == ""


def test_nobody_waits_for_the_last_hooks_of_a_container_that_is_gone(oci, bundle, slow_hook):
    pids = slow_hook("poststop")
    oci.create(bundle, "a")
    first = oci.background("delete", "a")
    wait_for(lambda: len(pids()) == 2, "the hook runs")
    second = oci.background("delete", "a", stderr=subprocess.DEVNULL)
    assert second.wait(timeout=PATIENT_S) == 1
    assert first.poll() is None
    assert oci.create(bundle, "a").code == 0
    for pid in pids():
        os.kill(pid, signal.SIGKILL)
    assert first.wait(timeout=PATIENT_S) == 0
    assert oci.status("a") == "created"
    record = json.loads((oci.root / "a/state.json").read_text())
    del record["spec"]["hooks"]
    (oci.root / "a/state.json").write_text(json.dumps(record))
