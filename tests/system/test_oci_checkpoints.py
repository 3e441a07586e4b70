"""`berth-oci checkpoint` and `restore`, with the criu that there is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path

import pytest

from support import criu, kernel
from support.bundles import Runtime
from support.consoles import Console
from support.programs import find, run
from support.waiting import wait_for

COUNTS = (
    'i=0; while true; do i=$((i + 1)); echo "$i $(cat /proc/1/comm)" >/work/now; sleep 0.05; done'
)

KILLS = int(os.environ.get("BERTH_TEST_KILLS", "12"))  # spread over a command's time


class WithCriu(Runtime):
    """berth-oci that finds criu."""

    path = ""

    def command(self, *args: str) -> list[str]:
        """Return the whole command line."""
        return [find("env"), f"PATH={self.path}", *super().command(*args)]

    def detached(self, verb: str, bundle, id_: str, *args: str):
        """Run or restore a container whose streams are the null device; return the code and the log."""
        log = bundle.path / "log"
        own = ("--detach", "--bundle", str(bundle.path), *args, id_)
        line = self.command("--log", str(log), verb, *own)
        with open(os.devnull, "r+b") as null:
            done = subprocess.run(line, stdin=null, stdout=null, stderr=null, cwd=bundle.path)
        return done.returncode, log.read_text() if log.exists() else ""


@pytest.fixture
def oci(oci):
    """The runtime with criu on its PATH."""
    runtime = WithCriu(oci.program, oci.root)
    runtime.group, runtime.path = oci.group, criu.path()
    yield runtime
    runtime.clear()


@pytest.fixture
def counting(oci, bundle):
    """A container that writes ever larger numbers to a file."""
    bundle.edit(lambda spec: spec["root"].update(readonly=False)).shell(COUNTS)
    code, err = oci.detached("run", bundle, "a")
    assert code == 0, err
    wait_for(lambda: now(bundle) > 3, "it counts")
    return bundle


def now(bundle) -> int:
    """Return how far the container has counted."""
    try:
        return int((bundle.root / "work/now").read_text().split()[0])
    except (FileNotFoundError, IndexError):
        return 0


def sees(bundle):
    """Return the processes in whose mount namespaces the bundle is mounted."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(bundle.path).encode() in (folder / "mountinfo").read_bytes():
                found.append((folder.name, (folder / "comm").read_text()))
    return found


def checkpoint(oci, bundle, *args: str):
    """Checkpoint the container; the files are in the bundle."""
    return oci("checkpoint", "--image-path", str(bundle.path / "images"), *args, "a")


def restore(oci, bundle, *args: str, id_: str = "a") -> None:
    """Restore it, detached."""
    code, err = oci.detached(
        "restore", bundle, id_, "--image-path", str(bundle.path / "images"), *args
    )
    assert code == 0, err


def test_a_restored_container_goes_on_where_it_was(oci, counting, tmp_path):
    done = checkpoint(oci, counting)
    assert done.code == 0, str(done)
    assert oci("list", "-q").out == ""
    at = now(counting)
    restore(oci, counting, "--pid-file", str(tmp_path / "pid"))
    wait_for(lambda: now(counting) > at + 2, "it goes on")
    assert now(counting) < at + 1000  # not from the beginning, nor anywhere else
    state = oci.state("a")
    assert state["status"] == "running"
    assert str(state["pid"]) == (tmp_path / "pid").read_text()
    assert oci("exec", "a", "sh", "-c", "ps | grep -c sh").code == 0
    assert oci("delete", "--force", "a").code == 0


def test_it_is_as_limited_and_alone_as_before(oci, counting):
    counting.edit(lambda spec: spec["linux"]["resources"].update(pids={"limit": 77}))
    checkpoint(oci, counting)
    restore(oci, counting)
    pid = oci.state("a")["pid"]
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    assert all(line.endswith(f":/{oci.group}") for line in groups.splitlines()), groups
    assert json.loads(oci("events", "--stats", "a").out)["data"]["pids"]["limit"] == 77
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    inside = oci("exec", "a", "sh", "-c", "cat /proc/keys; echo $(hostname); cat /proc/net/dev")
    assert "berth" in inside.lines
    assert "lo:" in inside.out


def test_it_can_be_done_again_and_again(oci, counting):
    for _ in range(2):
        at = now(counting)
        assert checkpoint(oci, counting).code == 0
        restore(oci, counting)
        wait_for(lambda at=at: now(counting) > at + 1, "it goes on")


def test_the_container_may_go_on_after_its_checkpoint(oci, counting):
    assert checkpoint(oci, counting, "--leave-running").code == 0
    at = now(counting)
    wait_for(lambda: now(counting) > at + 1, "it goes on")
    assert oci.status("a") == "running"


