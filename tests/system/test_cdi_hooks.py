"""Hooks that described devices need: where they run, what they find there, and what their failure leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import kernel
from support.engine import EngineProcess
from support.programs import find
from support.waiting import wait_for
from system.conftest import clean, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Hooks = Callable[..., Path]

RUN = ("run", "--rm", "--network", "none", "--device", "vendor.test/thing=one")
BEFORE = ("prestart", "createRuntime", "createContainer")
AFTER = ("poststart", "poststop")
STATUSES = {
    "prestart": "creating",
    "createRuntime": "creating",
    "createContainer": "creating",
    "poststart": "running",
    "poststop": "stopped",
}
# What vendors' hooks do: find the root by the bundle, and change files there by paths that stay inside it.
LINK = """
import json, os, sys
state = json.load(sys.stdin)
with open(state["bundle"] + "/config.json") as file:
    root = json.load(file)["root"]["path"]
root = os.open(os.path.join(state["bundle"], root), os.O_PATH | os.O_DIRECTORY)
os.makedirs(f"/proc/self/fd/{root}/usr/lib", exist_ok=True)
os.symlink("libthing.so.1", "usr/lib/libthing.so", dir_fd=root)
"""
# What an update of the linker's cache does: it enters the root in a mount namespace of its own.
ENTER = """
import ctypes, json, os, sys
state = json.load(sys.stdin)
with open(state["bundle"] + "/config.json") as file:
    root = json.load(file)["root"]["path"]
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    assert result == 0, os.strerror(ctypes.get_errno())
check(libc.unshare(0x20000000 | 0x20000))
child = os.fork()
if child == 0:
    check(libc.mount(b"proc", f"{root}/proc".encode(), b"proc", 0, None))
    check(libc.mount(b"/etc/hostname", f"{root}/work".encode(), None, 0x1000, None) + 1)
    os.chdir(root)
    check(libc.syscall(155, b".", b"."))
    check(libc.umount2(b".", 2))
    os.chdir("/")
    with open("/etc/thing.cache", "w") as file:
        file.write(os.readlink("/proc/self"))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture(scope="module", params=["ids of the host", "ids of its own"])
def module_engine(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    busybox_tar: bytes,
) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("cdi")
    flags, prefix = ("--cdi-spec-dir", str(folder)), ()
    if request.param == "ids of its own":
        etc = tmp_path_factory.mktemp("etc")
        etc.chmod(0o755)
        for name in ("passwd", "group", "subuid", "subgid"):
            text = Path("/etc", name).read_text() if name in ("passwd", "group") else ""
            more = {"passwd": "mapped:x:3999:3999::/:/bin/sh\n", "group": "mapped:x:3999:\n"}
            (etc / name).write_text(text + more.get(name, "mapped:700000:65536\n"))
        mount = f'mount -t overlay -o ro,lowerdir={etc}:/etc overlay /etc && exec "$@"'
        prefix = (find("unshare"), "--mount", "sh", "-ec", mount, "sh")
        flags = (*flags, "--userns-remap", "mapped")
    engine = EngineProcess(flags=flags, prefix=prefix)
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def engine(module_engine: EngineProcess) -> Iterator[EngineProcess]:
    yield module_engine
    clean(module_engine)


@pytest.fixture
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the host that every hook may write to, also as a container's root."""
    folder = tmp_path_factory.mktemp("notes")
    for path in (folder, folder.parent, *folder.parent.parents[:2]):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    folder.chmod(0o777)
    return folder


@pytest.fixture
def hooks(engine: EngineProcess, notes: Path) -> Iterator[Hooks]:
    """Describe a device with hooks: (kind, text of a shell script) or (kind, document)."""
    path = Path(engine.flags[1], "a.json")

    def write(*wanted: tuple[str, object]) -> Path:
        entries = []
        for kind, what in wanted:
            entry: dict[str, object] = {"hookName": kind}
            if isinstance(what, str):
                entry |= {"path": "/bin/sh", "args": ["sh", "-ec", what]}
            else:
                assert isinstance(what, dict)
                entry |= what
            entries.append(entry)
        device = {"name": "one", "containerEdits": {"hooks": entries}}
        text = {"cdiVersion": "1.0.0", "kind": "vendor.test/thing", "devices": [device]}
        path.write_text(json.dumps(text))
        return notes

    yield write
    path.unlink(missing_ok=True)


