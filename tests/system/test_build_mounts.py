"""`RUN --mount`: what commands of builds see that is no part of the image."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project


def files_of(project: Project, image: str) -> list[str]:
    """Return the paths in the last layer of an image."""
    path = project.folder.parent / "saved.tar"
    done = project.engine.docker("save", "-o", str(path), image)
    assert done.code == 0, str(done)
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        with tarfile.open(fileobj=archive.extractfile(manifest[0]["Layers"][-1])) as layer:
            return sorted(layer.getnames())


def built(project: Project, **query: object) -> str:
    done = project.build(**query)
    assert not done.error, done.error
    return done.text


def test_files_of_the_context_are_seen_and_stay_behind(project: Project) -> None:
    project.file("src/a", "one")
    os.symlink("/src/a", project.folder / "link")
    project.write(
        "FROM busybox\nWORKDIR /w\n"
        "RUN --mount=source=src,target=in --mount=type=bind,src=link,dst=/deep/er/file"
        " cat in/a /deep/er/file > /got; touch in/b || echo refused >> /got\n"
    )
    built(project, t="seen")
    assert project.run("seen", "cat /got; ls -A / /w").startswith("oneonerefused\n")
    found = files_of(project, "seen")
    assert "got" in found
    assert not [name for name in found if name.startswith(("deep", "w/in"))]


def test_what_is_written_to_a_bind_is_discarded(project: Project) -> None:
    project.file("src/a", "one")
    project.write(
        "FROM busybox AS other\nRUN mkdir /d; echo kept > /d/f\n"
        "FROM busybox\n"
        "RUN --mount=target=/c,rw --mount=from=other,source=/d,target=/o,readwrite"
        " echo more >> /c/src/a; rm /o/f; echo new > /o/g; ls /o > /got; cat /c/src/a >> /got\n"
        "RUN --mount=target=/c --mount=from=other,source=/d,target=/o cat /c/src/a /o/* >> /got\n"
    )
    built(project, t="discarded")
    assert project.run("discarded", "cat /got") == "g\nonemore\nonekept\n"


def test_a_mount_of_the_context_follows_its_contents(project: Project) -> None:
    project.file("a", "one")
    project.file("b", "two")
    project.write("FROM busybox\nRUN --mount=source=a,target=/a cat /a > /got\n")
    built(project)
    project.file("b", "other")
    assert "Using cache" in built(project)
    project.file("a", "other")
    assert "Using cache" not in built(project, t="followed")
    assert project.run("followed", "cat /got") == "other"


def test_a_cache_is_kept_from_build_to_build(project: Project) -> None:
    project.write(
        "FROM busybox\nARG N\n"
        "RUN --mount=type=cache,target=/root/.cache/x,uid=7,mode=0750"
        " echo $N >> /root/.cache/x/log; stat -c '%u %a' /root/.cache/x > /got;"
        " cat /root/.cache/x/log >> /got\n"
    )
    for number in ("1", "2"):
        built(project, buildargs={"N": number}, t="cached")
    assert project.run("cached", "cat /got") == "7 750\n1\n2\n"
    assert not [name for name in files_of(project, "cached") if "cache" in name]
    _, usage = project.engine.request("GET", "/system/df")
    (entry,) = usage["BuildCache"]
    assert (entry["Type"], entry["UsageCount"], entry["InUse"]) == ("exec.cachemount", 2, False)
    _, pruned = project.engine.request("POST", "/build/prune")
    assert entry["ID"] in pruned["CachesDeleted"]
    assert pruned["SpaceReclaimed"] >= entry["Size"] > 0
    built(project, buildargs={"N": "3"}, t="cached")
    assert project.run("cached", "cat /got") == "7 750\n3\n"


def test_caches_have_ids_and_may_begin_with_files(project: Project) -> None:
    project.write(
        "FROM busybox AS seed\nRUN mkdir /seed; echo sown > /seed/f\n"
        "FROM busybox\n"
        "RUN --mount=type=cache,id=../../x,target=/c echo a > /c/a\n"
        "RUN --mount=type=cache,id=../../x,target=/d,ro ls /d > /got; touch /d/b || echo ro >> /got\n"
        "RUN --mount=type=cache,from=seed,source=/seed,target=/c cat /c/f >> /got\n"
    )
    built(project, t="sown")
    assert project.run("sown", "cat /got") == "a\nro\nsown\n"


def test_memory_and_networks_of_commands(project: Project) -> None:
    project.write(
        "FROM busybox\n"
        "RUN --mount=type=tmpfs,target=/m,size=1m --network=none"
        " df -k /m | tail -n 1 | awk '{print $2}' > /got; echo x > /m/x;"
        " dd if=/dev/zero of=/m/y bs=2M count=1 2>/dev/null || echo full >> /got;"
        " ls /sys/class/net >> /got\n"
    )
    built(project, t="memory")
    assert project.run("memory", "cat /got") == "1024\nfull\nlo\n"
    assert files_of(project, "memory") == ["got"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--mount=source=../../..,target=/x", "Forbidden path outside the build context"),
        ("--mount=source=nope,target=/x", "file not found in build context"),
        ("--mount=source=out,target=/x", "file not found in build context"),
        ("--mount=from=host,target=/x", "it shows this machine's files"),
        ("--mount=type=cache,from=host,target=/x", "it shows this machine's files"),
        ("--mount=type=tmpfs,target=/", 'invalid mount target "/"'),
        ("--mount=target=/proc", "cannot be mounted because it is not of type proc"),
        ("--mount=target=/proc/sys", "cannot be mounted because it is inside /proc"),
        ("--mount=type=secret,id=x,required", "secret x: not found"),
        ("--mount=type=ssh,required=true", 'no SSH key "default" forwarded from the client'),
        ("--mount=type=other,target=/x", 'unsupported mount type "other"'),
        ("--security=insecure", "security.insecure is not allowed"),
        ("--device=vendor.com/device", "is not allowed"),
    ],
)
def test_what_no_command_gets(project: Project, flags: str, why: str) -> None:
    os.symlink("/etc/passwd", project.folder / "out")
    project.write(f"FROM busybox\nRUN {flags} echo ran > /got\n")
    done = project.build()
    assert why in done.error


def is_anywhere(root: Path, data: bytes) -> list[Path]:
    """Return the files below a directory that have some bytes in them."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if data in path.read_bytes()]


