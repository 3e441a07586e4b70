"""Files of containers: copied out and in, exported, compared, committed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")
SCRIPT = """
mkdir -p /tree/inner
echo plain > /tree/file; chown 1000:50 /tree/file; chmod 4750 /tree/file
ln -s file /tree/link; ln /tree/file /tree/hard
mknod /tree/device c 1 3; mknod /tree/fifo p
echo deep > /tree/inner/deep
ln -s /tree /absolute; ln -s ../../../../../tree/file /upwards
"""


@pytest.fixture(params=["running", "stopped"])
def subject(engine: EngineProcess, request: pytest.FixtureRequest) -> str:
    """A container with a few files of every kind, that runs or ran."""
    words = ("run", "-d", "--name", "subject", "--network", "none", "busybox")
    assert engine.docker(*words, "sleep", "1000").code == 0
    assert engine.docker("exec", "subject", "sh", "-c", SCRIPT).code == 0
    if request.param == "stopped":
        engine.docker("kill", "subject")
        engine.docker("wait", "subject")
    return "subject"


def members(raw: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return {member.name: member for member in archive.getmembers()}


def archive_of(*names: str, data: bytes = b"data", uid: int = 7) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.uid = entry.gid = uid
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return body.getvalue()


# Out


def test_a_directory_comes_out_as_an_archive_of_all_it_has(cli: Cli, subject: str) -> None:
    done = cli("cp", f"{subject}:/tree", "-")
    assert done.code == 0, str(done)
    found = members(done.raw)
    assert sorted(found) == [
        *("tree", "tree/device", "tree/fifo", "tree/file", "tree/hard", "tree/inner"),
        *("tree/inner/deep", "tree/link"),
    ]
    file = found["tree/file"]
    assert (file.uid, file.gid, file.mode, file.size) == (1000, 50, 0o4750, 6)
    assert found["tree/hard"].islnk()
    assert found["tree/hard"].linkname == "tree/file"
    assert found["tree/link"].linkname == "file"
    assert (found["tree/device"].devmajor, found["tree/device"].devminor) == (1, 3)
    assert found["tree/fifo"].isfifo()


def test_names_of_copies_follow_dockers_rules(cli: Cli, subject: str, tmp_path: Path) -> None:
    def copied(source: str, target: str) -> Outcome:
        return cli("cp", f"{subject}:{source}", f"{tmp_path}/{target}")

    (tmp_path / "there").mkdir()
    assert copied("/tree/inner", "new").code == 0
    assert (tmp_path / "new/deep").read_text() == "deep\n"
    assert copied("/tree/inner", "there").code == 0
    assert (tmp_path / "there/inner/deep").read_text() == "deep\n"
    assert copied("/tree/inner/.", "there").code == 0
    assert (tmp_path / "there/deep").read_text() == "deep\n"
    assert copied("/tree/file", "renamed").code == 0
    assert (tmp_path / "renamed").read_text() == "plain\n"
    assert copied("/tree/file", "there/").code == 0
    assert (tmp_path / "there/file").read_text() == "plain\n"
    assert os.stat(tmp_path / "renamed").st_uid == os.geteuid()
    assert copied("/tree/inner", "renamed").code == 1
    assert copied("/tree/file", "missing/").code == 1


def test_links_are_copied_or_followed(cli: Cli, subject: str, tmp_path: Path) -> None:
    assert cli("cp", f"{subject}:/absolute", str(tmp_path / "kept")).code == 0
    assert os.readlink(tmp_path / "kept") == "/tree"
    assert cli("cp", "-L", f"{subject}:/absolute", str(tmp_path / "followed")).code == 0
    assert (tmp_path / "followed/inner/deep").read_text() == "deep\n"
    assert cli("cp", f"{subject}:/absolute/file", str(tmp_path / "through")).code == 0
    assert (tmp_path / "through").read_text() == "plain\n"
    assert cli("cp", "-L", f"{subject}:/upwards", str(tmp_path / "upwards")).code == 0
    assert (tmp_path / "upwards").read_text() == "plain\n"


def test_what_is_not_there_is_told(cli: Cli, subject: str, tmp_path: Path) -> None:
    done = cli("cp", f"{subject}:/nothing", str(tmp_path))
    assert done.code == 1
    assert f"Could not find the file /nothing in container {subject}" in done.err
    done = cli("cp", f"{subject}:/tree", str(tmp_path / "no/where"))
    assert done.code == 1
    assert f'invalid output path: directory "{tmp_path}/no" does not exist' in done.err
    assert "No such container: nobody" in cli("cp", "nobody:/x", str(tmp_path)).err
    assert "copying between containers is not supported" in cli("cp", "a:/x", "b:/y").err
    assert "must specify at least one container source" in cli("cp", "x", "y").err


def test_a_path_is_described_in_a_header(engine: EngineProcess, subject: str) -> None:
    import base64

    status, headers, body = engine.exchange("HEAD", f"/containers/{subject}/archive?path=/absolute")
    found = json.loads(base64.b64decode(headers["X-Docker-Container-Path-Stat"]))
    assert (status, body) == (200, b"")
    assert (found["name"], found["linkTarget"]) == ("absolute", "/tree")
    assert found["mode"] & 1 << 27
    assert engine.exchange("HEAD", f"/containers/{subject}/archive?path=/nothing")[0] == 404
    status, document = engine.request("GET", f"/containers/{subject}/archive")
    assert status == 400
    assert document["message"] == "bad parameter: pathcannot be empty"


# In


def test_files_and_directories_go_in(
    cli: Cli, subject: str, engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/inner/file").write_text("one\n")
    (tmp_path / "single").write_text("two\n")
    long_name = "n" * 200
    (tmp_path / "folder" / long_name).write_text("long\n")
    for source, target in (
        ("folder", "/tree"),
        ("folder", "/fresh"),
        ("folder/.", "/tree/inner"),
        ("single", "/tree/renamed"),
        ("single", "/absolute"),
        ("single", "/tree/file"),
    ):
        done = cli("cp", f"{tmp_path}/{source}", f"{subject}:{target}")
        assert done.code == 0, str(done)
    found = members(engine.docker("cp", f"{subject}:/tree", "-").raw)
    for name in (
        "folder/inner/file",
        f"folder/{long_name}",
        "inner/inner/file",
        "renamed",
        "single",
    ):
        assert f"tree/{name}" in found
    assert found["tree/file"].size == 4
    assert "fresh/inner/file" in members(engine.docker("cp", f"{subject}:/fresh", "-").raw)


def test_an_archive_on_stdin_is_extracted(cli: Cli, subject: str, engine: EngineProcess) -> None:
    done = cli("cp", "-", f"{subject}:/tree", stdin=archive_of("new/", "new/a", ".wh.file"))
    assert done.code == 0, str(done)
    found = members(engine.docker("cp", f"{subject}:/tree", "-").raw)
    assert (found["tree/new"].uid, found["tree/new"].mode) == (7, 0o750)
    assert {"tree/file", "tree/.wh.file", "tree/new/a"} <= set(found)
    done = cli("cp", "-", f"{subject}:/tree/file", stdin=archive_of("x"))
    assert f'destination "{subject}:/tree/file" must be a directory' in done.err


def test_files_are_whose_the_archive_says_in_a_directory_that_passes_on_its_group(
    cli: Cli, subject: str, engine: EngineProcess
) -> None:
    script = "chgrp 50 /tree/inner; chmod 2775 /tree/inner"
    engine.docker("start", subject)
    assert engine.docker("exec", subject, "sh", "-c", script).code == 0
    assert cli("cp", "-", f"{subject}:/tree/inner", stdin=archive_of("of-root", uid=0)).code == 0
    assert (
        members(engine.docker("cp", f"{subject}:/tree/inner/of-root", "-").raw)["of-root"].gid == 0
    )


def test_no_name_in_an_archive_leads_out_of_the_container(
    engine: EngineProcess, subject: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        link = tarfile.TarInfo("escape")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("escape/outside"))
    status, _ = engine.request(
        "PUT", f"/containers/{subject}/archive?path=/tree", raw=body.getvalue()
    )
    assert not outside.exists()
    assert status in (200, 500)
    status, document = engine.request(
        "PUT", f"/containers/{subject}/archive?path=/tree", raw=archive_of("../../x")
    )
    assert status == 500
    assert "is outside of the root" in document["message"]


def test_a_directory_is_no_file(cli: Cli, subject: str, tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("a file where a directory is\n")
    done = cli("cp", str(tmp_path / "inner"), f"{subject}:/tree")
    assert done.code == 1
    assert 'cannot overwrite directory "/tree/inner" with non-directory "/tree"' in done.err
    (tmp_path / "folder").mkdir()
    done = cli("cp", str(tmp_path / "folder"), f"{subject}:/tree/file")
    assert "cannot copy directory" in done.err


def test_archive_mode_gives_files_to_the_containers_user(
    cli: Cli, engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine\n")
    words = ("--name", "alices", "-u", "alice", "--network", "none", "busybox", "true")
    assert engine.docker("create", *words).code == 0
    assert cli("cp", "-a", str(tmp_path / "file"), "alices:/home").code == 0
    assert members(cli("cp", "alices:/home/file", "-").raw)["file"].uid == 1000


def test_read_only_places_stay_as_they_are(cli: Cli, engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x\n")
    words = ("--read-only", "-v", "kept-out:/ro:ro", "-v", "let-in:/rw", "--network", "none")
    engine.docker("create", "--name", "sealed", *words, "busybox", "true")
    file = str(tmp_path / "file")
    assert "container rootfs is marked read-only" in cli("cp", file, "sealed:/tmp").err
    assert "mounted volume is marked read-only" in cli("cp", file, "sealed:/ro").err
    assert cli("cp", file, "sealed:/rw").code == 0
    shown = engine.docker(*RUN, "-v", "let-in:/v", "busybox", "cat", "/v/file")
    assert shown.out == "x\n"
    engine.docker("rm", "sealed")
    engine.docker("volume", "rm", "kept-out", "let-in")


def test_what_was_copied_is_there_after_the_start(
    cli: Cli, engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho copied\n")
    (tmp_path / "tool").chmod(0o755)
    cli("create", "--name", "fed", "--network", "none", "busybox", "/bin/tool")
    assert cli("cp", str(tmp_path / "tool"), "fed:/bin/").code == 0
    assert cli("start", "-a", "fed").out == "copied\n"


def test_mounts_of_a_running_container_are_seen(cli: Cli, engine: EngineProcess) -> None:
    words = ("--tmpfs", "/scratch", "--name", "mounted", "--network", "none", "busybox")
    engine.docker("run", "-d", *words, "sh", "-c", "echo in memory > /scratch/f; sleep 1000")
    wait_for(lambda: cli("cp", "mounted:/scratch/f", "-").code == 0, "the file is there")
    found = members(cli("cp", "mounted:/", "-").raw)
    assert "/scratch/f" in found or "scratch/f" in found
    assert not any(name.lstrip("/").startswith("proc/") for name in found)


def test_a_client_that_hangs_up_leaves_no_worker(engine: EngineProcess, subject: str) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(engine.socket))
    path = f"/containers/{subject}/export"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.recv(100)
    connection.close()
    wait_for(lambda: not _workers(engine), "the worker is gone")
    assert engine.docker("rm", "-f", subject).code == 0


def _workers(engine: EngineProcess) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            name = (entry / "comm").read_text().strip()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if name == "berth-worker" and str(engine.data_root).encode() in line:
            found.append(entry.name)
    return found


# As a whole


def test_export_has_the_root_without_its_mounts(
    cli: Cli, subject: str, engine: EngineProcess
) -> None:
    done = cli("export", subject)
    assert done.code == 0, str(done)
    found = members(done.raw)
    assert {"bin/busybox", "tree/file", "tree/hard", "etc/passwd"} <= set(found)
    assert not any(name.startswith(("/", "./", "proc/", "sys/")) for name in found)
    assert engine.docker("import", "-", "exported:1", stdin=done.raw).code == 0
    assert engine.docker(*RUN, "exported:1", "/bin/cat", "/tree/hard").out == "plain\n"
    engine.docker("rmi", "exported:1")


def test_diff_tells_what_was_changed(cli: Cli, engine: EngineProcess) -> None:
    script = """
        rm /etc/group; echo more >> /etc/passwd; touch /root/new; mkdir -p /opt/a
        rm -r /work; mkdir /work; chmod 700 /var; cat /bin/busybox > /dev/null; touch /tmp/t; rm /tmp/t
    """
    engine.docker("run", "--name", "changed", "--network", "none", "busybox", "sh", "-c", script)
    lines = cli("diff", "changed").lines
    assert lines == [
        *(
            "C /etc",
            "D /etc/group",
            "C /etc/passwd",
            "A /opt",
            "A /opt/a",
            "C /root",
            "A /root/new",
        ),
        *("C /var",),
    ]
    engine.docker("create", "--name", "untouched", "--network", "none", "busybox", "true")
    assert cli("diff", "untouched").out == ""
    assert engine.request("GET", "/containers/untouched/changes") == (200, None)


def test_a_name_of_any_bytes_hides_nothing(cli: Cli, engine: EngineProcess) -> None:
    script = """
        touch "$(printf '/work/bad\\377')" /work/good; ln -s "$(printf 'bad\\377')" /work/link
    """
    engine.docker("run", "--name", "changed", "--network", "none", "busybox", "sh", "-c", script)
    lines = cli("diff", "changed").lines
    assert lines == ["C /work", "A /work/bad\ufffd", "A /work/good", "A /work/link"]
    done = engine.docker("cp", "changed:/work/link", "-")
    assert (done.code, [*members(done.raw)]) == (0, ["link"]), str(done)


def test_a_container_becomes_an_image(cli: Cli, subject: str, engine: EngineProcess) -> None:
    engine.docker("start", subject)
    engine.docker("exec", subject, "rm", "-r", "/home")
    words = ("-m", "by hand", "-a", "A. Uthor", "-c", "ENV EXTRA=1", "-c", 'CMD ["sh"]')
    done = cli("commit", *words, subject, "committed:1")
    assert done.code == 0, str(done)
    id_ = done.out.strip()
    script = "cat /tree/hard; stat -c '%a %u %g %h' /tree/file; ls -d /home; echo $EXTRA $PATH"
    shown = cli(*RUN, "committed:1", "sh", "-c", script)
    assert shown.lines == ["plain", "4750 1000 50 2", "1 /bin"], str(shown)
    document = json.loads(cli("inspect", "--type", "image", "committed:1").out)[0]
    assert (document["Id"], document["Author"], document["Comment"]) == (id_, "A. Uthor", "by hand")
    assert document["Config"]["Cmd"] == ["sh"]
    assert len(document["RootFS"]["Layers"]) == 2
    parent = json.loads(cli("inspect", "--type", "image", "busybox").out)[0]
    assert document["Parent"] == parent["Id"]
    steps = cli("history", "--format", "{{.CreatedBy}}|{{.Comment}}", "committed:1").lines
    assert steps[0] == "sleep 1000|by hand"
    assert len(steps) == 2
    saved = cli("save", "committed:1")
    with tarfile.open(fileobj=io.BytesIO(saved.raw)) as archive:
        for member in archive.getmembers():
            if member.name.startswith("blobs/sha256/") and member.isfile():
                data = archive.extractfile(member).read()
                assert hashlib.sha256(data).hexdigest() == Path(member.name).name
    assert engine.inspect(subject)["State"]["Paused"] is False
    engine.docker("rm", "-f", subject)
    assert cli("rmi", "committed:1").code == 0
    assert cli("load", stdin=saved.raw).code == 0
    assert cli(*RUN, "committed:1", "cat", "/tree/file").out == "plain\n"
    cli("rmi", "committed:1")


def test_a_commit_of_nothing_has_no_layer(cli: Cli, engine: EngineProcess) -> None:
    engine.docker("create", "--name", "still", "--network", "none", "busybox", "true")
    assert cli("commit", "still", "same:1").code == 0
    document = json.loads(cli("inspect", "--type", "image", "same:1").out)[0]
    assert len(document["RootFS"]["Layers"]) == 1
    assert cli(*RUN, "same:1", "echo", "runs").out == "runs\n"
    cli("rm", "still")
    cli("rmi", "same:1")


def test_a_commit_is_refused_with_a_wrong_change(cli: Cli, subject: str) -> None:
    done = cli("commit", "-c", "FROM x", subject)
    assert (done.code, "FROM is not a valid change command" in done.err) == (1, True)


@pytest.mark.berth_only
def test_containers_of_the_host_are_copied_compared_and_committed(
    cli: Cli, engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("carried\n")
    cli("create", "--name", "ours", "--network", "none", "host", "cat", "/opt/carried")
    assert cli("cp", str(tmp_path / "file"), "ours:/opt/carried").code == 0
    assert cli("diff", "ours").lines == ["C /opt", "A /opt/carried"]
    assert "Could not find the file" in cli("cp", "ours:/etc/shadow", str(tmp_path)).err
    assert cli("cp", "ours:/etc/passwd", str(tmp_path / "passwd")).code == 0
    assert (tmp_path / "passwd").read_bytes() == Path("/etc/passwd").read_bytes()
    assert cli("commit", "ours", "changed-host:1").code == 0
    assert cli(*RUN, "changed-host:1", "cat", "/opt/carried").out == "carried\n"
    assert cli(*RUN, "changed-host:1", "ls", "/etc/shadow").code != 0
    assert len(cli("history", "-q", "changed-host:1").lines) == 2
    refused = cli("save", "-o", str(tmp_path / "x"), "changed-host:1")
    assert "never leaves this machine" in refused.err
    cli("rm", "ours")
    assert cli("rmi", "changed-host:1").code == 0


def test_a_long_file_is_copied_whole(cli: Cli, engine: EngineProcess, tmp_path: Path) -> None:
    script = "dd if=/dev/urandom of=/big bs=1M count=20 2>/dev/null; sha256sum /big"
    done = engine.docker("run", "--name", "big", "--network", "none", "busybox", "sh", "-c", script)
    assert cli("cp", "big:/big", str(tmp_path / "big")).code == 0
    digest = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    assert done.out.split()[0] == digest
    cli("create", "--name", "other", "--network", "none", "busybox", "sha256sum", "/copy")
    assert cli("cp", str(tmp_path / "big"), "other:/copy").code == 0
    assert cli("start", "-a", "other").out.split()[0] == digest


LEASE = """
import fcntl, os, signal
held = []
os.mkdir("/own")
for path in ("/own/leased", "/shared/leased"):
    with open(path, "w") as file:
        file.write("text")
    held.append(os.open(path, os.O_RDONLY))

def give_back(*_):
    for fd in held:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

signal.signal(signal.SIGIO, give_back)
for fd in held:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("place", ["/own", "/shared"])
def test_a_file_that_a_container_has_a_lease_on_is_waited_for(
    engine: EngineProcess, place: str
) -> None:
    run = ("run", "-d", "--name", "holder", "--network", "none", "-v", "/shared")
    assert engine.docker(*run, "host", "python3", "-c", LEASE).code == 0
    wait_for(lambda: engine.docker("logs", "holder").out == "leased\n", "it has them")
    status, _, data = engine.exchange("GET", f"/containers/holder/archive?path={place}")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile(f"{place[1:]}/leased")
        assert file is not None
        assert file.read() == b"text"