def python(script: str) -> dict[str, object]:
    return {"path": "/usr/bin/python3", "args": ["python3", "-c", script]}


def note(notes: Path, kind: str) -> str:
    return (
        f"cat >{notes}/{kind}.json; echo {kind} >>{notes}/order; chmod 666 {notes}/* 2>&- || true"
    )


def test_hooks_run_in_their_order_and_are_told_the_state(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    outside = (*BEFORE, *AFTER)
    inside = {
        "path": "/bin/sh",
        "args": [
            "sh",
            "-c",
            "cat >/tmp/state; echo >>/tmp/state; id -u >/tmp/user; echo $PATH >/tmp/path",
        ],
        "env": ["PATH=/bin"],
    }
    hooks(
        ("poststop", note(notes, "poststop")),
        ("startContainer", inside),
        *((kind, note(notes, kind)) for kind in outside[:-1]),
    )
    annotated = ("--annotation", "k=v")
    made = engine.docker(
        "create", *RUN[2:], *annotated, "busybox", "sh", "-c", "cat /tmp/*; read a"
    )
    container = made.out.strip()
    assert not (notes / "order").exists()
    done = engine.docker("start", container)
    assert done.code == 0, str(done)
    assert (notes / "order").read_text().split()[:4] == [*BEFORE, "poststart"]
    pid = engine.inspect(container)["State"]["Pid"]
    logs = engine.docker("logs", container)
    wait_for(lambda: (notes / "poststop.json").exists(), "the last hook has run")
    wait_for(lambda: (notes / "poststop.json").read_text(), "the last hook was told")
    states = {kind: json.loads((notes / f"{kind}.json").read_text()) for kind in outside}
    own = json.loads(logs.out.splitlines()[1])
    assert logs.out.splitlines()[0] == "/bin"
    assert logs.out.splitlines()[2] == "0"
    assert own | {"bundle": ""} == {
        "ociVersion": "1.2.0",
        "id": container,
        "status": "created",
        "pid": 1,
        "bundle": "",
        "annotations": {"k": "v"},
    }
    for kind, state in states.items():
        assert (state["id"], state["status"]) == (container, STATUSES[kind])
        assert state["annotations"] == {"k": "v"}
    assert {states[kind]["pid"] for kind in ("prestart", "createRuntime")} == {
        states["poststart"]["pid"]
    }
    assert (states["createContainer"]["pid"], states["poststop"]["pid"]) == (1, 0)
    assert pid in (0, states["poststart"]["pid"])


def test_hooks_change_the_containers_root(engine: EngineProcess, hooks: Hooks) -> None:
    hooks(("createContainer", python(LINK)), ("createContainer", python(ENTER)))
    script = "readlink /usr/lib/libthing.so; cat /etc/thing.cache; echo; cat /proc/mounts | wc -l"
    done = engine.docker(*RUN, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    assert done.lines[:2] == ["libthing.so.1", "1"]
    plain = engine.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert done.lines[-1] == plain.lines[-1]


def test_a_hook_of_the_host_finds_the_root_too(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    script = f"cp rootfs/etc/passwd {notes}; cat config.json >{notes}/config; ls /usr >{notes}/ls"
    hooks(("createRuntime", script), ("poststart", f"cp rootfs/etc/group {notes}"))
    flags = ("-d", "-v", "/usr:/work:ro", "--name", "one")
    made = engine.docker("run", *RUN[2:], *flags, "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    shown = engine.docker("exec", "one", "cat", "/etc/passwd", "/etc/group")
    assert (notes / "passwd").read_text() + (notes / "group").read_text() == shown.out
    spec = json.loads((notes / "config").read_text())
    assert spec["root"]["path"].endswith("/bundle/rootfs")
    assert {"destination": "/work", "source": "/usr"}.items() <= spec["mounts"][-1].items()
    assert "bin" in (notes / "ls").read_text().split()


def test_what_a_hook_mounts_is_the_containers_alone(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    (notes / "file").write_text("mounted\n")
    script = (
        'root=$(sed -n \'s/.*"bundle": "\\([^"]*\\)".*/\\1/p\')/rootfs;'
        f" mount --bind {notes} $root/work; cp /proc/self/mountinfo {notes}/mounts"
    )
    hooks(("createContainer", script))
    done = engine.docker(*RUN, "busybox", "cat", "/work/file")
    assert done.out == "mounted\n", str(done)
    assert str(engine.exec_root) in (notes / "mounts").read_text()
    assert not kernel.mounts((engine.exec_root, notes))


def test_the_hosts_mounts_are_not_in_the_container(engine: EngineProcess, hooks: Hooks) -> None:
    hooks(("createContainer", "test -e /usr/bin/python3"))
    script = "ls -d /usr /proc/1/root/usr 2>&1; grep -c rootfs /proc/self/mountinfo; ls /proc/1/fd"
    done = engine.docker(*RUN, "busybox", "sh", "-c", script)
    assert "No such file" in done.out, str(done)
    plain = engine.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert done.lines[2:] == plain.lines[2:]


@pytest.mark.parametrize("kind", [*BEFORE, "startContainer", "poststart"])
def test_a_hook_that_fails_is_a_failed_start(
    engine: EngineProcess, hooks: Hooks, notes: Path, kind: str
) -> None:
    hooks((kind, "echo because >&2; exit 3"), ("poststop", note(notes, "poststop")))
    done = engine.docker("run", "--name", "failed", *RUN[2:], "busybox", "sleep", "1000")
    assert done.code == 125, str(done)
    assert f"error running hook #0 of {kind}: exit status 3, output: because" in done.err
    state = engine.inspect("failed")["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", 128, 0)
    assert "exit status 3" in str(state["Error"])
    assert (notes / "order").read_text() == "poststop\n"
    assert engine.docker("rm", "failed").code == 0


@pytest.mark.parametrize("kind", [*BEFORE, "poststart"])
def test_a_hook_that_is_not_there_is_told_as_docker_does(
    engine: EngineProcess, hooks: Hooks, kind: str
) -> None:
    hooks((kind, {"path": "/nowhere/hook"}))
    done = engine.docker(*RUN, "busybox", "true")
    assert done.code == 127, str(done)
    assert "fork/exec /nowhere/hook: no such file or directory" in done.err


@pytest.mark.parametrize("kind", BEFORE)
def test_a_hook_is_ended_after_its_time(engine: EngineProcess, hooks: Hooks, kind: str) -> None:
    sleep = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    hooks((kind, sleep))
    done = engine.docker(*RUN, "busybox", "true")
    assert done.code == 125, str(done)
    assert "hook ran past specified timeout of 1s" in done.err


def test_a_hook_that_leaves_its_group_is_ended_too(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    script = f"import os, time; open('{notes}/pid', 'w').write(str(os.getpid())); "
    script += "os.setpgid(0, os.getpgid(os.getppid())); time.sleep(1000)"
    hooks(("createRuntime", {**python(script), "timeout": 2}))
    done = engine.docker(*RUN, "busybox", "true")
    assert "hook ran past specified timeout of 2s" in done.err
    assert not Path("/proc", (notes / "pid").read_text()).exists()


def test_a_container_restarts_with_its_hooks(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    hooks(("prestart", note(notes, "prestart")), ("poststop", note(notes, "poststop")))
    made = engine.docker("run", "-d", "--name", "again", *RUN[2:], "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    assert engine.docker("restart", "-t", "0", "again").code == 0
    assert (notes / "order").read_text().split() == ["prestart", "poststop", "prestart"]
    shown = engine.docker("exec", "again", "cat", "/proc/1/comm")
    assert shown.out == "sleep\n", str(shown)


def test_a_terminal_and_init_go_with_hooks(engine: EngineProcess, hooks: Hooks) -> None:
    hooks(("createContainer", python(LINK)), ("startContainer", {"path": "/bin/true"}))
    flags = ("-t", "--init", "--read-only", "--tmpfs", "/tmp", "-v", "/usr/share:/work:ro")
    script = "tty; cat /proc/1/comm; ls -d /work/doc; touch /a; readlink /usr/lib/libthing.so"
    done = engine.docker(*RUN, *flags, "busybox", "sh", "-c", script)
    said = done.out.replace("\r", "")
    assert said.splitlines()[:3] == ["/dev/pts/0", "docker-init", "/work/doc"], str(done)
    assert "Read-only file system" in said
    assert said.endswith("libthing.so.1\n")


def test_a_container_of_the_network_has_it_when_hooks_run(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    hooks(("createContainer", f"ip -4 -o addr show >{notes}/addresses"))
    done = engine.docker("run", "--rm", *RUN[4:], "busybox", "ip", "-4", "-o", "addr", "show")
    assert done.code == 0, str(done)
    mine = [line.split()[3] for line in done.lines]
    assert [line.split()[3] for line in (notes / "addresses").read_text().splitlines()] == mine
    assert len(mine) == 2


def test_the_last_hooks_run_when_the_monitor_was_killed(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    hooks(("createRuntime", note(notes, "createRuntime")), ("poststop", note(notes, "poststop")))
    made = engine.docker("run", "-d", "--name", "lone", *RUN[2:], "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    record = engine.exec_root / "containers" / made.out.strip() / "task.json"
    os.kill(json.loads(record.read_text())["monitor"], 9)
    assert engine.docker("wait", "lone").out == "137\n"
    assert (notes / "order").read_text().split() == ["createRuntime", "poststop"]
    assert engine.docker("rm", "lone").code == 0


def test_the_last_hooks_run_once_when_berthd_comes_back_meanwhile(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    slow = f"echo poststop >>{notes}/order; sleep 5; ls >{notes}/found"
    hooks(("poststop", slow))
    made = engine.docker("run", "-d", "--name", "slow", *RUN[2:], "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    pid = engine.inspect("slow")["State"]["Pid"]
    engine.kill()
    os.kill(pid, 9)
    wait_for((notes / "order").exists, "the last hook began")
    engine.start()
    assert engine.docker("wait", "slow").out == "137\n"
    wait_for((notes / "found").exists, "the last hook ended")
    assert (notes / "order").read_text() == "poststop\n"
    assert (notes / "found").read_text() == "config.json\n"
    assert engine.docker("rm", "slow").code == 0


def test_a_hook_of_the_host_is_among_the_hosts_processes(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    other = engine.docker("run", "-d", "--network", "none", "busybox", "sleep", "1000")
    assert other.code == 0, str(other)
    script = f"readlink /proc/self/ns/pid >>{notes}/spaces"
    hooks(*((kind, script) for kind in ("prestart", "createRuntime", "poststart", "poststop")))
    joined = engine.docker(*RUN, "--pid", f"container:{other.out.strip()}", "busybox", "true")
    assert joined.code == 0, str(joined)
    found = notes / "spaces"
    wait_for(lambda: len(found.read_text().split()) == 4, "the last hook has run")
    assert {*found.read_text().split()} == {os.readlink("/proc/self/ns/pid")}


@pytest.mark.parametrize("dies", ["the container", "its monitor"])
def test_the_last_hooks_find_no_root(
    engine: EngineProcess, hooks: Hooks, notes: Path, dies: str
) -> None:
    hooks(("createRuntime", "test -d rootfs/etc"), ("poststop", f"ls -A >{notes}/left"))
    made = engine.docker("run", "-d", "--name", "gone", *RUN[2:], "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    record = json.loads((engine.exec_root / f"containers/{made.out.strip()}/task.json").read_text())
    os.kill(record["pid" if dies == "the container" else "monitor"], 9)
    assert engine.docker("wait", "gone").out == "137\n"
    wait_for(lambda: (notes / "left").exists(), "the last hook has run")
    assert "rootfs" not in (notes / "left").read_text()


def test_hooks_outlive_the_engine(engine: EngineProcess, hooks: Hooks, notes: Path) -> None:
    hooks(("createRuntime", note(notes, "createRuntime")), ("poststop", note(notes, "poststop")))
    made = engine.docker("run", "-d", "--name", "lasting", *RUN[2:], "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    pid = engine.inspect("lasting")["State"]["Pid"]
    engine.kill()
    os.kill(pid, 9)
    wait_for(lambda: (notes / "poststop.json").exists(), "the last hook has run")
    engine.start()
    state = engine.inspect("lasting")["State"]
    assert isinstance(state, dict)
    assert state["ExitCode"] == 137
    assert (notes / "order").read_text().split() == ["createRuntime", "poststop"]


def test_a_log_that_is_written_by_a_thread_goes_with_hooks(
    engine: EngineProcess, hooks: Hooks, notes: Path
) -> None:
    hooks(("poststart", note(notes, "poststart")), ("poststop", note(notes, "poststop")))
    flags = ("--log-opt", "mode=non-blocking")
    for _ in range(3):
        done = engine.docker(*RUN, *flags, "busybox", "sh", "-c", "seq 1000")
        assert done.lines[-1] == "1000", str(done)
    engine.wait_settled()
    assert (notes / "order").read_text().split() == [*AFTER] * 3
