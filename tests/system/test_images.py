"""Images come in and go out: import, load, save, pull, tag, remove."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING

import docker
import pytest

from support.archives import blobs_of, docker_archive, layer, layers_of, size_of
from support.programs import find, run
from support.servers import Folder
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.engine import EngineProcess
    from support.programs import Outcome
    from support.registries import Registry

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")
LINK_OUT: dict[str, object] = {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}


def layers(busybox: bytes) -> list[bytes]:
    """Return three layers that hide, replace and delete what lies below."""
    second = layer(
        [
            ("layer-two", b"two\n", {}),
            ("gone", b"never seen\n", {}),
            ("hidden", None, {}),
            ("hidden/below", b"never seen\n", {}),
            ("owned", b"x", {"uid": 1000, "gid": 50, "mode": 0o4750, "mtime": 1_500_000_000}),
            ("hard", b"", {"type": tarfile.LNKTYPE, "linkname": "layer-two"}),
            ("soft", b"", {"type": tarfile.SYMTYPE, "linkname": "/layer-two"}),
            ("device", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
            ("fifo", b"", {"type": tarfile.FIFOTYPE}),
            ("extended", b"x", {"pax_headers": {"SCHILY.xattr.user.colour": "blue"}}),
        ]
    )
    third = layer(
        [
            (".wh.gone", b"", {}),
            ("hidden", None, {}),
            ("hidden/.wh..wh..opq", b"", {}),
            ("hidden/above", b"seen\n", {}),
        ]
    )
    return [busybox, second, third]


@pytest.fixture
def saved(busybox_tar: bytes) -> bytes:
    return docker_archive(layers(busybox_tar), "layered:1")


@pytest.fixture(autouse=True)
def _only_the_first_images_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    if "engine" not in request.fixturenames:
        yield
        return
    engine: EngineProcess = request.getfixturevalue("engine")
    before = {image["Id"] for image in engine.request("GET", "/images/json")[1]}
    yield
    engine.remove_containers()
    for image in engine.request("GET", "/images/json")[1]:
        if image["Id"] not in before:
            engine.request("DELETE", f"/images/{image['Id']}?force=1")


def zstd(data: bytes) -> bytes:
    return run(find("zstd"), "-q", "-c", stdin=data, check=True).raw


PACKERS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd}


@pytest.mark.parametrize("packing", PACKERS)
def test_a_docker_archive_is_loaded_packed_or_not(
    cli: Cli, saved: bytes, packing: str, engine: EngineProcess
) -> None:
    if packing == "zstd" and type(engine).__name__ == "Reference":
        pytest.skip("the reference knows no zstd")
    done = cli("load", stdin=PACKERS[packing](saved))
    assert done.code == 0, str(done)
    assert "Loaded image: layered:1" in done.out
    shown = cli(
        *RUN, "layered:1", "sh", "-c", "cat layer-two soft hard 2>/dev/null; pwd; echo $MADE"
    )
    assert shown.lines[-2:] == ["/work", "by-hand"]


def test_layers_are_unpacked_exactly(cli: Cli, saved: bytes) -> None:
    assert cli("load", stdin=saved).code == 0
    script = """
        cat /layer-two /hard /soft
        ls /gone 2>/dev/null || echo gone
        ls /hidden
        stat -c '%a %u %g %Y' /owned
        stat -c '%h' /hard
        test /hard -ef /layer-two && echo same
        stat -c '%F %t:%T' /device
        test -p /fifo && echo fifo
    """
    done = cli(*RUN, "layered:1", "sh", "-c", script)
    assert done.lines == [
        *("two", "two", "two", "gone", "above", "4750 1000 50 1500000000", "2", "same"),
        *("character special file 1:3", "fifo"),
    ], str(done)


@pytest.mark.berth_only  # dockerd 20.10 keeps no user attributes in an archive
def test_extended_attributes_are_kept(cli: Cli, saved: bytes) -> None:
    cli("load", stdin=saved)
    cli("create", "--name", "attributed", "layered:1", "true")
    archive = cli("cp", "attributed:/extended", "-")
    assert archive.code == 0, archive.err
    with tarfile.open(fileobj=io.BytesIO(archive.raw)) as read:
        headers = read.getmember("extended").pax_headers
    assert headers.get("SCHILY.xattr.user.colour") == "blue"


def test_import_makes_one_layer_and_takes_changes(
    cli: Cli, busybox_tar: bytes, tmp_path: Path
) -> None:
    (tmp_path / "root.tar.gz").write_bytes(gzip.compress(busybox_tar))
    changes = ("-c", "ENV PATH=/bin X=1", "-c", 'ENTRYPOINT ["echo"]', "-m", "by hand")
    done = cli("import", *changes, str(tmp_path / "root.tar.gz"), "imported:now")
    assert done.code == 0, str(done)
    assert done.out.startswith("sha256:")
    assert cli(*RUN, "imported:now", "said").out == "said\n"
    document = json.loads(cli("inspect", "--type", "image", "imported:now").out)[0]
    assert document["Config"]["Entrypoint"] == ["echo"]
    assert len(document["RootFS"]["Layers"]) == 1
    assert document["RootFS"]["Layers"][0] == f"sha256:{hashlib.sha256(busybox_tar).hexdigest()}"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which a server shows it."""
    with contextlib.closing(Folder(tmp_path)) as server:
        yield tmp_path, server.url