def test_the_foreground_gets_the_exit_code(oci, counting):
    counting_on = counting.root / "work/now"
    checkpoint(oci, counting)
    counting_on.unlink()
    line = oci.command("restore", "--image-path", str(counting.path / "images"), "a")
    with open(os.devnull, "r+b") as null:
        process = subprocess.Popen(line, stdin=null, stdout=null, stderr=null, cwd=counting.path)
        wait_for(counting_on.exists, "it goes on")
        assert oci("kill", "a", "KILL").code == 0
        assert process.wait() == 137
    assert oci("list", "-q").out == ""


def test_pipes_are_those_of_the_restorer(oci, bundle):
    bundle.shell("while read line; do echo got $line; done")
    line = [*oci.command("run", "--detach", "--bundle", str(bundle.path), "a")]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, **streams) as first:
        first.stdin.write(b"one\n")
        first.stdin.flush()
        assert first.stdout.readline() == b"got one\n"
        done = checkpoint(oci, bundle)
        assert done.code == 0, str(done)
    again = oci.command(
        "restore", "--detach", "--image-path", str(bundle.path / "images"), "--bundle",
        str(bundle.path), "a",
    )  # fmt: skip
    with subprocess.Popen(again, **streams) as second:
        second.stdin.write(b"two\n")
        second.stdin.flush()
        assert second.stdout.readline() == b"got two\n"
        oci("delete", "--force", "a")


def test_a_terminal_comes_by_the_console_socket_again(oci, bundle, tmp_path):
    bundle.runs("sh").edit(lambda spec: spec["process"].update(terminal=True))
    console = Console(tmp_path / "one")
    code, err = oci.detached("run", bundle, "a", "--console-socket", str(console.path))
    assert code == 0, err
    console.write(b"remembered=apples\n")
    assert checkpoint(oci, bundle).code == 0
    again = Console(tmp_path / "two")
    restore(oci, bundle, "--console-socket", str(again.path))
    again.write(b"echo it was $remembered; exit\n")
    assert "it was apples" in again.read_to_end()


def test_what_is_bound_is_bound_again(oci, bundle, tmp_path):
    """By links in the root, with what is mounted below; places that are missing by now are made."""
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (bundle.root / "real").mkdir()
    (bundle.root / "link").symlink_to("/real")
    bind = {"type": "bind", "source": str(outside), "options": ["rbind", "rw"]}
    inner = {"type": "tmpfs", "source": "tmpfs", "destination": "/link/data/inner"}
    run("mount", "-t", "tmpfs", "tmpfs", str(outside / "below"), check=True)
    try:
        (outside / "below/file").write_text("from below")
        bundle.edit(
            lambda spec: spec["mounts"].extend([{**bind, "destination": "/link/data"}, inner])
        )
        bundle.runs("sleep", "1000")
        assert oci.detached("run", bundle, "a")[0] == 0
        done = checkpoint(oci, bundle)
        assert done.code == 0, str(done)
        (outside / "inner").rmdir()
        (bundle.root / "real/data").rmdir()
        restore(oci, bundle)
        assert oci("exec", "a", "cat", "/link/data/below/file").out == "from below"
        assert oci("exec", "a", "touch", "/link/data/inner/x").code == 0
        oci("delete", "--force", "a")
    finally:
        run("umount", str(outside / "below"), check=True)


def test_a_joined_network_is_joined_again(oci, bundle, other_network):
    bundle.runs("sleep", "1000")
    entry = {"type": "network", "path": f"/run/netns/{other_network}"}
    bundle.edit(lambda spec: spec["linux"]["namespaces"].remove({"type": "network"}))
    bundle.edit(lambda spec: spec["linux"]["namespaces"].append(entry))
    assert oci.detached("run", bundle, "a")[0] == 0
    done = checkpoint(oci, bundle)
    assert done.code == 0, str(done)
    restore(oci, bundle)
    joined = os.stat(f"/proc/{oci.state('a')['pid']}/ns/net").st_ino
    assert joined == os.stat(entry["path"]).st_ino


def test_hooks_are_told_of_the_restored_process(oci, counting):
    checkpoint(oci, counting)
    told = counting.path / "told"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >>{told}; echo >>{told}"]}
    counting.edit(lambda spec: spec.update(hooks={"prestart": [hook], "createRuntime": [hook]}))
    restore(oci, counting)
    states = [json.loads(line) for line in told.read_text().splitlines()]
    assert [state["pid"] for state in states] == [oci.state("a")["pid"]] * 2


def test_groups_of_its_own_namespace_come_back(oci, bundle):
    bundle.edit(lambda spec: spec["linux"]["namespaces"].append({"type": "cgroup"}))
    bundle.runs("sleep", "1000")
    assert oci.detached("run", bundle, "a")[0] == 0
    done = checkpoint(oci, bundle)
    assert done.code == 0, str(done)
    restore(oci, bundle)
    assert oci("exec", "a", "ls", "/sys/fs/cgroup").code == 0


