"""`berth-oci zygote`: who is served, what of the caller its container has, and what deaths leave.

That its containers are those of a cold `run` is shown by the tests of `run`, which go through both doors.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import bundles, kernel
from support.programs import find, run
from support.waiting import wait_for

OF_A_WORKER = 7  # streams, the zygote's socket, the listening one, where complaints go, a network


# Runs its arguments with a seccomp filter that lets everything pass.
FILTERED = """
import ctypes, os, struct, sys
allow = ctypes.create_string_buffer(struct.pack("@HBBI", 6, 0, 0, 0x7FFF0000), 8)
program = struct.pack("@HP", 1, ctypes.addressof(allow))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, program) != 0:
    raise OSError(ctypes.get_errno(), "prctl PR_SET_SECCOMP")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def zygote(berth_oci, tmp_path, monkeypatch):
    """A zygote that every `run` of the test finds."""
    path = tmp_path / "zygote"
    monkeypatch.setenv(bundles.VARIABLE, str(path))
    with bundles.zygote(berth_oci, path) as process:
        yield process


def parent(pid):
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descriptors(pid):
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def workers(zygote):
    """Return the processes that the zygote has forked."""
    return set(kernel.children().get(zygote.pid, ()))


@pytest.fixture
def running(oci, bundle):
    """Return how to run a program that stays; every caller has ended when the test has."""
    callers = []

    def begin(script="exec sleep 1000", *, before=(), id_="a", flags=()):
        bundle.shell(script)
        words = oci.command("run", *flags, "--bundle", str(bundle.path), id_)
        caller = subprocess.Popen(
            [*before, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        callers.append(caller)
        wait_for(
            lambda: oci("state", id_).code == 0 and oci.status(id_) == "running", "it is running"
        )
        return caller

    yield begin
    for caller in callers:
        caller.kill()
        caller.wait()
        caller.stdout.close()


def is_served(oci, zygote, id_="a"):
    """Say whether a container's process is the child of a worker."""
    return parent(oci.state(id_)["pid"]) in workers(zygote)


def test_a_worker_runs_it(oci, zygote, running):
    caller = running("trap 'echo told; exit 7' TERM; while :; do sleep 0.05; done")
    assert is_served(oci, zygote)
    caller.terminate()
    assert caller.wait() == 7
    assert caller.stdout.read() == b"told\n"
    assert oci("list", "-q").out == ""


def test_workers_are_used_again_and_keep_nothing(oci, zygote, bundle):
    def waiting():
        """Return the workers once all have let go of what they had."""
        found = workers(zygote)
        return found if {descriptors(pid) for pid in found} == {OF_A_WORKER} else set()

    bundle.runs("true")
    for _ in range(3):
        assert oci.run(bundle, "a").code == 0
    before = wait_for(waiting, "they wait")
    for _ in range(6):
        assert oci.run(bundle, "a").code == 0
    assert wait_for(waiting, "they wait again") == before
    assert len(before) <= 2


def test_warnings_are_for_the_log_of_their_caller_alone(oci, zygote, bundle, tmp_path):
    bundle.edit(lambda spec: spec["process"]["capabilities"]["bounding"].append("CAP_NONE"))
    bundle.runs("true")
    logs = [tmp_path / f"log{number}" for number in range(5)]
    for log in logs:
        assert oci("--log", str(log), "run", "--bundle", str(bundle.path), "a").code == 0
    assert [log.read_text().count("CAP_NONE") for log in logs] == [1] * len(logs)


def test_many_at_once(oci, zygote, bundle):
    bundle.runs("sleep", "0.1").edit(lambda spec: spec["linux"].pop("cgroupsPath"))
    callers = [
        oci.background("run", "--bundle", str(bundle.path), f"c{number}", stdin=subprocess.DEVNULL)
        for number in range(12)
    ]
    assert [caller.wait() for caller in callers] == [0] * 12
    wait_for(lambda: len(workers(zygote)) == 2, "as many wait as before")


def test_a_caller_that_fails_costs_the_zygote_nothing(oci, zygote, bundle):
    for _ in range(3):
        done = oci.run(bundle.runs("nothing"), "a")
        assert done.code == 1
        assert 'exec: \\"nothing\\": executable file not found in $PATH' in done.err
    assert oci.run(bundle.runs("true"), "a").code == 0
    assert zygote.poll() is None


def test_what_a_container_inherits_is_its_callers(oci, zygote, bundle):
    bundle.edit(lambda spec: spec["process"].pop("rlimits"))
    bundle.shell("ulimit -n; ulimit -c; cat /proc/self/oom_score_adj /proc/self/coredump_filter")
    bundle.edit(lambda spec: spec["process"]["env"].append("SEEN=from the document"))

    def as_caller():
        resource.setrlimit(resource.RLIMIT_NOFILE, (4321, 8642))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        Path("/proc/self/oom_score_adj").write_text("123")
        Path("/proc/self/coredump_filter").write_text("0x11")

    done = subprocess.run(
        oci.command("run", "--pid-file", "pid", "a"),
        cwd=bundle.path,  # the bundle of a call that names none
        preexec_fn=as_caller,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode().split() == ["4321", "0", "123", "00000011"], done.stderr
    assert (bundle.path / "pid").read_text().isdecimal()


def test_hooks_have_the_callers_environment(oci, zygote, bundle, tmp_path, monkeypatch):
    told = tmp_path / "told"
    line = {"path": "/bin/sh", "args": ["sh", "-c", f"echo $OF_THE_CALLER >>{told}"]}
    bundle.runs("true").edit(lambda spec: spec.update(hooks={"prestart": [line]}))
    for fruit in ("apples", "pears"):
        monkeypatch.setenv("OF_THE_CALLER", fruit)
        assert oci.run(bundle, "a").code == 0
    monkeypatch.delenv("OF_THE_CALLER")
    assert oci.run(bundle, "a").code == 0
    assert told.read_text().splitlines() == ["apples", "pears", ""]


def test_messages_have_the_name_that_the_caller_was_called_by(oci, zygote, bundle, tmp_path):
    link = tmp_path / "another"
    link.symlink_to(oci.program)
    done = run(str(link), "--root", str(oci.root), "run", "--bundle", str(tmp_path / "none"), "a")
    assert done.code == 1
    assert 'msg="another run failed: bundle' in done.err


@pytest.fixture
def elsewhere(oci):
    """A group that is not the zygote's; what runs its arguments in it."""
    top = next(root for root in kernel.hierarchies() if root.name == "pids")
    group = top / f"{oci.group}-caller"
    group.mkdir()
    yield group, ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"]
    oci("delete", "--force", oci.group)
    for root in kernel.hierarchies():
        if (root / group.name).exists():
            wait_for(lambda: not kernel.processes_in_cgroups(group.name), "it is empty")
            (root / group.name).rmdir()


def test_groups_are_below_the_callers(oci, zygote, bundle, running, elsewhere):
    bundle.edit(lambda spec: spec["linux"].pop("cgroupsPath"))
    group, enter = elsewhere
    running(before=enter, id_=oci.group)
    assert is_served(oci, zygote, oci.group)
    shown = Path(f"/proc/{oci.state(oci.group)['pid']}/cgroup").read_text()
    assert f":pids:/{group.name}/{oci.group}\n" in shown


def test_hooks_run_in_the_callers_groups(oci, zygote, bundle, running, elsewhere, tmp_path):
    group, enter = elsewhere
    told = tmp_path / "told"
    line = {"path": "/bin/sh", "args": ["sh", "-c", f"cat /proc/self/cgroup >{told}"]}
    bundle.edit(lambda spec: spec.update(hooks={"poststart": [line]}))
    caller = running(before=enter, id_=oci.group)
    assert f":pids:/{group.name}\n" in wait_for(lambda: told.exists() and told.read_text(), "told")
    caller.kill()
    caller.wait()


@pytest.mark.parametrize(
    "before",
    [
        ["unshare", "--uts"],
        ["unshare", "--mount", "--propagation", "unchanged"],
        ["unshare", "--ipc"],
        ["setpriv", "--bounding-set", "-sys_time"],
        ["setpriv", "--no-new-privs"],
        ["nice", "-n", "3"],
        ["taskset", "1"],
        ["ionice", "-c", "3"],
        ["env", "LISTEN_FDS=0"],
    ],
    ids=" ".join,
)
def test_a_caller_that_is_not_like_the_zygote_does_it_itself(oci, zygote, running, before):
    caller = running(before=[find(before[0]), *before[1:]])
    assert not is_served(oci, zygote)
    assert parent(oci.state("a")["pid"]) == caller.pid


def test_a_caller_with_a_filter_does_it_itself_whatever_the_zygote_has(
    oci, berth_oci, running, tmp_path, monkeypatch
):
    path, program = tmp_path / "zygote", tmp_path / "filtered"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv.insert(1, {berth_oci!r})\n{FILTERED}"
    )
    program.chmod(0o755)
    monkeypatch.setenv(bundles.VARIABLE, str(path))
    with bundles.zygote(str(program), path) as zygote:
        caller = running(before=[sys.executable, "-c", FILTERED])
        assert not is_served(oci, zygote)
        assert parent(oci.state("a")["pid"]) == caller.pid
        caller.kill()
        caller.wait()


@pytest.mark.parametrize(
    "flags", [["--detach"], ["-d"], ["--no-new-keyring"], ["--preserve-fds=0"]]
)
def test_what_no_worker_can_give_is_done_cold(oci, zygote, running, flags):
    running(flags=flags)
    assert not is_served(oci, zygote)


def test_other_commands_are_no_workers(oci, zygote, running):
    running()
    done = oci("exec", "a", "echo", "run")
    assert (done.code, done.out) == (0, "run\n")


def test_a_caller_that_is_killed_leaves_the_container_as_a_cold_one_does(oci, zygote, running):
    caller = running()
    pid = oci.state("a")["pid"]
    worker = parent(pid)
    caller.kill()
    caller.wait()
    wait_for(lambda: worker not in workers(zygote), "its worker has ended")
    assert oci.status("a") == "running"
    assert oci("delete", "--force", "a").code == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_caller_that_ends_before_the_start_leaves_nothing(oci, zygote, bundle, tmp_path, number):
    reached, go = tmp_path / "reached", tmp_path / "go"
    os.mkfifo(go)
    script = f"touch {reached}; cat {go}"
    hook = {"path": find("sh"), "args": ["sh", "-c", script]}
    bundle.edit(lambda spec: spec.update(hooks={"createRuntime": [hook]}))
    words = ("run", "--bundle", str(bundle.path), "a")
    caller = oci.background(*words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(reached.exists, "the hook runs")
    caller.send_signal(number)
    assert caller.wait() == -number
    go.write_text("")
    wait_for(lambda: oci("list", "-q").out == "", "the container is gone")
    assert b"Traceback" not in caller.stderr.read()
    caller.stderr.close()


def test_a_worker_that_is_killed_is_missed_by_its_caller(oci, zygote, running):
    caller = running()
    os.kill(parent(oci.state("a")["pid"]), signal.SIGKILL)
    assert caller.wait() == 1
    assert oci.status("a") == "running"
    assert oci("delete", "--force", "a").code == 0
    assert zygote.poll() is None


def test_a_worker_that_is_killed_while_it_waits_is_followed_by_another(oci, zygote, running):
    before = wait_for(lambda: workers(zygote), "a worker waits")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: workers(zygote) - before, "another waits")
    running()
    assert is_served(oci, zygote)


def test_a_zygote_whose_workers_cannot_live_ends(oci, zygote, bundle):
    def end_all():
        for pid in workers(zygote):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return zygote.poll() is not None

    wait_for(end_all, "it gives up")
    assert zygote.returncode == 1
    assert oci.run(bundle.shell("exit 3"), "a").code == 3


def test_a_zygote_that_is_killed_keeps_nobody_from_running(oci, zygote, bundle, running, tmp_path):
    caller = running()
    waiting = workers(zygote) - {parent(oci.state("a")["pid"])}
    assert waiting
    zygote.kill()
    zygote.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in waiting), "no worker waits")
    assert (tmp_path / "zygote").exists()
    assert oci.run(bundle.shell("exit 6"), "b").code == 6
    oci("kill", "a", "KILL")
    assert caller.wait() == 137
    with bundles.zygote(oci.program, tmp_path / "zygote"):
        assert oci.run(bundle.shell("exit 7"), "c").code == 7
    wait_for(lambda: not (tmp_path / "zygote").exists(), "its socket is removed")


def test_a_zygote_that_is_stopped_is_not_waited_for(oci, zygote, bundle):
    bundle.runs("true")
    assert oci.run(bundle, "a").code == 0
    stopped = [zygote.pid, *workers(zygote)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert oci.run(bundle.shell("exit 8"), "b").code == 8
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_one_socket_is_of_one_zygote(oci, zygote):
    done = oci("zygote")
    assert done.code == 1
    assert "listens on" in done.err
    assert zygote.poll() is None


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_not_replaced(oci, tmp_path, monkeypatch, kind):
    path, file = tmp_path / "zygote", tmp_path / "file"
    file.write_text("precious")
    path.hardlink_to(file) if kind == "file" else path.symlink_to(file)
    monkeypatch.setenv(bundles.VARIABLE, str(path))
    done = oci("zygote")
    assert (done.code, f"{path} is there already, and is no socket" in done.err) == (1, True)
    assert path.read_text() == "precious"


def test_only_its_own_user_can_ask(zygote, tmp_path):
    assert (tmp_path / "zygote").stat().st_mode & 0o777 == 0o600