def test_the_engine_imports_from_the_web(
    cli: Cli, busybox_tar: bytes, web: tuple[Path, str]
) -> None:
    folder, url = web
    (folder / "root.tar").write_bytes(busybox_tar)
    done = cli("import", "-c", "ENV PATH=/bin", f"{url}/root.tar", "imported:web")
    assert done.code == 0, str(done)
    assert done.lines[0] == f"Downloading from {url}/root.tar"
    assert done.lines[-1].startswith("sha256:")
    assert cli(*RUN, "imported:web", "echo", "said").out == "said\n"
    missing = cli("import", f"{url}/missing.tar")
    assert missing.code == 1
    assert "Got HTTP status code >= 400: 404" in missing.err
    assert cli("import", "ftp://127.0.0.1/x").code == 1


def test_what_is_no_archive_is_refused_in_the_stream(docker_py: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ImageLoadError):
        docker_py.images.load(b"no archive")


def test_a_saved_image_is_the_same_when_loaded_again(
    cli: Cli, saved: bytes, tmp_path: Path
) -> None:
    cli("load", stdin=saved)
    id_ = json.loads(cli("inspect", "--type", "image", "layered:1").out)[0]["Id"]
    again = cli("save", "layered:1")
    assert again.code == 0, again.err
    assert cli("rmi", "layered:1").code == 0
    assert cli("inspect", "--type", "image", "layered:1").code == 1
    path = tmp_path / "again.tar"
    path.write_bytes(again.raw)
    assert cli("load", "-i", str(path)).code == 0
    assert json.loads(cli("inspect", "--type", "image", "layered:1").out)[0]["Id"] == id_


def test_several_images_travel_in_one_archive_with_all_their_tags(
    cli: Cli, engine: EngineProcess, busybox_tar: bytes
) -> None:
    names = ["one:1", "one:2", "two:1"]
    assert cli("load", stdin=docker_archive([busybox_tar], "one:1")).code == 0
    assert cli("load", stdin=docker_archive(layers(busybox_tar), "two:1")).code == 0
    assert cli("tag", "one:1", "one:2").code == 0
    ids = {name: engine.request("GET", f"/images/{name}/json")[1]["Id"] for name in names}
    saved = cli("save", "one", "two:1")
    assert saved.code == 0, saved.err
    assert cli("rmi", *names).code == 0
    loaded = cli("load", stdin=saved.raw)
    assert sorted(loaded.lines) == [f"Loaded image: {name}" for name in names], str(loaded)
    for name, id_ in ids.items():
        assert engine.request("GET", f"/images/{name}/json")[1]["Id"] == id_


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_that_skopeo_writes_are_loaded(
    cli: Cli, saved: bytes, form: str, tmp_path: Path, engine: EngineProcess
) -> None:
    if form == "oci-archive" and type(engine).__name__ == "Reference":
        pytest.skip("the reference loads no OCI layout")
    (tmp_path / "in.tar").write_bytes(saved)
    target = f"{form}:{tmp_path}/out.tar:layered:2"
    run(
        *(find("skopeo"), "--insecure-policy", "copy", "-q"),
        *(f"docker-archive:{tmp_path}/in.tar", target),
        check=True,
    )
    done = cli("load", "-i", f"{tmp_path}/out.tar")
    assert done.code == 0, str(done)
    id_ = done.out.split("Loaded image")[1].split(": ", 1)[1].strip()
    assert cli(*RUN, id_, "cat", "/layer-two").out == "two\n"


