"""What `berth-oci` answers to callers of runc: exit codes, words and documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.waiting import wait_for

CPU = Path("/sys/fs/cgroup/cpu")
MEMORY = Path("/sys/fs/cgroup/memory")
needs_v1 = pytest.mark.skipif(not (MEMORY / "tasks").exists(), reason="needs cgroup v1")


@pytest.fixture
def running(oci, bundle):
    """A container that runs: its runtime, and where its groups are."""
    assert oci.create(bundle.runs("sleep", "1000"), "a").code == 0
    assert oci("start", "a").code == 0
    return oci


@pytest.mark.parametrize("words", [("nonsense",), ("help", "nonsense")])
def test_a_command_that_is_not_there_has_an_exit_code_of_its_own(oci, words):
    done = oci(*words)
    assert (done.code, "No help topic for 'nonsense'" in done.err) == (3, True)
    assert "--bundle" in oci("help", "create").out


@pytest.mark.parametrize("entry", ["A", "=b", ""])
def test_an_environment_that_is_none_is_refused(running, bundle, entry):
    done = running("exec", "--env", entry, "a", "true")
    assert (done.code, f'invalid environment variable: \\"{entry}\\"' in done.err) == (255, True)
    bundle.edit(lambda spec: spec["process"]["env"].append(entry))
    done = running.create(bundle, "b")
    assert (done.code, "invalid environment variable" in done.err) == (1, True)


def test_a_program_that_cannot_be_executed_is_told_in_runcs_words(running):
    done = running("exec", "a", "/nowhere")
    why = "exec failed: unable to start container process: exec: "
    assert (done.code, why in done.err) == (255, True), str(done)
    done = running("exec", "--cwd", "relative", "a", "true")
    assert "exec failed: Cwd must be an absolute path" in done.err


def test_nothing_runs_whose_pid_cannot_be_told(running, tmp_path):
    file = str(tmp_path / "nowhere/pid")
    done = running("exec", "--detach", "--pid-file", file, "a", "sleep", "999")
    assert (done.code, "no such file or directory" in done.err) == (255, True), str(done)
    assert len(json.loads(running("ps", "--format", "json", "a").out)) == 1


def test_processes_are_listed_without_spaces(oci, bundle):
    oci.create(bundle.shell("sleep 1000 & sleep 1000"), "a")
    oci("start", "a")
    out = wait_for(lambda: (text := oci("ps", "-f", "json", "a").out).count(",") and text, "it ran")
    assert " " not in out
    assert len(json.loads(out)) > 1


@pytest.mark.skipif(not (CPU / "tasks").exists(), reason="needs cgroup v1")
def test_who_was_idle_need_not_stay_so(running):
    idle = CPU / running.group / "cpu.idle"
    if not idle.exists():
        pytest.skip("needs a kernel with cpu.idle")
    for value in ("1", "0"):
        assert running("update", "--cpu-idle", value, "a").code == 0
        assert idle.read_text() == f"{value}\n"
    running("update", "--cpu-idle", "1", "a")
    wanted = {"cpu": {"shares": 99, "idle": 0}}
    done = running("update", "-r", "-", "a", stdin=json.dumps(wanted).encode())
    assert done.code == 0, str(done)
    assert (CPU / running.group / "cpu.shares").read_text() == "99\n"


@needs_v1
@pytest.mark.parametrize(("shares", "bound"), [("1", "minimum"), ("262145", "maximum")])
def test_shares_that_the_kernel_would_change_are_refused(running, shares, bound):
    done = running("update", "--cpu-share", shares, "a")
    assert done.code == 1
    assert f"the {bound} allowed cpu-shares is " in done.err


@needs_v1
def test_an_update_that_fails_changes_nothing_that_was_set(oci, bundle):
    limits = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}
    bundle.edit(lambda spec: spec["linux"]["resources"].update(limits)).runs("sleep", "1000")
    oci.create(bundle, "a")
    assert oci("update", "--memory", "32M", "--cpuset-cpus", "999", "a").code == 1
    assert (MEMORY / oci.group / "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
    assert oci("update", "--memory", "32M", "a").code == 0
    assert oci("update", "--memory", "48M", "--cpuset-cpus", "999", "a").code == 1
    assert (MEMORY / oci.group / "memory.limit_in_bytes").read_text() == f"{32 << 20}\n"


@needs_v1
def test_what_is_used_has_runcs_names(running):
    found = json.loads(running("events", "--stats", "a").out)["data"]
    assert found.keys() == {
        *("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces")
    }
    usage = found["cpu"]["usage"]
    assert usage.keys() == {"total", "percpu", "percpu_kernel", "percpu_user", "kernel", "user"}
    assert len(usage["percpu_user"]) == len(usage["percpu_kernel"]) == len(usage["percpu"])
    assert found["cpuset"]["sched_load_balance"] == 1
    assert found["cpuset"]["sched_relax_domain_level"] == -1
    folder = MEMORY / running.group
    for name, file in (("usage", "memory"), ("swap", "memory.memsw"), ("kernel", "memory.kmem")):
        memory = found["memory"][name]
        assert memory.keys() == {"limit", "usage", "max", "failcnt"}
        if (folder / f"{file}.limit_in_bytes").exists():
            assert memory["limit"] == int((folder / f"{file}.limit_in_bytes").read_text())
    for size, pages in found["hugetlb"].items():
        assert size.endswith(("KB", "MB", "GB"))
        assert pages["usage"] == pages["failcnt"] == 0
