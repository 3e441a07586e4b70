"""Images and containers that try to get at the machine by what the engine does for them."""

from __future__ import annotations

import encodings
import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import berth
from support import kernel
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]
    Inside = Callable[..., str]
    Hostile = Callable[[dict[str, str]], str]

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def hostile(engine: EngineProcess, busybox_tar: bytes) -> Iterator[Hostile]:
    """Make an image of busybox with symbolic links in it: {path: target}."""

    def make(links: dict[str, str]) -> str:
        body = io.BytesIO(busybox_tar)
        with tarfile.open(fileobj=body, mode="a") as archive:
            for path, target in links.items():
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
        done = engine.docker("import", "-c", "ENV PATH=/bin", "-", "hostile", stdin=body.getvalue())
        assert done.code == 0, str(done)
        return "hostile"

    yield make
    engine.remove_containers()
    engine.docker("rmi", "hostile")


@pytest.mark.parametrize("path", ["proc", "sys", "dev"])
def test_a_link_in_the_place_of_a_kernel_file_system_is_replaced(
    engine: EngineProcess, hostile: Hostile, path: str
) -> None:
    image = hostile({path: "/var"})
    script = (
        f"test -L /{path} || echo plain; ls /var | wc -l; wc -c </proc/timer_list; ls -d /dev/null"
    )
    done = engine.docker(*RUN, image, "sh", "-c", script)
    assert done.lines == ["plain", "0", "0", "/dev/null"], str(done)


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "../run/not/there", "/bin/sh"])
def test_a_link_in_the_place_of_resolv_conf_is_replaced(
    engine: EngineProcess, hostile: Hostile, target: str
) -> None:
    image = hostile({"etc/resolv.conf": target, "etc/hosts": target})
    done = engine.docker(*RUN, image, "sh", "-c", "test -f /etc/hosts && grep -c . /proc/mounts")
    assert done.code == 0, str(done)
    assert engine.docker(*RUN, image, "cat", "/etc/hosts").out.startswith("127.0.0.1\tlocalhost")


@pytest.mark.parametrize("flag", ["-v", "--tmpfs"])
@pytest.mark.parametrize("target", ["/link", "/proc/self/attr", "/proc/sys"])
def test_nothing_is_mounted_into_proc(
    engine: EngineProcess, hostile: Hostile, tmp_path: Path, flag: str, target: str
) -> None:
    image = hostile({"link": "/proc/sys/kernel"})
    what = f"{tmp_path}:{target}" if flag == "-v" else target
    done = engine.docker(*RUN, flag, what, image, "true")
    assert done.code == 125, str(done)
    assert "cannot be mounted because it is inside /proc" in done.err


def test_proc_itself_is_covered_by_a_proc_only(engine: EngineProcess, tmp_path: Path) -> None:
    refused = engine.docker(*RUN, "-v", f"{tmp_path}:/proc", "busybox", "true")
    assert refused.code == 125
    assert "cannot be mounted because it is not of type proc" in refused.err
    done = engine.docker(*RUN, "-v", "/proc:/proc", "busybox", "wc", "-c", "/proc/timer_list")
    assert done.out.split()[0] == "0", "a bound /proc is masked as well"


def test_a_mount_target_leads_where_it_leads_inside_the_root(
    engine: EngineProcess, hostile: Hostile, tmp_path: Path
) -> None:
    image = hostile({"absolute": "/var/a", "upwards": "../../../../../var/b", "var/c": "/tmp"})
    (tmp_path / "mark").touch()
    flags = [f"{tmp_path}:{target}" for target in ("/absolute", "/upwards", "/var/c")]
    volumes = [word for flag in flags for word in ("-v", flag)]
    done = engine.docker(*RUN, *volumes, image, "ls", "/var/a", "/var/b", "/tmp")
    assert done.lines.count("mark") == 3, str(done)
    assert not Path("/var/a").exists()
    assert not Path("/var/b").exists()