def test_what_we_save_skopeo_reads(cli: Cli, saved: bytes, tmp_path: Path) -> None:
    cli("load", stdin=saved)
    assert cli("save", "-o", str(tmp_path / "ours.tar"), "layered:1").code == 0
    shown = run(find("skopeo"), "inspect", f"docker-archive:{tmp_path}/ours.tar", check=True)
    assert len(json.loads(shown.out)["Layers"]) == 3


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_that_podman_saves_are_loaded(
    cli: Cli, busybox_tar: bytes, form: str, tmp_path: Path, engine: EngineProcess
) -> None:
    if form == "oci-archive" and type(engine).__name__ == "Reference":
        pytest.skip("the reference loads no OCI layout")
    with tempfile.TemporaryDirectory(prefix="bp-") as base:  # podman takes short run roots only
        out = podman_saves(base, busybox_tar, form, tmp_path)
    done = cli("load", "-i", out)
    assert done.code == 0, str(done)
    assert "localhost/of-podman:3" in done.out
    assert cli(*RUN, "localhost/of-podman:3", "/bin/echo", "ran").out == "ran\n"


def podman_saves(base: str, archive: bytes, form: str, folder: Path) -> str:
    """Import an archive into a podman of its own below ``base``; return what it saved."""
    podman = (
        *(
            find("podman"),
            "--root",
            f"{base}/r",
            "--runroot",
            f"{base}/rr",
            "--tmpdir",
            f"{base}/t",
        ),
        *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
    )
    name, out = "localhost/of-podman:3", str(folder / "saved.tar")
    run(*podman, "import", "-q", "-", name, stdin=archive, check=True)
    run(*podman, "save", "-q", "--format", form, "-o", out, name, check=True)
    return out


def test_tags_come_and_go_and_the_last_takes_the_image(cli: Cli, saved: bytes) -> None:
    cli("load", stdin=saved)
    assert cli("tag", "layered:1", "registry.example:5000/team/other:v2").code == 0
    shown = cli("images", "--format", "{{.Repository}}:{{.Tag}}").lines
    assert {"layered:1", "registry.example:5000/team/other:v2", "busybox:latest"} <= set(shown)
    assert "Untagged: layered:1" in cli("rmi", "layered:1").out
    assert cli(*RUN, "registry.example:5000/team/other:v2", "true").code == 0
    done = cli("rmi", "registry.example:5000/team/other:v2")
    assert "Deleted: sha256:" in done.out
    assert cli("rmi", "layered:1").code == 1


def test_an_image_in_use_stays(cli: Cli, saved: bytes) -> None:
    cli("load", stdin=saved)
    cli("create", "--name", "user-of-it", "layered:1", "true")
    done = cli("rmi", "layered:1")
    assert done.code == 1
    assert "conflict" in done.err
    cli("rm", "user-of-it")
    assert cli("rmi", "layered:1").code == 0


@pytest.mark.berth_only
def test_an_image_that_others_were_made_of_stays(cli: Cli, busybox_tar: bytes) -> None:
    """It loses its names only, and goes with the last that was made of it."""
    assert cli("import", "-", "family:parent", stdin=busybox_tar).code == 0
    parent = cli("image", "inspect", "-f", "{{.Id}}", "family:parent").out.strip()
    cli("create", "--name", "maker", "--network", "none", "family:parent", "true")
    assert cli("commit", "-c", "LABEL generation=2", "maker", "family:child").code == 0
    cli("rm", "maker")
    for flags in ((), ("-f",)):
        refused = cli("rmi", *flags, parent)
        assert refused.code == 1
        assert "cannot be forced) - image has dependent child images" in refused.err
    assert cli("rmi", "family:parent").lines == ["Untagged: family:parent"]
    assert cli("image", "inspect", parent).code == 0
    assert parent.partition(":")[2][:12] not in cli("images", "-q").lines
    gone = cli("rmi", "family:child")
    assert f"Deleted: {parent}" in gone.lines
    assert cli("image", "inspect", parent).code == 1