def test_a_checkpoint_that_fails_says_why_and_lets_the_container_go_on(oci, bundle, tmp_path):
    """A file that is nowhere any more, larger than criu takes along."""
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    bundle.shell(
        "dd if=/dev/zero of=/work/gone bs=1M count=3 2>/dev/null; exec 5</work/gone;"
        " rm /work/gone; touch /work/ready; exec sleep 1000"
    )
    assert oci.detached("run", bundle, "a")[0] == 0
    wait_for((bundle.root / "work/ready").exists, "the file is open")
    done = checkpoint(oci, bundle, "--work-path", str(tmp_path / "work"))
    assert done.code == 1
    assert "criu failed: type DUMP" in done.err
    assert "ghost" in done.err.lower()
    assert f"log file: {tmp_path}/work/dump.log" in done.err
    assert oci.status("a") == "running"


def test_a_restore_that_fails_leaves_nothing(oci, counting):
    checkpoint(oci, counting)
    (counting.path / "images/core-1.img").unlink()
    code, err = oci.detached("restore", counting, "a", "--image-path", f"{counting.path}/images")
    assert code == 1
    assert "criu failed: type RESTORE" in err
    assert "restore.log" in err
    assert oci("list", "-q").out == ""
    wait_for(lambda: not groups_of(oci), "its groups are gone")


def groups_of(oci) -> list[str]:
    """Return the paths of the container's groups that are there."""
    with open("/proc/self/mountinfo") as file:
        points = [line.split(" ")[4] for line in file if " - cgroup" in line]
    return [p for p in points if os.path.isdir(f"{p}/{oci.group}")]


def test_only_what_runs_can_be_checkpointed(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "a")
    done = checkpoint(oci, bundle)
    assert (done.code, "cannot be checkpointed in created state" in done.err) == (1, True)


def test_a_pre_dump_is_the_parent_of_a_checkpoint_or_is_refused_by_name(oci, counting):
    parent = counting.path / "parent"
    done = oci("checkpoint", "--pre-dump", "--image-path", str(parent), "a")
    if done.code:
        assert "this kernel has no mem_track" in done.err
        assert oci.status("a") == "running"
        return
    assert checkpoint(oci, counting, "--parent-path", "../parent").code == 0
    assert (counting.path / "images/parent").is_symlink()
    restore(oci, counting)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--parent-path", "/absolute"), "--parent-path must be relative"),
        (("--parent-path", "not-there"), "invalid --parent-path"),
        (("--manage-cgroups-mode", "loose"), "Invalid manage cgroups mode"),
        (("--empty-ns", "pid"), "is not supported"),
        (("--page-server", "here"), "Use --page-server ADDRESS:PORT"),
        (("--page-server", "here:x"), "Invalid port number"),
        (("--lazy-pages", "--status-fd", "99"), "invalid --status-fd argument 99"),
    ],
)
def test_flags_that_make_no_sense_are_refused(oci, counting, flags, why):
    done = checkpoint(oci, counting, *flags)
    assert (done.code, why in done.err) == (1, True), str(done)
    assert oci.status("a") == "running"


def test_without_criu_it_is_said(oci, bundle):
    oci.path = "/nowhere"
    assert oci.detached("run", bundle.runs("sleep", "1000"), "a")[0] == 0
    for done in (
        checkpoint(oci, bundle),
        oci("restore", "--bundle", str(bundle.path), "b"),
    ):
        assert (done.code, "criu is not installed" in done.err) == (1, True), str(done)
    assert oci("list", "-q").lines == ["a"]


@pytest.mark.parametrize("verb", ["restore", "checkpoint"])
def test_one_that_is_killed_at_any_moment_leaves_what_can_be_removed(oci, bundle, verb):
    bundle.runs("sleep", "1000")

    def prepare():
        assert oci.detached("run", bundle, "a")[0] == 0
        if verb == "restore":
            assert checkpoint(oci, bundle).code == 0

    def begin():
        words = [verb, "--image-path", str(bundle.path / "images")]
        if verb == "restore":
            words += ["--detach", "--bundle", str(bundle.path)]
        null = subprocess.DEVNULL
        line = oci.command(*words, "a")
        return subprocess.Popen(line, stdin=null, stdout=null, stderr=null, start_new_session=True)

    prepare()
    before = time.monotonic()
    assert begin().wait(timeout=60) == 0
    lasts_s = time.monotonic() - before
    oci("delete", "--force", "a")
    for number in range(KILLS):
        prepare()
        process = begin()
        select.select((), (), (), lasts_s * (number + 1) / KILLS)
        process.kill()
        process.wait()
        assert oci("list").code == 0
        assert oci("state", "a").code in (0, 1)
        done = oci("delete", "--force", "a")
        assert (done.code, done.err) == (0, ""), f"{number}: {done}"
        assert not list(oci.root.glob("*"))
        assert not [root for root in kernel.hierarchies() if (root / oci.group).exists()]
        wait_for(lambda: not sees(bundle), "the end of all")
