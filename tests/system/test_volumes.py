"""Volumes, binds and images in containers: what is seen of them, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.archives import layer
from support.programs import find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")
MISMATCH = "Are you trying to mount a directory onto a file (or vice-versa)?"


@pytest.fixture
def volumes(engine: EngineProcess) -> Iterator[EngineProcess]:
    """An engine whose volumes are removed afterwards; nothing is mounted in its folders then."""
    yield engine
    engine.remove_containers()
    for name in engine.docker("volume", "ls", "-q").lines:
        assert engine.docker("volume", "rm", name).code == 0
    assert not mounted(engine)


def mounted(engine: EngineProcess) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if f"{engine.data_root}/volumes" in line]


def make(engine: EngineProcess, name: str, **options: str) -> None:
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    done = engine.docker("volume", "create", *flags, name)
    assert (done.code, done.out) == (0, f"{name}\n"), str(done)


# Images


@pytest.mark.berth_only  # the reference is an older Docker
def test_an_image_is_seen_read_only(cli: Cli, engine: EngineProcess) -> None:
    mount = ("--mount", "type=image,source=busybox,target=/image")
    done = cli(*RUN, *mount, "busybox", "sh", "-c", "ls /image/bin/busybox; touch /image/x")
    assert (done.code, done.out) == (1, "/image/bin/busybox\n")
    assert "Read-only file system" in done.err


@pytest.mark.berth_only
def test_an_image_stays_as_it_is_whoever_may_mount(cli: Cli) -> None:
    mount = ("--cap-add", "SYS_ADMIN", "--mount", "type=image,source=busybox,target=/image")
    script = "mount -o remount,rw /image; mount -o remount,bind,rw /image; touch /image/etc/new"
    done = cli(*RUN, *mount, "busybox", "sh", "-c", script)
    assert done.code == 1
    assert "Read-only file system" in done.err
    assert "new" not in cli(*RUN, "busybox", "ls", "/etc").lines


@pytest.mark.berth_only  # the reference is an older Docker
def test_a_part_of_an_image_is_seen(cli: Cli) -> None:
    mount = "type=image,source=busybox,target=/image,image-subpath=etc"
    assert cli(*RUN, "--mount", mount, "busybox", "ls", "/image").lines == ["group", "passwd"]
    missing = cli(*RUN, "--mount", mount.replace("=etc", "=no/such"), "busybox", "true")
    assert missing.code == 127
    assert "no such file or directory" in missing.err
    outside = cli(*RUN, "--mount", mount.replace("=etc", "=../etc"), "busybox", "true")
    assert outside.code == 125
    assert "subpath must be a relative path within the volume" in outside.err


@pytest.mark.berth_only
def test_an_image_of_several_layers_is_seen_and_kept_while_it_is_mounted(
    engine: EngineProcess,
) -> None:
    engine.docker("run", "--name", "maker", "busybox", "sh", "-c", "echo more > /etc/more")
    assert engine.docker("commit", "maker", "layered:1").code == 0
    mount = "type=image,source=layered:1,target=/image"
    done = engine.docker("create", "--name", "viewer", "--mount", mount, "busybox", "sleep", "600")
    assert done.code == 0, str(done)
    shown = engine.inspect("viewer")["Mounts"]
    assert [(m["Type"], m["Name"], m["RW"]) for m in shown] == [("image", "layered:1", False)]
    refused = engine.docker("rmi", "layered:1")
    assert refused.code == 1
    assert "conflict" in refused.err
    assert engine.docker("cp", "viewer:/image/etc/more", "-").code == 0
    assert engine.docker("start", "viewer").code == 0
    assert engine.docker("exec", "viewer", "cat", "/image/etc/more").out == "more\n"
    engine.remove_containers()
    assert engine.docker("rmi", "layered:1").code == 0


@pytest.mark.berth_only
def test_the_image_of_this_machine_is_seen(cli: Cli) -> None:
    mount = ("--mount", "type=image,source=host,target=/x")
    done = cli(*RUN, *mount, "busybox", "sh", "-c", "ls -d /x/etc/passwd; touch /x/new")
    assert (done.code, done.out) == (1, "/x/etc/passwd\n")
    assert "Read-only file system" in done.err


# Volumes


@pytest.mark.berth_only  # the reference is an older Docker
def test_a_part_of_a_volume_is_seen(cli: Cli, volumes: EngineProcess) -> None:
    script = "mkdir -p /v/a/b; echo deep > /v/a/b/c; ln -s a /v/in; ln -s ../../.. /v/out"
    assert cli(*RUN, "-v", "tree:/v", "busybox", "sh", "-c", script).code == 0

    def see(subpath: str, source: str = "tree") -> Outcome:
        mount = f"type=volume,source={source},target=/s,volume-subpath={subpath}"
        return cli(
            *RUN, "--mount", mount, "busybox", "sh", "-c", "cat /s/b/c 2>/dev/null || cat /s"
        )

    assert see("a").out == "deep\n"
    assert see("a/b/c").out == "deep\n"
    assert see("in").out == "deep\n"
    assert "path concatenation escapes the base directory" in see("out").err
    assert "no such file or directory" in see("missing").err
    assert "subpath must be a relative path within the volume" in see("../x").err
    anonymous = "type=volume,target=/s,volume-subpath=a"
    done = cli(*RUN, "--mount", anonymous, "busybox", "true")
    assert "must not set Subpath when using anonymous volumes" in done.err


def test_a_volume_is_filled_from_the_image_unless_that_is_not_wanted(
    cli: Cli, volumes: EngineProcess
) -> None:
    filled = cli(*RUN, "-v", "homes:/home", "busybox", "stat", "-c", "%u %a", "/home/alice")
    assert filled.out == "1000 755\n"
    assert cli(*RUN, "-v", "homes:/h", "busybox", "ls", "/h").out == "alice\n"
    assert cli(*RUN, "-v", "bare:/home:nocopy", "busybox", "ls", "/home").out == ""
    mount = "type=volume,source=bare,target=/home,volume-nocopy"
    assert cli(*RUN, "--mount", mount, "busybox", "ls", "/home").out == ""


@pytest.mark.berth_only
def test_a_creation_that_fails_leaves_a_volume_that_another_container_got_meanwhile(
    volumes: EngineProcess,
) -> None:
    many: list[tuple[str, bytes | None, dict[str, object]]] = [("data/kept", b"kept\n", {})]
    many += [(f"many/{number}", b"", {}) for number in range(10_000)]
    assert volumes.docker("import", "-", "many:1", stdin=layer(many)).code == 0
    options = "volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=nr_inodes=9000"
    mount = f"type=volume,source=full,target=/many,volume-driver=local,{options}"
    command = ("create", "-v", "shared:/data", "--mount", mount, "many:1", "/data/kept")
    fails = subprocess.Popen(
        [find("docker"), "-H", volumes.host, *command], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: volumes.request("GET", "/volumes/shared")[0] == 200, "there is the volume")
    other = {
        "Image": "busybox",
        "Cmd": ["cat", "/data/kept"],
        "HostConfig": {"Binds": ["shared:/data"]},
    }
    assert volumes.request("POST", "/containers/create?name=other", other)[0] == 201
    assert "No space left on device" in fails.communicate()[1]
    assert volumes.docker("volume", "ls", "-q").lines == ["shared"]
    assert volumes.docker("start", "-a", "other").out == "kept\n"
    volumes.docker("rmi", "many:1")


def test_a_volume_of_memory_is_shared_while_it_is_used(cli: Cli, volumes: EngineProcess) -> None:
    make(volumes, "memory", type="tmpfs", device="tmpfs", o="size=1m,uid=1000,mode=750")
    flags = ("-d", "--name", "writer", "--network", "none", "-v", "memory:/m")
    done = cli("run", *flags, "busybox", "sh", "-c", "echo shared > /m/x; exec sleep 600")
    assert done.code == 0, str(done)
    script = "until [ -s /m/x ]; do :; done; cat /m/x; stat -c '%u %a' /m; grep ' /m ' /proc/mounts"
    seen = cli(*RUN, "-v", "memory:/m", "busybox", "sh", "-c", script)
    assert seen.lines[:2] == ["shared", "1000 750"]
    assert "size=1024k" in seen.lines[2]
    assert cli("cp", "writer:/m/x", "-").code == 0
    volumes.remove_containers()
    assert cli(*RUN, "-v", "memory:/m", "busybox", "ls", "/m").out == ""
    assert not mounted(volumes)


def test_a_volume_may_be_a_directory_of_the_hosts(
    cli: Cli, volumes: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("host's\n")
    make(volumes, "bound", type="none", device=str(tmp_path), o="bind")
    assert cli(*RUN, "-v", "bound:/b", "busybox", "cat", "/b/file").out == "host's\n"
    make(volumes, "sealed", type="none", device=str(tmp_path), o="bind,ro")
    assert "Read-only" in cli(*RUN, "-v", "sealed:/b", "busybox", "touch", "/b/x").err
    assert cli("volume", "rm", "bound", "sealed").code == 0
    assert (tmp_path / "file").read_text() == "host's\n"


def test_files_are_copied_to_a_volume_of_the_hosts_before_the_start(
    cli: Cli, volumes: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("copied\n")
    make(volumes, "bound", type="none", device=str(tmp_path / "volume"), o="bind")
    assert cli("create", "--name", "still", "-v", "bound:/b", "busybox").code == 0
    assert cli("cp", str(tmp_path / "file"), "still:/b/file").code == 0
    assert (tmp_path / "volume" / "file").read_text() == "copied\n"
    assert not mounted(volumes)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"type": "none", "device": "/no/such", "o": "bind"}, "flags: 0x1000: no such file"),
        (
            {"type": "ext4", "device": "/dev/nothing"},
            "failed to mount local volume: mount /dev/nothing:",
        ),
        (
            {"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"},
            "error resolving passed in network volume address: lookup no.such.host.invalid",
        ),
    ],
)
def test_what_cannot_be_mounted_is_said_at_the_start(
    volumes: EngineProcess, options: dict[str, str], text: str
) -> None:
    make(volumes, "broken", **options)
    done = volumes.docker(*RUN, "-v", "broken:/home", "busybox", "true")
    assert done.code in (125, 127)
    assert text in done.err


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-o", "type=tmpfs"), 'create own: missing required option: "device"'),
        (("-o", "device=/x"), 'create own: missing required option: "type"'),
        (("-o", "colour=red"), 'create own: invalid option: "colour"'),
        (("-o", "size=10m"), "create own: quota size requested but no quota support"),
        (("-o", "size=much"), "create own: invalid size: 'much'"),
        (("-o", "size="), "create own: invalid size: ''"),
        (("-o", "size=0", "-o", "type=tmpfs"), 'create own: missing required option: "device"'),
        (
            ("-d", "other"),
            'create own: error looking up volume plugin other: plugin "other" not found',
        ),
    ],
)
def test_a_volume_that_cannot_be_is_refused(cli: Cli, flags: tuple[str, ...], text: str) -> None:
    done = cli("volume", "create", *flags, "own")
    assert done.code == 1
    assert text in done.err


@pytest.mark.berth_only
def test_what_is_mounted_outlives_a_killed_engine_and_goes_with_its_last_user(
    fresh_engine: EngineProcess,
) -> None:
    make(fresh_engine, "memory", type="tmpfs", device="tmpfs")
    flags = ("-d", "--network", "none", "-v", "memory:/m", "--name")
    for name in ("one", "two"):
        script = f"echo {name} > /m/{name}; exec sleep 600"
        assert fresh_engine.docker("run", *flags, name, "busybox", "sh", "-c", script).code == 0
    fresh_engine.restart()
    assert len(mounted(fresh_engine)) == 1
    seen = fresh_engine.docker(*RUN, "-v", "memory:/m", "busybox", "ls", "/m")
    assert seen.lines == ["one", "two"]
    fresh_engine.docker("rm", "-f", "one")
    assert len(mounted(fresh_engine)) == 1
    fresh_engine.docker("rm", "-f", "two")
    assert not mounted(fresh_engine)


@pytest.mark.berth_only
def test_a_volume_whose_directory_is_the_hosts_is_removed_without_that(
    fresh_engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("kept")
    make(fresh_engine, "bound", type="none", device=str(tmp_path), o="bind")
    flags = ("-d", "--network", "none", "-v", "bound:/b", "--name", "user")
    assert fresh_engine.docker("run", *flags, "busybox", "sleep", "600").code == 0
    pid = fresh_engine.inspect("user")["State"]["Pid"]
    fresh_engine.kill()
    os.kill(pid, 9)
    fresh_engine.start()  # the mount was nobody's by then
    assert not mounted(fresh_engine)
    assert fresh_engine.docker("rm", "user").code == 0
    assert fresh_engine.docker("volume", "rm", "bound").code == 0
    assert (tmp_path / "precious").read_text() == "kept"


def test_labels_and_options_of_a_mount_become_the_volumes(
    docker_cli: Cli, volumes: EngineProcess
) -> None:
    mount = "type=volume,source=own,target=/v,volume-label=a=b,volume-driver=local"
    mount += ",volume-opt=type=tmpfs,volume-opt=device=tmpfs"
    done = docker_cli(*RUN, "--mount", mount, "busybox", "grep", " /v ", "/proc/mounts")
    assert done.out.startswith("tmpfs /v tmpfs rw")
    shown = json.loads(docker_cli("volume", "inspect", "own").out)[0]
    assert (shown["Labels"], shown["Options"]) == (
        {"a": "b"},
        {"type": "tmpfs", "device": "tmpfs"},
    )


@pytest.mark.berth_only  # the reference is an older Docker
def test_prune_spares_volumes_with_options_and_heeds_labels(
    cli: Cli, volumes: EngineProcess
) -> None:
    make(volumes, "optioned", type="tmpfs", device="tmpfs")
    for name, label in (("first", "keep=1"), ("second", "keep=0")):
        volumes.docker("volume", "create", "--label", label, name)
    assert "first" in cli("volume", "prune", "-af", "--filter", "label=keep=1").lines
    assert cli("volume", "ls", "-q").lines == ["optioned", "second"]
    assert "second" in cli("volume", "prune", "-af", "--filter", "label!=other").lines
    assert cli("volume", "ls", "-q").lines == ["optioned"]
    refused = cli("volume", "prune", "-f", "--filter", "until=1h")
    assert refused.code == 1
    assert "invalid filter 'until'" in refused.err


# Volumes of others


def test_volumes_come_from_another_container(
    cli: Cli, volumes: EngineProcess, tmp_path: Path
) -> None:
    lender = ("create", "--name", "lender", "-v", f"{tmp_path}:/b:ro", "-v", "lent:/v", "busybox")
    assert cli(*lender).code == 0

    def borrow(mode: str, *command: str) -> Outcome:
        return cli(*RUN, "--volumes-from", f"lender{mode}", "busybox", *command)

    assert borrow("", "touch", "/v/x").code == 0
    assert "Read-only" in borrow("", "touch", "/b/x").err
    assert "Read-only" in borrow(":ro", "touch", "/v/y").err
    assert borrow(":z", "ls", "/v").out == "x\n"
    for mode in ("nocopy", "rshared", "bogus"):
        assert f"invalid mode: {mode}" in borrow(f":{mode}", "true").err
    missing = cli(*RUN, "--volumes-from", "nobody", "busybox", "true")
    assert missing.code == 125
    assert "No such container: nobody" in missing.err
    own = cli(*RUN, "--volumes-from", "lender", "-v", f"{tmp_path}:/v", "busybox", "ls", "/v")
    assert (own.code, own.out) == (0, "")


def test_a_borrowed_volume_takes_the_place_of_the_images_own(
    cli: Cli, volumes: EngineProcess
) -> None:
    assert cli("create", "--name", "lender", "-v", "lent:/data", "busybox").code == 0
    done = cli("create", "--name", "taker", "--volumes-from", "lender", "-v", "/data", "busybox")
    assert done.code == 0
    assert [m["Name"] for m in volumes.inspect("taker")["Mounts"]] == ["lent"]


# Binds


@pytest.mark.parametrize(("source", "target"), [("file", "/etc"), ("dir", "/etc/passwd")])
def test_a_file_onto_a_directory_is_refused_in_dockers_words(
    cli: Cli, engine: EngineProcess, tmp_path: Path, source: str, target: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dir").mkdir()
    done = cli(
        "run",
        "--name",
        "odd",
        "--network",
        "none",
        "-v",
        f"{tmp_path}/{source}:{target}",
        "busybox",
    )
    assert done.code == 125
    assert f'error mounting "{tmp_path}/{source}" to rootfs at "{target}"' in done.err
    assert MISMATCH in done.err
    assert engine.inspect("odd")["State"]["ExitCode"] == 127
    status, _ = engine.request("POST", "/containers/odd/start")
    assert status == 400


@pytest.mark.berth_only  # the reference is an older Docker
def test_a_source_below_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli(*RUN, "-v", f"{tmp_path}/file/x:/x", "busybox", "true")
    assert done.code == 125
    assert f"stat {tmp_path}/file/x: not a directory: {MISMATCH}" in done.err


@pytest.mark.berth_only  # the reference is an older Docker
def test_a_missing_source_is_made_where_that_is_asked_for(
    engine: EngineProcess, tmp_path: Path
) -> None:
    def create(**options: object) -> tuple[int, object]:
        mount = {"Type": "bind", "Source": f"{tmp_path}/made", "Target": "/x", **options}
        body = {"Image": "busybox", "HostConfig": {"Mounts": [mount], "NetworkMode": "none"}}
        return engine.request("POST", "/containers/create", body)

    status, said = create()
    assert status == 400
    assert "bind source path does not exist" in said["message"]
    status, made = create(BindOptions={"CreateMountpoint": True})
    assert status == 201
    assert engine.request("POST", f"/containers/{made['Id']}/start")[0] == 204
    assert (tmp_path / "made").is_dir()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a shared mount, with another mount below it."""
    place = tmp_path / "shared"
    place.mkdir()
    run(find("mount"), "-t", "tmpfs", "shared", str(place), check=True)
    try:
        run(find("mount"), "--make-shared", str(place), check=True)
        (place / "below").mkdir()
        run(find("mount"), "-t", "tmpfs", "below", str(place / "below"), check=True)
        yield place
    finally:
        run(find("umount"), "-R", str(place))