def test_the_built_in_image_is_listed_and_never_travels(cli: Cli) -> None:
    assert "host" in cli("images", "--format", "{{.Repository}}").lines
    assert cli("save", "host").code == 1
    assert cli("rmi", "host").code == 1


@pytest.mark.berth_only  # the reference has a loopback of its own
def test_pull_takes_an_image_from_a_registry(
    cli: Cli, saved: bytes, registry: Registry, tmp_path: Path, engine: EngineProcess
) -> None:
    (tmp_path / "in.tar").write_bytes(saved)
    run(
        *(find("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"),
        *(f"docker-archive:{tmp_path}/in.tar", f"docker://{registry.host}/team/layered:7"),
        check=True,
    )
    done = cli("pull", f"{registry.host}/team/layered:7")
    assert done.code == 0, str(done)
    assert "Digest: sha256:" in done.out
    assert f"Status: Downloaded newer image for {registry.host}/team/layered:7" in done.out
    assert cli(*RUN, f"{registry.host}/team/layered:7", "cat", "/layer-two").out == "two\n"
    assert "Image is up to date" in cli("pull", f"{registry.host}/team/layered:7").out
    cli("rmi", f"{registry.host}/team/layered:7")
    ran = cli(*RUN, f"{registry.host}/team/layered:7", "cat", "/layer-two")
    assert (ran.code, ran.out) == (0, "two\n")
    missing = cli("pull", f"{registry.host}/team/none:1")
    assert missing.code == 1
    assert "Traceback" not in missing.err


def test_a_real_debian_runs(docker_cli: Cli, debian_tar: Path) -> None:
    done = docker_cli("import", str(debian_tar), "debian:made")
    assert done.code == 0, str(done)
    script = "dpkg -l | grep -c ^ii; stat -c %a /tmp /usr/bin/passwd; id -un; ls -l /bin | head -1"
    shown = docker_cli(*RUN, "debian:made", "sh", "-c", script)
    assert shown.code == 0, str(shown)
    assert int(shown.lines[0]) > 50
    assert shown.lines[1:3] == ["1777", "4755"]
    assert shown.lines[3] == "root"


@pytest.mark.berth_only
def test_layers_stay_for_a_container_whose_image_was_removed(
    fresh_engine: EngineProcess, saved: bytes
) -> None:
    docker = fresh_engine.docker
    before = layers_of(fresh_engine), blobs_of(fresh_engine)
    docker("load", stdin=saved)
    docker("create", "--name", "orphan", "--network", "none", "layered:1", "cat", "/layer-two")
    assert docker("rmi", "-f", "layered:1").code == 0
    assert docker("start", "-a", "orphan").out == "two\n"
    docker("rm", "orphan")
    wait_for(
        lambda: (layers_of(fresh_engine), blobs_of(fresh_engine)) == before, "all is as before"
    )
    assert docker("run", "--rm", "--network", "none", "busybox", "echo", "fine").out == "fine\n"


@pytest.mark.berth_only
def test_prune_frees_what_broken_transfers_left(fresh_engine: EngineProcess, saved: bytes) -> None:
    docker = fresh_engine.docker
    before = blobs_of(fresh_engine)
    left = hashlib.sha256(b"left").hexdigest()
    (fresh_engine.data_root / "content/blobs/sha256" / left).write_bytes(b"left")
    docker("load", stdin=saved)
    docker("tag", "busybox", "layered:1")  # takes the name: the other image is dangling
    assert docker("images", "-q", "--filter", "dangling=true").lines
    done = docker("image", "prune", "-f")
    assert "untagged: " not in done.out
    assert "deleted: sha256:" in done.out
    assert blobs_of(fresh_engine) == before


@pytest.mark.berth_only
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda saved: b"no archive at all" * 100, "tar"),
        (lambda saved: saved[: len(saved) // 2], "unexpected EOF"),
        (lambda saved: gzip.compress(saved)[:-20_000], "EOF"),
        (lambda saved: docker_archive([b"no tar" * 1000], "broken:1"), "tar"),
        (lambda saved: saved.replace(b"two\n", b"tow\n"), "invalid diffID for layer"),
        (lambda saved: docker_archive([layer([("h", b"", LINK_OUT)])], "broken:1"), "h"),
        (lambda saved: docker_archive([layer([("n" * 300, b"", {})])], "broken:1"), "too long"),
        (lambda saved: saved.replace(b'["0/layer.tar"', b'["9/layer.tar"'), ""),
    ],
    ids=["text", "half", "half-packed", "no-layer", "changed", "link", "name", "missing"],
)
def test_broken_archives_are_refused_in_one_line_and_leave_nothing(
    cli: Cli,
    engine: EngineProcess,
    saved: bytes,
    damage: Callable[[bytes], bytes],
    says: str,
) -> None:
    before = layers_of(engine), blobs_of(engine)
    done = cli("load", stdin=damage(saved))
    assert done.code == 1, str(done)
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    wait_for(lambda: (layers_of(engine), blobs_of(engine)) == before, "all is as before")
    assert not any((engine.data_root / "content/ingest").iterdir())
    assert cli("image", "inspect", "broken:1").code == 1