def test_secrets_are_seen_and_written_nowhere(lent: tuple[Project, Path]) -> None:
    project, offers = lent
    value = os.urandom(8).hex().encode()
    (offers / "secrets/key").write_bytes(value)
    project.write(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=key --mount=type=secret,id=key,target=/root/.netrc,mode=0440,uid=7"
        " --mount=type=secret,id=none"
        " sha256sum < /run/secrets/key | cut -c1-64 > /got; stat -c '%a %u' /run/secrets/key /root/.netrc"
        " >> /got; ls /run/secrets >> /got; echo x 2>/dev/null > /root/.netrc || echo ro >> /got\n"
        "RUN --mount=type=secret,id=key,env=TOKEN echo $TOKEN | sha256sum | cut -c1-64 >> /got\n"
    )
    built(project, t="told")
    hashes = [hashlib.sha256(data).hexdigest() for data in (value, value + b"\n")]
    wanted = [hashes[0], "400", "0", "440", "7", "key", "ro", hashes[1]]
    assert project.run("told", "cat /got").split() == wanted
    data_root = project.engine.data_root
    removed = (data_root / "snapshots").glob
    wait_for(lambda: not list(removed("removed-*")), "what was removed is deleted")
    assert not is_anywhere(data_root, value)
    assert not [name for name in files_of(project, "told") if name != "got"]
    (offers / "secrets/key").write_bytes(b"another")
    assert built(project).count("Using cache") == 2
    (offers / "secrets/key").unlink()
    project.write("FROM busybox\nRUN --mount=type=secret,id=key,required env\n")
    assert project.build().error.endswith("secret key: not found")
    (offers / "secrets/key").write_bytes(b"a\0b")
    project.write("FROM busybox\nRUN --mount=type=secret,id=key,env=KEY env\n")
    assert project.build().error.endswith("no variable can have its zero byte")


SENDER = """
import os, socket, time
open("/planted", "w").write("as it was")
fd = os.open("/planted", os.O_RDWR)
folder = os.open("/", os.O_RDONLY)
sock = socket.socket(socket.AF_UNIX)
while sock.connect_ex("/meet/sock"):
    time.sleep(0.01)
socket.send_fds(sock, [b"x"], [fd, folder])
"""
RECEIVER = """
import contextlib, os, socket, time
sock = socket.socket(socket.AF_UNIX)
sock.bind("/meet/sock")
sock.listen()
peer, _ = sock.accept()
_, (file, folder), *_ = socket.recv_fds(peer, 1, 2)
while peer.recv(1):
    pass
time.sleep(4)
os.pwrite(file, b"tampered!", 0)
with contextlib.suppress(OSError):
    os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
os.unlink("/meet/sock")
"""


def test_what_a_command_passes_on_changes_no_layer(project: Project) -> None:
    """Descriptors go through a socket in a cache to the command of another build, which goes on."""
    for name, script in (("sender", SENDER), ("receiver", RECEIVER)):
        run = f"RUN --mount=type=cache,target=/meet {sys.executable} - <<EOF\n{script}EOF\n"
        project.file(name, f"FROM host\n{run}")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(built, project, dockerfile="receiver")
        built(project, dockerfile="sender", t="sent")
        other.result()
    assert project.run("sent", "cat /planted; ls -d /made 2>/dev/null || :") == "as it was"


def test_commands_talk_to_the_clients_agent(lent: tuple[Project, Path]) -> None:
    project, offers = lent
    script = (
        "import os, socket; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['SSH_AUTH_SOCK']);"
        " print(os.environ['SSH_AUTH_SOCK'], s.recv(9).decode())"
    )
    project.write(f'FROM host\nRUN --mount=type=ssh,mode=0666 {sys.executable} -c "{script}"\n')
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(offers / "agent.sock"))
        agent.listen()

        def answer() -> None:
            connection, _ = agent.accept()
            with connection:
                connection.sendall(b"keys")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "/run/buildkit/ssh_agent.0 keys" in built(project)
        thread.join()
    project.write("FROM busybox\nRUN --mount=type=ssh,id=other,required true\n")
    assert 'no SSH key "other" forwarded from the client' in project.build().error


def test_a_command_may_have_a_cache_in_two_places_whoever_has_to_wait_for_it(
    project: Project,
) -> None:
    for kind in ("locked", "private", "shared"):
        flags = " ".join(
            f"--mount=type=cache,id=c,sharing={kind},target=/{name}" for name in ("a", "b")
        )
        project.write(f"FROM busybox\nRUN {flags} echo {kind} > /a/x && cat /b/x > /got\n")
        built(project, t="built:t")
        assert project.engine.docker("run", "--rm", "built:t", "cat", "/got").out.strip() == kind