@pytest.mark.parametrize("mode", ["rshared", "rslave", "shared", "slave"])
def test_a_mount_of_the_hosts_appears_in_a_container_that_shares_it(
    cli: Cli, engine: EngineProcess, shared: Path, mode: str
) -> None:
    flags = ("-d", "--name", "sharer", "--network", "none", "-v", f"{shared}:/s:{mode}")
    assert cli("run", *flags, "busybox", "sleep", "600").code == 0
    (shared / "later").mkdir()
    run(find("mount"), "-t", "tmpfs", "later", str(shared / "later"), check=True)
    (shared / "later" / "file").write_text("")
    assert cli("exec", "sharer", "ls", "/s/later").out == "file\n"


def test_a_mount_made_in_a_container_appears_on_the_host_only_when_shared(
    cli: Cli, shared: Path
) -> None:
    def mount_inside(mode: str) -> None:
        script = (
            "mkdir -p /s/inner; mount -t tmpfs inner /s/inner; touch /s/inner/x; umount /s/below"
        )
        flags = (*RUN, "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
        done = cli(*flags, "-v", f"{shared}:/s:{mode}", "busybox", "sh", "-c", script)
        assert done.code == 0, str(done)

    mount_inside("rslave")
    assert not list((shared / "inner").iterdir())
    assert os.path.ismount(shared / "below")
    mount_inside("rshared")
    assert [path.name for path in (shared / "inner").iterdir()] == ["x"]
    assert not os.path.ismount(shared / "below")


@pytest.mark.parametrize(("mode", "words"), [("rshared", "shared"), ("rslave", "shared or slave")])
def test_what_is_not_shared_cannot_be_shared(
    cli: Cli, tmp_path: Path, mode: str, words: str
) -> None:
    run(find("mount"), "-t", "tmpfs", "private", str(tmp_path), check=True)
    try:
        run(find("mount"), "--make-private", str(tmp_path), check=True)
        done = cli(*RUN, "-v", f"{tmp_path}:/s:{mode}", "busybox", "true")
        assert done.code == 125
        assert f"path {tmp_path} is mounted on {tmp_path} but it is not a {words} mount" in done.err
    finally:
        run(find("umount"), str(tmp_path), check=True)


@pytest.mark.berth_only  # the reference's runtime is older than these
@pytest.mark.parametrize(
    ("options", "above", "below"),
    [
        ("readonly", False, False),
        ("readonly,bind-recursive=enabled", False, False),
        ("readonly,bind-recursive=writable", False, True),
        ("readonly,bind-recursive=readonly,bind-propagation=rprivate", False, False),
        ("bind-recursive=enabled", True, True),
    ],
)
def test_read_only_goes_as_deep_as_it_is_asked_to(
    docker_cli: Cli, shared: Path, options: str, above: bool, below: bool
) -> None:
    mount = f"type=bind,source={shared},target=/s,{options}"
    script = (
        "touch /s/x 2>/dev/null && echo above; touch /s/below/x 2>/dev/null && echo below; true"
    )
    done = docker_cli(*RUN, "--mount", mount, "busybox", "sh", "-c", script)
    assert done.lines == [*(["above"] if above else []), *(["below"] if below else [])], str(done)


def test_mounts_below_a_bind_stay_out_on_request(docker_cli: Cli, shared: Path) -> None:
    (shared / "below" / "deep").write_text("")
    mount = f"type=bind,source={shared},target=/s"
    assert docker_cli(*RUN, "--mount", mount, "busybox", "ls", "/s/below").out == "deep\n"
    bare = docker_cli(
        *RUN, "--mount", f"{mount},bind-recursive=disabled", "busybox", "ls", "/s/below"
    )
    assert (bare.code, bare.out) == (0, "")


# Memory


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tmpfs", "/t:rw,exec,size=2m"), "rw,nosuid,nodev,relatime,size=2048k"),
        (("--tmpfs", "/t:ro"), "ro,nosuid,nodev,noexec,relatime"),
        (("--mount", "type=tmpfs,dst=/t,readonly"), "ro,nosuid,nodev,noexec,relatime"),
        (
            ("--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0700"),
            "rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700",
        ),
    ],
)
def test_a_tmpfs_has_the_options_that_it_is_given(
    cli: Cli, flags: tuple[str, ...], words: str
) -> None:
    done = cli(*RUN, *flags, "busybox", "grep", " /t ", "/proc/mounts")
    assert done.out.startswith(f"tmpfs /t tmpfs {words}"), str(done)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--tmpfs", "/t:bogus"), 'invalid tmpfs option "bogus"'),
        (("--tmpfs", "rel"), "invalid mount path: 'rel' mount path must be absolute"),
        (("--tmpfs", "/"), "invalid specification: destination can't be '/'"),
        (("--mount", "type=tmpfs,src=x,dst=/t"), "field Source must not be specified"),
        (("--mount", "type=npipe,src=x,dst=/t"), "mount type unknown"),
        (("--mount", "type=image,dst=/t"), "field Source must not be empty"),
        (("-v", "v1:/v:ro,rw"), "invalid mode: ro,rw"),
        (("-v", "v1:/v", "--tmpfs", "/v"), "Duplicate mount point: /v"),
    ],
)
@pytest.mark.berth_only  # the reference is an older Docker
def test_a_mount_that_cannot_be_is_refused(cli: Cli, flags: tuple[str, ...], text: str) -> None:
    done = cli(*RUN, *flags, "busybox", "true")
    assert done.code == 125
    assert text in done.err


def test_every_mount_is_shown(docker_cli: Cli, volumes: EngineProcess, tmp_path: Path) -> None:
    flags = ("--mount", "type=tmpfs,dst=/t", "--tmpfs", "/u", "-v", f"{tmp_path}:/b:ro")
    flags += ("-v", "named:/v", "--mount", "type=volume,dst=/anonymous", "-v", "/image")
    assert docker_cli("create", "--name", "shown", *flags, "busybox").code == 0
    found = {
        (m["Type"], m["Destination"], m["Mode"], m["RW"], m["Propagation"])
        for m in volumes.inspect("shown")["Mounts"]
    }
    assert found == {
        ("tmpfs", "/t", "", True, ""),
        ("bind", "/b", "ro", False, "rprivate"),
        ("volume", "/v", "z", True, ""),
        ("volume", "/anonymous", "z", True, ""),
        ("volume", "/image", "", True, ""),
    }