@pytest.mark.berth_only
@pytest.mark.parametrize("size_mb", [1, 120, 280])
def test_a_load_that_is_killed_leaves_nothing_and_succeeds_afterwards(
    fresh_engine: EngineProcess, debian_tar: Path, tmp_path: Path, size_mb: int
) -> None:
    docker = fresh_engine.docker
    archive = tmp_path / "debian.tar"
    archive.write_bytes(docker_archive([debian_tar.read_bytes()], "debian:killed"))
    before = layers_of(fresh_engine), blobs_of(fresh_engine)
    start = size_of(fresh_engine.data_root)
    command = [find("docker"), "-H", fresh_engine.host, "load", "-i", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        wait_for(
            lambda: size_of(fresh_engine.data_root) - start >= size_mb << 20, "so much is written"
        )
        fresh_engine.kill()
    assert client.returncode == 1
    fresh_engine.start()
    assert layers_of(fresh_engine) == before[0]
    for name in blobs_of(fresh_engine) - before[1]:  # whole ones are kept for a day
        data = (fresh_engine.data_root / "content/blobs/sha256" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == name
    assert not any((fresh_engine.data_root / "content/ingest").iterdir())
    assert docker("image", "inspect", "debian:killed").code == 1
    done = docker("load", "-i", str(archive))
    assert done.code == 0, str(done)
    ran = docker(*RUN, "debian:killed", "/bin/cat", "/etc/os-release")
    assert "Debian" in ran.out


@pytest.mark.berth_only
def test_a_client_that_goes_away_in_the_middle_of_a_load_leaves_nothing(
    engine: EngineProcess, debian_tar: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "debian.tar"
    archive.write_bytes(docker_archive([debian_tar.read_bytes()], "debian:gone"))
    before = layers_of(engine), blobs_of(engine)
    ingest = engine.data_root / "content/ingest"
    command = [find("docker"), "-H", engine.host, "load", "-i", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        wait_for(lambda: size_of(ingest) > 30 << 20, "it has begun")
        client.kill()
    wait_for(lambda: not any(ingest.iterdir()), "what was half made is gone")
    assert (layers_of(engine), blobs_of(engine)) == before


@pytest.mark.berth_only
@pytest.mark.parametrize("count", [128, 400])
def test_more_layers_than_fit_mount_options_are_one_root(
    engine: EngineProcess, busybox_tar: bytes, count: int
) -> None:
    parts = [busybox_tar]
    parts += [
        layer([(f"many/{n}", b"%d\n" % n, {}), ("top", b"%d\n" % n, {})]) for n in range(count)
    ]
    done = engine.docker("load", stdin=docker_archive(parts, f"layers:{count}"))
    assert done.code == 0, str(done)
    script = "cat /many/* | wc -l; cat /top; echo x > /many/0; cat /many/0"
    ran = engine.docker(*RUN, f"layers:{count}", "sh", "-c", script)
    assert ran.lines == [str(count), str(count - 1), "x"], str(ran)
