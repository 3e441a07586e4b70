"""Containers whose ids the host knows as others: `userns-remap` and `--userns`, under the real docker CLI."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engine import EngineProcess
from support.programs import find, run
from support.waiting import wait_for
from system.conftest import assert_gone, clean, import_busybox, running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.berth_only

FIRST, COUNT = 700_000, 65_536
RUN = ("run", "--rm")
REMAP = ("--userns-remap", "mapped")
MAP = ["0", str(FIRST), str(COUNT)]


@pytest.fixture(scope="module")
def etc() -> Iterator[Path]:
    """A layer over /etc, with a user who has ids to give."""
    with tempfile.TemporaryDirectory(prefix="berth-test-") as path:
        for name in ("passwd", "group"):
            lines = Path("/etc", name).read_text()
            fields = ":x:3999:3999::/:/bin/sh\n" if name == "passwd" else ":x:3999:\n"
            Path(path, name).write_text(
                f"{lines}mapped{fields}poor{fields.replace('3999', '3998')}"
            )
        for name in ("subuid", "subgid"):
            Path(path, name).write_text(f"mapped:{FIRST}:{COUNT}\n")
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(scope="module")
def prefix(etc: Path) -> tuple[str, ...]:
    mount = f'mount -t overlay -o ro,lowerdir={etc}:/etc overlay /etc && exec "$@"'
    return (find("unshare"), "--mount", "sh", "-ec", mount, "sh")


@pytest.fixture(scope="module")
def mapped_engine(prefix: tuple[str, ...], busybox_tar: bytes) -> Iterator[EngineProcess]:
    engine = EngineProcess(flags=REMAP, prefix=prefix)
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def mapped(mapped_engine: EngineProcess) -> Iterator[EngineProcess]:
    yield mapped_engine
    clean(mapped_engine)


def test_a_checkpoint_is_refused(mapped: EngineProcess) -> None:
    assert mapped.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000").code == 0
    body = {"CheckpointID": "first"}
    status, answer = mapped.request("POST", "/containers/one/checkpoints", body)
    assert isinstance(answer, dict)
    assert (status, "it is in a user namespace" in answer["message"]) == (501, True), answer


def test_root_of_a_container_is_nobody_on_the_host(mapped: EngineProcess) -> None:
    made = mapped.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    pid = mapped.inspect("one")["State"]["Pid"]
    assert Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[:4] == [str(FIRST)] * 4
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == MAP
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    done = mapped.docker(
        "exec", "one", "sh", "-c", "id -u; stat -c %u:%g / /bin /dev /dev/null /etc/hosts"
    )
    assert done.lines == ["0", *["0:0"] * 5], str(done)
    assert "name=userns" in mapped.docker("info", "-f", "{{.SecurityOptions}}").out


def lines(engine: EngineProcess, *flags: str, script: str, image: str = "busybox") -> list[str]:
    """Run a script in a container that is removed afterwards, and return what it says."""
    done = engine.docker(*RUN, *flags, image, "sh", "-ec", script)
    assert done.code == 0, str(done)
    return done.lines


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--privileged",),
            "privileged mode is incompatible with user namespaces.  You must run the",
        ),
        (
            ("--network", "host"),
            "cannot share the host's network namespace when user namespaces are",
        ),
        (("--pid", "host"), "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_what_needs_the_host_is_refused_unless_its_ids_are_asked_for(
    mapped: EngineProcess, flags: tuple[str, ...], words: str
) -> None:
    done = mapped.docker(*RUN, *flags, "busybox", "true")
    assert done.code == 125
    assert words in done.err
    script = "cat /proc/self/uid_map"
    assert lines(mapped, *flags, "--userns", "host", script=script)[0].split() == [
        "0",
        "0",
        "4294967295",
    ]


def test_another_mode_is_refused(mapped: EngineProcess) -> None:
    status, answer = mapped.request(
        "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"UsernsMode": "auto"}}
    )
    assert status == 400
    assert "invalid userns mode" in answer["message"].lower()


def test_the_kernels_file_systems_are_there(mapped: EngineProcess) -> None:
    script = """
        mount; echo $$ > /dev/shm/x; echo y > /dev/null; ls /dev/mqueue /sys/class/net; cat /proc/1/comm
        stat -c %u:%a /mem
    """
    mounted = lines(mapped, "--tmpfs", "/mem:mode=700,uid=5", script=script)
    for line in (
        "proc on /proc type proc (rw,nosuid,nodev,noexec",
        "sysfs on /sys type sysfs (ro,nosuid,nodev,noexec",
        "devpts on /dev/pts type devpts (rw,nosuid,noexec",
        "mqueue on /dev/mqueue type mqueue (rw,nosuid,nodev,noexec",
        "shm on /dev/shm type tmpfs (rw,nosuid,nodev,noexec",
        "proc on /proc/sys type proc (ro,",
        "tmpfs on /proc/acpi type tmpfs (ro,",
    ):
        assert any(found.startswith(line) for found in mounted), line
    assert mounted[-4:] == ["eth0", "lo", "sh", "5:700"]


def test_a_terminal_is_its_own(mapped: EngineProcess) -> None:
    made = mapped.docker(
        "run", "-dt", "--name", "one", "busybox", "sh", "-c", "tty; stat -c %u:%g $(tty)"
    )
    assert made.code == 0, str(made)
    mapped.docker("wait", "one")
    assert mapped.docker("logs", "one").lines[:2] == ["/dev/pts/0", "0:5"]


def test_a_user_has_its_streams_and_groups(mapped: EngineProcess) -> None:
    script = "id -u; id -G; echo again > /dev/stdout; touch /tmp/mine && stat -c %u /tmp/mine"
    found = lines(mapped, "-u", "alice", "--group-add", "staff", "-w", "/new/place", script=script)
    assert found == ["1000", "1000 50", "again", "1000"]


def test_its_network_is_its_own(mapped: EngineProcess) -> None:
    serve = "mkdir /www && echo here > /www/index.html && exec httpd -f -p 80 -h /www"
    mapped.docker("network", "create", "near")
    try:
        flags = ("--network", "near", "--name", "server", "-p", "127.0.0.1::80", "-u", "0")
        made = mapped.docker("run", "-d", *flags, "busybox", "sh", "-c", serve)
        assert made.code == 0, str(made)
        script = "ping -c 1 server >/dev/null; until wget -qO- http://server/; do :; done"
        assert lines(mapped, "--network", "near", script=script) == ["here"]
        port = mapped.docker("port", "server", "80").lines[0]
        done = run(find("curl"), "-s", f"http://{port}/")
        assert done.lines == ["here"], str(done)
        attached = mapped.docker("network", "connect", "bridge", "server")
        assert attached.code == 0, str(attached)
        assert "eth1" in mapped.docker("exec", "server", "ls", "/sys/class/net").lines
        shared = ("--network", "container:server", "--pid", "container:server")
        script = "wget -qO- http://127.0.0.1/; cat /proc/1/comm"
        assert lines(mapped, *shared, script=script) == ["here", "httpd"]
        refused = mapped.docker(
            *RUN, "--userns", "host", "--name", "other", *shared, "busybox", "true"
        )
        assert refused.code == 0, str(refused)
    finally:
        mapped.docker("rm", "-f", "server")
        mapped.docker("network", "rm", "near")


def test_capabilities_hold_in_its_namespaces_only(mapped: EngineProcess) -> None:
    flags = (
        "--cap-add",
        "NET_ADMIN",
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
    )
    script = """
        ip link add name br9 type bridge; ip link show br9 | grep -c br9
        mount -t tmpfs tmpfs /work && touch /work/x && echo mounted
        hostname changed && hostname
        mknod /tmp/disk b 8 0 2>/dev/null || echo no device
        mount -t ext4 /dev/null /work 2>/dev/null || echo no disk
    """
    assert lines(mapped, *flags, script=script) == [
        "1",
        "mounted",
        "changed",
        "no device",
        "no disk",
    ]


def test_limits_and_parameters_are_set(mapped: EngineProcess) -> None:
    flags = (
        *("--sysctl", "net.ipv4.ip_local_port_range=4000 5000", "--sysctl", "kernel.msgmax=4096"),
        *("--ulimit", "nofile=100:200", "--oom-score-adj", "300", "--pids-limit", "50", "--init"),
        *("--device", "/dev/null:/dev/nothing", "--memory", "64m", "--read-only"),
    )
    script = """
        cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/msgmax /proc/self/oom_score_adj
        ulimit -n; ulimit -Hn; cat /proc/1/comm; echo x > /dev/nothing; stat -c %t:%T /dev/nothing
        touch /x 2>/dev/null || echo read only
    """
    found = lines(mapped, *flags, script=script)
    assert found[0].split() == ["4000", "5000"]
    assert found[1:] == ["4096", "300", "100", "200", "docker-init", "1:3", "read only"]


@pytest.mark.parametrize("mode", ["cgroupns", "ipc", "uts"])
def test_it_may_have_other_namespaces_of_the_host(mapped: EngineProcess, mode: str) -> None:
    kind = "cgroup" if mode == "cgroupns" else mode
    script = f"readlink /proc/self/ns/{kind}; ls /sys/fs/cgroup >/dev/null; cat /proc/self/uid_map"
    found = lines(mapped, f"--{mode}", "host", script=script)
    assert found[0] == os.readlink(f"/proc/self/ns/{kind}")
    assert found[1].split() == MAP


def test_volumes_have_the_same_owners_for_all(mapped: EngineProcess) -> None:
    flags = ("-v", "shelf:/shelf")
    script = (
        "touch /shelf/roots /shelf/hers; chown 1000:50 /shelf/hers; stat -c %u:%g /shelf /shelf/*"
    )
    try:
        assert lines(mapped, *flags, script=script) == ["0:0", "1000:50", "0:0"]
        again = "stat -c %u:%g /shelf /shelf/*"
        assert lines(mapped, *flags, script=again) == ["0:0", "1000:50", "0:0"]
        assert lines(mapped, *flags, "--userns", "host", script=again) == ["0:0", "1000:50", "0:0"]
        part = ("--mount", "type=volume,src=shelf,dst=/part")
        assert lines(mapped, *part, script="stat -c %u /part/hers") == ["1000"]
    finally:
        mapped.docker("volume", "rm", "shelf")


def test_a_new_volume_has_the_images_files_with_their_owners(mapped: EngineProcess) -> None:
    assert lines(mapped, "-v", "/home", script="stat -c %u:%g /home/alice") == ["1000:1000"]


def test_binds_are_as_the_host_has_them(mapped: EngineProcess, tmp_path: Path) -> None:
    for name, owner in (("roots", 0), ("its", FIRST), ("hers", FIRST + 1000)):
        (tmp_path / name).mkdir(mode=0o755)
        os.chown(tmp_path / name, owner, owner)
    os.chmod(tmp_path, 0o755)
    script = """
        stat -c %u /bound/roots /bound/its /bound/hers
        touch /bound/its/new; touch /bound/roots/new 2>/dev/null || echo denied
    """
    found = lines(mapped, "-v", f"{tmp_path}:/bound", script=script)
    assert found == ["65534", "0", "1000", "denied"]
    assert (tmp_path / "its/new").stat().st_uid == FIRST


def test_volumes_from_elsewhere_are_as_the_host_has_them(
    mapped: EngineProcess, tmp_path: Path
) -> None:
    os.chmod(tmp_path, 0o777)
    options = ("type=none", "o=bind", f"device={tmp_path}")
    flags = [word for option in options for word in ("--opt", option)]
    assert mapped.docker("volume", "create", *flags, "lent").code == 0
    try:
        script = "stat -c %u /lent; touch /lent/new; stat -c %u /lent/new"
        assert lines(mapped, "-v", "lent:/lent", script=script) == ["65534", "0"]
        assert (tmp_path / "new").stat().st_uid == FIRST
    finally:
        mapped.docker("volume", "rm", "lent")


def test_nobody_reaches_what_containers_keep(mapped: EngineProcess) -> None:
    for name in ("snapshots", "volumes"):
        assert (mapped.data_root / name).stat().st_mode & 0o777 == 0o700


def archive_of(engine: EngineProcess, *args: str) -> dict[str, tarfile.TarInfo]:
    done = engine.docker(*args)
    assert done.code == 0, str(done)
    with tarfile.open(fileobj=io.BytesIO(done.raw)) as archive:
        return {member.name.rstrip("/"): member for member in archive}


@pytest.mark.parametrize("runs", [True, False])
def test_files_come_and_go_with_the_owners_that_it_sees(
    mapped: EngineProcess, tmp_path: Path, *, runs: bool
) -> None:
    script = (
        "touch /home/alice/x && chown -R 1000:1000 /home/alice; echo q > /root/y; rm /etc/group"
    )
    waits = "; exec sleep 1000" if runs else ""
    made = mapped.docker(
        "run", "-d", "--name", "one", "-v", "/kept", "busybox", "sh", "-c", script + waits
    )
    assert made.code == 0, str(made)
    if not runs:
        mapped.docker("wait", "one")
    wait_for(lambda: "D /etc/group" in mapped.docker("diff", "one").lines, "it has done all")
    assert set(mapped.docker("diff", "one").lines) >= {"C /root", "A /root/y", "A /home/alice/x"}
    found = archive_of(mapped, "cp", "one:/home/alice", "-")
    assert (found["alice/x"].uid, found["alice/x"].gid) == (1000, 1000)
    (tmp_path / "put").write_text("put")
    os.chown(tmp_path / "put", 1000, 50)
    assert mapped.docker("cp", "-a", str(tmp_path / "put"), "one:/work/put").code == 0
    assert mapped.docker("cp", str(tmp_path / "put"), "one:/kept/put").code == 0
    found = archive_of(mapped, "cp", "one:/work/put", "-")
    assert (found["put"].uid, found["put"].gid) == (1000, 50)
    found = archive_of(mapped, "cp", "one:/kept/put", "-")
    assert (found["put"].uid, found["put"].gid) == (1000, 50)
    found = archive_of(mapped, "export", "one")
    assert (found["home/alice/x"].uid, found["root/y"].uid, found["work/put"].gid) == (1000, 0, 50)
    try:
        assert mapped.docker("commit", "one", "made").code == 0
        script = "stat -c %u:%g /home/alice/x /root/y /work/put"
        for flags in ((), ("--userns", "host")):
            seen = lines(mapped, *flags, script=script, image="made")
            assert seen == ["1000:1000", "0:0", "1000:50"]
    finally:
        mapped.docker("rm", "-fv", "one")
        mapped.docker("rmi", "made")


def test_it_is_looked_at_as_any_other(mapped: EngineProcess) -> None:
    check = (
        "--health-cmd",
        "test $(id -u) = 0",
        "--health-interval",
        "1s",
        "--health-start-interval",
        "1s",
    )
    made = mapped.docker("run", "-d", "--name", "one", *check, "busybox", "sleep", "1000")
    assert made.code == 0, str(made)
    assert "sleep 1000" in mapped.docker("top", "one").out
    stats = json.loads(mapped.docker("stats", "--no-stream", "--format", "json", "one").out)
    assert int(stats["PIDs"]) >= 1
    assert mapped.docker("pause", "one").code == 0
    assert mapped.docker("unpause", "one").code == 0

    def is_healthy() -> bool:
        return mapped.inspect("one")["State"]["Health"]["Status"] == "healthy"

    wait_for(is_healthy, "it is healthy")
    done = mapped.docker("exec", "-u", "alice", "-t", "one", "sh", "-c", "id -u; stat -c %u $(tty)")
    assert done.lines == ["1000", "1000"], str(done)
    again = mapped.docker("restart", "-t", "0", "one")
    assert again.code == 0, str(again)
    assert mapped.docker("exec", "one", "id", "-u").lines == ["0"]


def test_this_machine_is_seen_with_its_owners(mapped: EngineProcess) -> None:
    script = "stat -c %u / /etc/passwd; touch /usr/bin/new && stat -c %u /usr/bin/new"
    assert lines(mapped, script=script, image="host") == ["0", "0", "0"]


def test_images_in_it_have_their_owners(mapped: EngineProcess) -> None:
    flags = ("--mount", "type=image,source=busybox,target=/image")
    script = "stat -c %u /image/bin /image/home/alice; touch /image/x 2>/dev/null || echo read only"
    assert lines(mapped, *flags, script=script) == ["0", "1000", "read only"]


def test_images_are_built_with_its_ids(mapped: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN cat /proc/self/uid_map && touch /made && chown 1000 /made\nCOPY Dockerfile /\n"
        "RUN --mount=type=cache,target=/cache --mount=type=bind,target=/sent"
        " touch /cache/x && stat -c cache-%u /cache/x && stat -c sent-%u /sent/Dockerfile\n"
    )
    built = mapped.berth("build", "-t", "built", str(tmp_path))
    assert built.code == 0, str(built)
    for words in (str(FIRST), "cache-0", "sent-0"):
        assert words in built.out + built.err
    try:
        assert lines(mapped, script="stat -c %u /made /Dockerfile", image="built") == ["1000", "0"]
    finally:
        mapped.docker("rmi", "built")


def test_what_fails_is_said(mapped: EngineProcess) -> None:
    done = mapped.docker(*RUN, "busybox", "nothing")
    assert done.code == 127
    assert 'exec: "nothing": executable file not found in $PATH' in done.err
    done = mapped.docker(*RUN, "-u", "nobody-knows", "busybox", "true")
    assert done.code == 125
    assert "unable to find user nobody-knows" in done.err
    done = mapped.docker(*RUN, "--network", "nowhere", "busybox", "true")
    assert done.code == 125
    assert "network nowhere not found" in done.err


def test_each_container_keeps_its_ids_when_the_setting_changes(
    prefix: tuple[str, ...], busybox_tar: bytes
) -> None:
    engine = EngineProcess(flags=REMAP, prefix=prefix)
    script = "touch /old; exec sleep 1000"

    def map_of(name: str) -> list[str]:
        return engine.docker("exec", name, "cat", "/proc/self/uid_map").out.split()

    try:
        engine.start()
        import_busybox(engine, busybox_tar)
        engine.docker("run", "-d", "--name", "old", "busybox", "sh", "-c", script)
        engine.kill()
        engine.flags = ()
        engine.start()
        engine.docker("run", "-d", "--name", "new", "busybox", "sleep", "1000")
        assert map_of("new") == ["0", "0", "4294967295"]
        assert map_of("old") == MAP
        engine.docker("restart", "-t", "0", "old")
        assert map_of("old") == MAP
        assert engine.docker("exec", "old", "stat", "-c", "%u", "/old").lines == ["0"]
        engine.stop()
        engine.flags = REMAP
        engine.start()
        assert map_of("new") == ["0", "0", "4294967295"]
        assert map_of("old") == MAP
        engine.remove_containers()
        engine.wait_settled()
    finally:
        engine.close()
    assert_gone(engine)


def test_copies_of_images_have_their_owners(prefix: tuple[str, ...], busybox_tar: bytes) -> None:
    engine = EngineProcess(flags=(*REMAP, "--storage-driver", "vfs"), prefix=prefix)
    try:
        engine.start()
        import_busybox(engine, busybox_tar)
        script = "cat /proc/self/uid_map; touch /x; stat -c %u /x /bin /home/alice"
        found = lines(engine, script=script)
        assert (found[0].split(), found[1:]) == (MAP, ["0", "0", "1000"])
    finally:
        engine.close()
    assert_gone(engine)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nobody-knows", 'Error during uid lookup for "nobody-knows"'),
        ("mapped:nobody-knows", 'Error during gid lookup for "nobody-knows"'),
        ("poor", "usermod --add-subuids"),
        ("3999:77777", "Gid 77777 has no entry"),
        ("default", "useradd --system"),
        ("a:b:c", "Invalid user/group specification in --userns-remap"),
    ],
)
def test_an_engine_says_what_it_lacks(prefix: tuple[str, ...], value: str, words: str) -> None:
    engine = EngineProcess(flags=("--userns-remap", value), prefix=prefix)
    try:
        with pytest.raises(AssertionError, match="did not start") as raised:
            engine.start()
        assert words in str(raised.value)
    finally:
        engine.close()
