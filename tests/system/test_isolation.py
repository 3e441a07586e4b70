"""What a process in a container sees and may do."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from system.conftest import run_inside

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]
    Inside = Callable[..., str]

DEFAULT_CAPABILITIES = "00000000a80425fb"
NO_CAPABILITIES = "0000000000000000"
NET_ADMIN = 1 << 12
CHOWN = 1 << 0


@pytest.fixture
def inside(cli: Cli) -> Inside:
    """What both command lines start must be isolated."""
    return functools.partial(run_inside, cli)


def facts(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_process_1_is_the_command_and_sees_no_other(inside: Inside) -> None:
    assert inside("echo $$; ls -d /proc/[0-9]* | wc -l").split()[0] == "1"
    # The shell itself and the `ls` it forks: nothing of the machine.
    assert int(inside("ls -d /proc/[0-9]* | wc -l")) <= 3


def test_every_namespace_but_the_users_is_its_own(inside: Inside) -> None:
    kinds = ("mnt", "pid", "net", "uts", "ipc", "cgroup", "user")
    shown = inside("for n in " + " ".join(kinds) + "; do readlink /proc/self/ns/$n; done").split()
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    shared = {kind for kind, a, b in zip(kinds, shown, host, strict=True) if a == b}
    assert shared <= {"user", "cgroup"}


@pytest.mark.berth_only
def test_the_cgroup_namespace_is_its_own_on_every_hierarchy(inside: Inside) -> None:
    assert inside("readlink /proc/self/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
    assert {line.rsplit(":", 1)[1] for line in inside("cat /proc/self/cgroup").split()} == {"/"}


def test_root_has_dockers_capabilities_and_no_more(inside: Inside) -> None:
    seen = facts(inside("cat /proc/self/status"))
    assert seen["CapEff"] == seen["CapPrm"] == seen["CapBnd"] == DEFAULT_CAPABILITIES
    assert seen["CapAmb"] == NO_CAPABILITIES


@pytest.mark.berth_only
def test_no_capability_is_inheritable(inside: Inside) -> None:
    assert facts(inside("cat /proc/self/status"))["CapInh"] == NO_CAPABILITIES


def test_another_user_has_no_capability(inside: Inside) -> None:
    seen = facts(inside("cat /proc/self/status", "-u", "alice"))
    assert seen["CapEff"] == seen["CapPrm"] == NO_CAPABILITIES


def test_capabilities_are_added_and_dropped(inside: Inside) -> None:
    seen = facts(
        inside("cat /proc/self/status", "--cap-add", "NET_ADMIN", "--cap-drop", "CAP_CHOWN")
    )
    expected = (int(DEFAULT_CAPABILITIES, 16) | NET_ADMIN) & ~CHOWN
    assert int(seen["CapEff"], 16) == int(seen["CapBnd"], 16) == expected
    none = facts(inside("cat /proc/self/status", "--cap-drop", "ALL"))
    assert none["CapEff"] == none["CapBnd"] == NO_CAPABILITIES
    one = facts(inside("cat /proc/self/status", "--cap-drop", "all", "--cap-add", "chown"))
    assert int(one["CapEff"], 16) == CHOWN


def test_the_default_seccomp_filter_is_on(inside: Inside) -> None:
    seen = facts(inside("cat /proc/self/status"))
    assert seen["Seccomp"] == "2"
    assert seen["NoNewPrivs"] == "0"
    assert "ermitted" in inside("unshare -U true 2>&1 || true")


def test_seccomp_and_new_privileges_follow_security_opt(inside: Inside) -> None:
    assert (
        facts(inside("cat /proc/self/status", "--security-opt", "seccomp=unconfined"))["Seccomp"]
        == "0"
    )
    seen = facts(inside("cat /proc/self/status", "--security-opt", "no-new-privileges"))
    assert seen["NoNewPrivs"] == "1"


@pytest.mark.berth_only  # runc 1.1 fails where the machine itself lacks a capability
def test_privileged_has_everything(inside: Inside) -> None:
    seen = facts(inside("cat /proc/self/status", "--privileged"))
    assert seen["Seccomp"] == "0"
    own = facts(Path("/proc/self/status").read_text())
    assert int(seen["CapEff"], 16) == int(own["CapBnd"], 16)
    assert inside("mount -t tmpfs t /tmp && echo done", "--privileged") == "done"
    assert inside(
        "mount -o remount,ro /proc/sys 2>&1; touch /sys/x 2>&1 | grep -c 'Read-only'; true"
    ).endswith("1")


def test_mounting_is_refused(cli: Cli) -> None:
    done = cli("run", "--rm", "--network", "none", "busybox", "mount", "-t", "tmpfs", "t", "/tmp")
    assert done.code != 0
    assert "ermi" in done.err


def test_only_the_three_standard_descriptors_are_open(inside: Inside) -> None:
    # `ls` itself opens the directory it lists as 3.
    assert inside("ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_the_environment_has_nothing_of_the_engine(inside: Inside) -> None:
    names = {line.partition("=")[0] for line in inside("env").splitlines()}
    assert names <= {"PATH", "HOSTNAME", "HOME", "PWD", "SHLVL", "OLDPWD"}


def test_the_root_is_an_overlay_and_nothing_of_the_machine_is_mounted(
    inside: Inside, engine: EngineProcess
) -> None:
    lines = [line.split() for line in inside("cat /proc/mounts").splitlines()]
    kinds = {line[1]: line[2] for line in lines}
    assert kinds["/"] in ("overlay", "fuse-overlayfs", "btrfs")
    expected = {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs"}
    assert {path: kinds[path] for path in expected} == expected
    assert kinds["/dev/mqueue"] == "mqueue"
    assert kinds["/sys"] == "sysfs"
    for line in lines:
        assert line[1].startswith(("/proc", "/dev", "/sys", "/etc/host", "/etc/resolv.conf")) or (
            line[1] == "/"
        ), line


def test_sys_is_read_only_and_secrets_of_proc_are_masked(inside: Inside) -> None:
    mounts = {line.split()[1]: line.split() for line in inside("cat /proc/mounts").splitlines()}
    assert "ro" in mounts["/sys"][3].split(",")
    assert "ro" in mounts["/proc/sys"][3].split(",")
    assert inside("wc -c </proc/timer_list") == "0"
    assert inside("ls /sys/firmware | wc -l") == "0"
    assert "Read-only" in inside("echo 1 2>&1 >/proc/sys/kernel/panic || true")


def test_devices_are_dockers_few(inside: Inside) -> None:
    names = set(inside("ls /dev").split())
    assert {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "ptmx",
        "pts",
        "shm",
        "mqueue",
    } <= names
    assert {"fd", "stdin", "stdout", "stderr"} <= names
    assert not names & {"sda", "vda", "mem", "kmem", "kmsg", "loop0", "fuse", "kvm"}
    assert inside("head -c 4 /dev/zero | wc -c; echo x >/dev/null && echo ok") == "4\nok"


def test_a_made_device_cannot_be_opened(inside: Inside) -> None:
    assert "ermitted" in inside("mknod /d b 254 0 && head -c 1 /d 2>&1 || true")


def test_signals_and_masks_are_the_defaults(inside: Inside) -> None:
    seen = facts(inside("exec cat /proc/self/status"))
    assert int(seen["SigBlk"], 16) == 0
    assert int(seen["SigIgn"], 16) == 0


def test_the_limits_are_the_engines_own(inside: Inside) -> None:
    host = Path("/proc/self/limits").read_text()
    shown = inside("cat /proc/self/limits")
    assert "Max core file size" in shown
    assert len(shown.splitlines()) == len(host.splitlines())


def test_the_host_name_can_be_set_by_nobody(inside: Inside) -> None:
    assert "ermitted" in inside("hostname changed 2>&1 || true")


def test_a_link_out_of_the_root_stays_inside(cli: Cli) -> None:
    """A tmpfs whose target is a link to the machine's root is mounted below the container's."""
    done = cli(
        *(
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "sh",
            "-w",
            "/proc/self/root/../..",
            "busybox",
        ),
        *("-c", "pwd; ls / | grep -c busybox; ls /bin/busybox"),
    )
    assert "/bin/busybox" in done.lines, str(done)


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_any_user_may_bind_any_port_and_ping(engine: EngineProcess, network: str) -> None:
    names = ("ip_unprivileged_port_start", "ping_group_range")
    paths = [f"/proc/sys/net/ipv4/{name}" for name in names]
    done = engine.docker("run", "--rm", "--network", network, "busybox", "cat", *paths)
    assert done.out.split() == ["0", "0", "2147483647"], str(done)


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_sysctls_of_its_own_namespaces_are_set(
    cli: Cli, engine: EngineProcess, network: str
) -> None:
    done = cli(
        *("run", "--rm", "--network", network, "--sysctl", "net.ipv4.ip_forward=0"),
        *("--sysctl", "kernel.msgmax=9000", "--sysctl", "net.ipv4.ip_unprivileged_port_start=7"),
        *("busybox", "sh", "-c", "cd /proc/sys; cat */msgmax net/ipv4/ip_forward */*/ip_unpriv*"),
    )
    assert done.lines == ["9000", "0", "7"], str(done)
    assert engine.request("GET", "/containers/json?all=1")[1] == []


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--network", "host", "--sysctl", "net.ipv4.ip_forward=1"), "host network namespace"),
        (("--ipc", "host", "--sysctl", "kernel.msgmax=9000"), "hosts ipc namespace"),
    ],
)
def test_sysctls_of_the_machine_are_refused(
    cli: Cli, flags: tuple[str, ...], complaint: str
) -> None:
    done = cli("run", "--rm", *flags, "busybox", "true")
    assert done.code == 125, str(done)
    assert complaint in done.err


def test_the_api_refuses_a_sysctl_that_is_everyones(engine: EngineProcess) -> None:
    body = {"Image": "busybox", "HostConfig": {"Sysctls": {"kernel.panic": "9"}}}
    status, answer = engine.request("POST", "/containers/create?name=panic", body)
    if status == 201:  # the reference finds out at the start
        status, answer = engine.request("POST", "/containers/panic/start")
    assert status >= 400
    assert 'sysctl "kernel.panic" is not in a separate kernel namespace' in str(answer)


def test_a_tmpfs_lies_in_a_volume_and_not_below_it(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        *("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/data", "--tmpfs", "/data/cache"),
        *(
            "busybox",
            "sh",
            "-c",
            "touch /data/cache/x && grep -c ' /data/cache tmpfs' /proc/mounts",
        ),
    )
    assert done.lines == ["1"], str(done)
    assert list(tmp_path.glob("cache/*")) == []


def test_the_machines_dev_and_sys_can_be_bound(inside: Inside) -> None:
    assert inside("ls -d /dev/shm /dev/kmsg", "-v", "/dev:/dev") == "/dev/kmsg\n/dev/shm"
    lines = inside("grep ' /sys/fs/cgroup ' /proc/self/mountinfo", "-v", "/sys:/sys").splitlines()
    mounts = {fields[0]: fields for fields in map(str.split, lines)}
    assert len(mounts) == 2, "the container's own groups cover the machine's"
    top = next(fields for fields in mounts.values() if fields[1] in mounts)
    assert "nosuid" in top[5]


@pytest.mark.parametrize(
    "flags",
    [("--ulimit", "nofile=99999999:99999999")],
)
def test_a_limit_that_cannot_be_raised_is_refused(cli: Cli, flags: tuple[str, ...]) -> None:
    done = cli("run", "--rm", "--network", "none", *flags, "busybox", "true")
    assert done.code == 125, str(done)
    assert "error setting rlimit type 7: operation not permitted" in done.err


def test_namespaces_of_another_container_are_shared(engine: EngineProcess) -> None:
    run = ("run", "-d", "--network", "none", "--ipc", "shareable", "--name", "first")
    assert engine.docker(*run, "busybox", "sleep", "600").code == 0
    engine.docker("exec", "first", "touch", "/dev/shm/mark")
    links = "for n in pid ipc net; do readlink /proc/self/ns/$n; done"
    first = engine.docker("exec", "first", "sh", "-c", links).lines
    modes = [f"--{kind}=container:first" for kind in ("pid", "ipc", "network")]
    script = f"{links}; ls /dev/shm; ls -d /dev/mqueue; ps | grep -c 'sleep 600'"
    joined = engine.docker("run", "--rm", *modes, "busybox", "sh", "-c", script)
    assert joined.lines[:3] == first, str(joined)
    assert joined.lines[3:5] == ["mark", "/dev/mqueue"]
    assert int(joined.lines[5]) >= 1


def test_a_private_ipc_namespace_is_not_joined(engine: EngineProcess) -> None:
    engine.docker("run", "-d", "--name", "alone", "--network", "none", "busybox", "sleep", "600")
    done = engine.docker("run", "--rm", "--ipc", "container:alone", "busybox", "true")
    assert done.code == 125, str(done)
    assert "non-shareable IPC" in done.err


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_a_namespace_can_be_the_machines(inside: Inside, kind: str) -> None:
    shown = inside(f"readlink /proc/self/ns/{kind}", f"--{kind}", "host")
    assert shown == os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", ["pid", "ipc", "network"])
def test_a_namespace_of_a_stopped_container_is_refused(engine: EngineProcess, kind: str) -> None:
    engine.docker("create", "--name", "still", "--ipc", "shareable", "busybox", "true")
    done = engine.docker("run", "--rm", f"--{kind}", "container:still", "busybox", "true")
    assert done.code == 125, str(done)
    assert "non running container" in done.err or "is not running" in done.err