@pytest.mark.berth_only
def test_what_hides_files_is_the_null_device(engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/proc/sys/kernel/core_pattern")
    done = engine.docker(*RUN, "-v", f"{tmp_path}:/dev", "busybox", "true")
    assert done.code == 125
    assert "/dev/null" in done.err


@pytest.mark.parametrize("number", [0, 1, 3, 5, 7, 9])
def test_no_descriptor_leads_out_as_the_working_directory(
    engine: EngineProcess, number: int
) -> None:
    done = engine.docker(*RUN, "-w", f"/proc/self/fd/{number}", "busybox", "pwd")
    assert done.code in (125, 126, 127), str(done)
    assert done.out == ""
    engine.docker("run", "-d", "--name", "joined", "--network", "none", "busybox", "sleep", "600")
    joined = engine.docker("exec", "-w", f"/proc/self/fd/{number}", "joined", "pwd")
    assert joined.code != 0
    assert "/" not in joined.lines


def test_another_process_root_is_no_working_directory(
    engine: EngineProcess, tmp_path: Path
) -> None:
    there = f"/proc/{os.getpid()}/root{tmp_path}"
    done = engine.docker(*RUN, "--pid", "host", "-w", there, "busybox", "pwd")
    assert done.code == 125, str(done)
    assert "outside of container mount namespace root" in done.err
    new = engine.docker(*RUN, "--pid", "host", "-w", f"{there}/new", "busybox", "pwd")
    assert new.code != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.berth_only
def test_a_container_cannot_write_to_the_interpreter(engine: EngineProcess) -> None:
    """Its /proc/self/exe is a sealed copy: an exec of that runs Python, which cannot be opened to write."""
    engine.docker("run", "-d", "--name", "victim", "--network", "none", "busybox", "sleep", "600")
    done = engine.docker("exec", "victim", "sh", "-c", "echo x >/proc/1/exe || echo refused")
    assert "refused" in done.out
    run = engine.docker("exec", "victim", "/proc/self/exe", "-c", "print(1)")
    assert run.code != 0 or run.lines == ["1"], str(run)
    init = engine.docker(*RUN, "--init", "busybox", "sh", "-c", "echo x >/proc/1/exe || echo no")
    assert "no" in init.lines, str(init)
    first = engine.inspect("victim")["State"]["Pid"]
    monitor = next(pid for pid, children in kernel.children().items() if first in children)
    assert os.readlink(f"/proc/{monitor}/exe") == "/memfd:berth (deleted)"


@pytest.mark.berth_only
def test_the_engine_has_no_abstract_sockets(engine: EngineProcess) -> None:
    """A container in the host's network could talk to those (CVE-2020-15257)."""
    engine.docker("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "600")
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    abstract = {f"socket:[{row[6]}]" for row in table if len(row) > 7 and row[7].startswith("@")}
    family = {engine.pid} | kernel.descendants(engine.pid) | kernel.holders([engine.exec_root])
    held = {os.readlink(fd) for pid in family for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert not held & abstract


WATCH = """
while [ ! -e /out/stop ]; do
  ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe 2>/dev/null
done >/out/seen
exit 0
"""


@pytest.mark.berth_only
def test_a_container_that_watches_an_exec_sees_nothing_of_the_engine(
    engine: EngineProcess, tmp_path: Path
) -> None:
    run = ("run", "-d", "--name", "watching", "--network", "none", "-v", f"{tmp_path}:/out")
    engine.docker(*run, "busybox", "sh", "-c", WATCH)
    for _ in range(10):
        assert engine.docker("exec", "watching", "true").code == 0
    (tmp_path / "stop").touch()
    assert engine.docker("wait", "watching").out == "0\n"
    seen = (tmp_path / "seen").read_text()
    assert "/proc/1/fd" in seen
    for secret in (str(engine.base), "mnt:[", "cgroup", "anon_inode"):
        assert secret not in seen, secret


def test_hostile_account_files_are_no_more_than_empty(engine: EngineProcess) -> None:
    script = "rm /etc/passwd /etc/group; mknod /etc/passwd p; mkdir /etc/group; exec sleep 600"
    engine.docker("run", "-d", "--name", "odd", "--network", "none", "busybox", "sh", "-c", script)
    done = engine.docker("exec", "-u", "1000:1000", "odd", "grep", "Uid", "/proc/self/status")
    assert done.out.split() == ["Uid:", *["1000"] * 4], str(done)
    assert engine.docker("exec", "-u", "alice", "odd", "true").code != 0


def test_an_id_without_end_is_none(engine: EngineProcess) -> None:
    script = "printf 'long:x:%05000d:1::/:\\n' 1 >/etc/passwd; exec sleep 600"
    engine.docker("run", "-d", "--name", "long", "--network", "none", "busybox", "sh", "-c", script)
    done = engine.docker("exec", "-u", "1000", "long", "sh", "-c", "id -u; wc -c </etc/passwd")
    assert done.out.split() == ["1000", "5014"], str(done)
    for user, why in (("long", "unable to find user long"), ("1" * 5000, "must be in range")):
        refused = engine.docker("exec", "-u", user, "long", "true")
        assert why in refused.out + refused.err, str(refused)


@pytest.mark.parametrize("removed", [False, True], ids=["its own", "none"])
def test_no_stream_is_the_hosts_null_device(engine: EngineProcess, *, removed: bool) -> None:
    """Root of a container could take that from everybody else on the machine."""
    host = os.stat(os.devnull)
    script = "stat -L -c '%d %i %t %T' /proc/self/fd/0; wc -c"
    first = f"{script}; {'rm /dev/null; ' if removed else ''}echo ready; exec sleep 600"
    engine.docker("run", "-d", "--name", "still", "--network", "none", "busybox", "sh", "-c", first)
    wait_for(lambda: "ready" in engine.docker("logs", "still").out, "it runs")
    done = engine.docker("exec", "still", "sh", "-c", script)
    for line, count in (engine.docker("logs", "still").lines[:2], done.lines):
        device, number, *kind = line.split()
        assert [int(device), int(number)] != [host.st_dev, host.st_ino], line
        assert [*kind, count] == ["1", "3", "0"]


@pytest.mark.parametrize("access", ["rw", "ro"])
def test_what_is_in_the_way_in_a_volume_stays(
    engine: EngineProcess, tmp_path: Path, access: str
) -> None:
    (tmp_path / "resolv.conf").symlink_to("../run/resolve/stub.conf")
    (tmp_path / "hosts").write_text("192.0.2.1 kept\n")
    (tmp_path / "hostname").write_text("kept\n")
    done = engine.docker(
        *("run", "--rm", "-v", f"{tmp_path}:/etc:{access}"),
        *("busybox", "sh", "-c", "cat /etc/hosts /etc/resolv.conf"),
    )
    assert done.code == 0, str(done)
    assert "kept" not in done.out
    assert "localhost" in done.out
    assert "nameserver" in done.out
    assert os.readlink(tmp_path / "resolv.conf") == "../run/resolve/stub.conf"
    assert (tmp_path / "hosts").read_text() == "192.0.2.1 kept\n"


@pytest.mark.berth_only
def test_a_layer_lends_the_engine_no_code(engine: EngineProcess) -> None:
    body = io.BytesIO()
    sources = Path(berth.__file__).parent.rglob("*.py")
    files = {str(path): b"# coding: planted\n" for path in sources}
    planted = b"import os\nos.write(2, b'PLANTED')\n"
    files[f"{Path(encodings.__file__).parent}/planted.py"] = planted
    with tarfile.open(fileobj=body, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        entry = tarfile.TarInfo("device")
        entry.type, entry.devmajor = tarfile.CHRTYPE, 1 << 40
        archive.addfile(entry)
    done = engine.docker("import", "-", "hostile", stdin=body.getvalue())
    assert done.code == 1, str(done)
    log = engine.exec_root / "zygote.log"
    assert "PLANTED" not in log.read_text()
    assert "invalid tar header: device" in done.err
