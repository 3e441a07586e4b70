"""`berth-oci` where it is killed at any moment, or does not end: `delete --force` leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import kernel
from support.programs import PATH, find
from support.waiting import wait_for

PATIENT_S = 15  # more than `delete --force` may take
KILLS = int(os.environ.get("BERTH_TEST_KILLS", "12"))  # of each command, spread over its time
STATUSES = ("creating", "created", "running", "stopped")
UPDATE = ("update", "--pids-limit", "33", "--memory", "64M", "a")


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
    assert oci.status("a") == "creating"
    assert "that is being created" in oci("exec", "a", "true").err
    before = time.monotonic()
    assert oci("delete", "--force", "a").code == 0
    assert time.monotonic() - before < PATIENT_S
    assert process.wait(timeout=PATIENT_S) == -signal.SIGKILL
    wait_for(lambda: not pids(), "the hook's end")
    assert oci("state", "a").code == 1
    assert oci.create(bundle.edit(lambda spec: spec.pop("hooks")), "a").code == 0


def test_a_hook_may_remove_its_own_container(oci, bundle, tmp_path):
    line = " ".join(oci.command("delete", "--force", "a"))
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"{line}; echo $? >{tmp_path}/code"]}
    hook["env"] = [f"PATH={PATH}"]
    bundle.edit(lambda spec: spec.update(hooks={"createRuntime": [hook]}))
    assert oci.create(bundle, "a").code == -signal.SIGKILL
    wait_for((tmp_path / "code").exists, "the hook's end")
    assert wait_for((tmp_path / "code").read_text, "what it says") == "0\n"
    assert oci("list", "-q").out == ""


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


def test_what_is_killed_at_the_zygote_keeps_no_lock(
    oci, bundle, slow_hook, shared_zygote, monkeypatch
):
    monkeypatch.setenv("BERTH_OCI_ZYGOTE", shared_zygote)
    pids = slow_hook("createContainer")
    process = oci.background("run", "--bundle", str(bundle.path), "a", stderr=subprocess.DEVNULL)
    wait_for(lambda: len(pids()) == 2, "the hook runs")
    inode = f":{(oci.root / 'a/lock').stat().st_ino}"
    locks = map(str.split, Path("/proc/locks").read_text().splitlines())
    (worker,) = {int(words[4]) for words in locks if words[5].endswith(inode)}
    os.kill(worker, signal.SIGKILL)
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


class Target:
    """A container that commands on it are killed of, and what must be gone when it has been removed."""

    def __init__(self, oci, bundle):
        self.oci = oci
        self.bundle = bundle.runs("sleep", "1000")
        self.sessions = []

    def words(self, command):
        """Return a command line."""
        made = ("--bundle", str(self.bundle.path), "a")
        return {
            "create": ("create", *made),
            "run": ("run", *made),
            "run detached": ("run", "--detach", *made),
            "start": ("start", "a"),
            "exec": ("exec", "--detach", "a", "sleep", "999"),
            "update": UPDATE,
            "delete": ("delete", "--force", "a"),
        }[command]

    def prepare(self, command):
        """Bring the container to where the command is for."""
        if command not in ("create", "run", "run detached"):
            assert self.oci.create(self.bundle, "a").code == 0
        if command in ("exec", "update", "delete"):
            assert self.oci("start", "a").code == 0

    def begin(self, command):
        """Start the command in a session of its own."""
        null = subprocess.DEVNULL
        streams = {"stdin": null, "stdout": null, "stderr": null, "start_new_session": True}
        process = self.oci.background(*self.words(command), **streams)
        self.sessions.append(process.pid)
        return process

    def check(self):
        """Everybody is told something that makes sense, and `delete --force` leaves nothing."""
        listed = self.oci("list", "--format", "json")
        assert (listed.code, listed.err) == (0, ""), str(listed)
        found = {entry["id"]: entry["status"] for entry in json.loads(listed.out) or ()}
        state = self.oci("state", "a")
        if state.code == 0:
            assert json.loads(state.out)["status"] in STATUSES
        else:
            assert "container does not exist" in state.err
        assert set(found.values()) <= set(STATUSES)
        done = self.oci("delete", "--force", "a")
        assert (done.code, done.err) == (0, ""), str(done)
        # The zygote's worker may have begun after that, for a caller that was killed.
        wait_for(lambda: not self.remains(), "nothing is left")
        self.sessions.clear()

    def remains(self):
        """List what there is."""
        groups = [root / self.oci.group for root in kernel.hierarchies()]
        return [
            *self.oci.root.glob("*"),
            *(group for group in groups if group.exists()),
            *self.processes(),
        ]

    def processes(self):
        """Return the processes of the commands' sessions, and those that see the container's files."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                mine = int(fields[3]) in self.sessions
                if fields[0] != b"Z" and (mine or self.is_seen_in(folder)):
                    found.append(folder.name)
        return found

    def is_seen_in(self, folder):
        """Say whether a process is in the container's mount namespace."""
        return str(self.bundle.path).encode() in (folder / "mountinfo").read_bytes()


@pytest.fixture
def target(oci, bundle):
    return Target(oci, bundle)


def pause(seconds):
    """Wait: it is the clock that says when a command is killed."""
    select.select((), (), (), seconds)


@pytest.mark.parametrize("command", ["create", "run detached", "start", "exec", "update", "delete"])
def test_a_command_that_is_killed_at_any_moment_leaves_what_can_be_removed(target, command):
    target.prepare(command)
    before = time.monotonic()
    assert target.begin(command).wait(timeout=PATIENT_S) == 0
    lasts_s = time.monotonic() - before
    target.check()
    for number in range(KILLS):
        target.prepare(command)
        process = target.begin(command)
        pause(lasts_s * (number + 1) / KILLS)
        process.kill()
        process.wait()
        target.check()


@pytest.mark.usefixtures("each_door")
def test_a_run_that_is_killed_at_any_moment_leaves_what_can_be_removed(target):
    before = time.monotonic()
    process = target.begin("run")
    wait_for(lambda: target.oci("list", "-q").out == "a\n", "it is there")
    lasts_s = time.monotonic() - before
    process.kill()
    process.wait()
    target.check()
    for number in range(KILLS):
        process = target.begin("run")
        pause(lasts_s * (number + 1) / KILLS)
        process.kill()
        process.wait()
        target.check()
