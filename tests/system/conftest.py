"""Engines, clients and images for the system tests, and the assertion that nothing is left behind."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import criu, kernel
from support.engine import EngineProcess
from support.programs import Outcome, find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import docker

    from support import bundles
    from support.projects import Project
    from support.registries import Front, Registry

# The storage driver of engines, where a test does not say. With vfs only tests of the image `host` fail.
STORAGE = os.environ.get("BERTH_TEST_STORAGE", "")
REFERENCE = os.environ.get("BERTH_TEST_REFERENCE") == "dockerd"
CACHE = Path(__file__).parents[2] / ".build"
APPLETS = """
sh cat echo ls id env true false sleep wc head tail mkdir rm touch test stat mount umount ps kill hostname
grep dd sha256sum nc wget ip tr cut sort seq chmod chown ln readlink mknod pwd stty trap yes printf awk sed
nproc free uname nslookup httpd ping df find xargs date sync tty unshare
"""


@pytest.fixture(scope="session")
def busybox_tar() -> bytes:
    """A root file system of one static busybox, a few users and an empty /tmp."""
    binary = Path(find("busybox")).resolve().read_bytes()
    files = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
        "etc/group": b"root:x:0:\nalice:x:1000:\nstaff:x:50:alice\nwheel:x:10:\n",
    }
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for name, mode in (
            *(("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)),
            *(("home", 0o755), ("home/alice", 0o755), ("work", 0o755)),
        ):
            _add(archive, name, kind=tarfile.DIRTYPE, mode=mode)
        _add(archive, "bin/busybox", data=binary, mode=0o755)
        for applet in APPLETS.split():
            _add(archive, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        for name, data in files.items():
            _add(archive, name, data=data)
        _add(archive, "bin/unexecutable", data=b"no program\n", mode=0o644)
    return body.getvalue()


def _add(
    archive: tarfile.TarFile,
    name: str,
    *,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(data)
    entry.mtime = 1_600_000_000
    if name.startswith("home/alice"):
        entry.uid = entry.gid = 1000
    archive.addfile(entry, io.BytesIO(data))


@pytest.fixture(scope="session")
def session_engine(busybox_tar: bytes) -> Iterator[EngineProcess]:
    """One engine for all tests that do not end it, with the image `busybox`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = make_engine()
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture(autouse=True)
def _skip_what_the_reference_lacks(request: pytest.FixtureRequest) -> None:
    if REFERENCE and request.node.get_closest_marker("berth_only"):
        pytest.skip("the reference has no such thing")


@pytest.fixture
def engine(session_engine: EngineProcess) -> Iterator[EngineProcess]:
    """The session's engine; afterwards every container is removed and nothing of it may be left."""
    yield session_engine
    clean(session_engine)


@pytest.fixture
def fresh_engine(busybox_tar: bytes) -> Iterator[EngineProcess]:
    """An engine of the test's own, which it may kill, with the image `busybox`."""
    engine = make_engine()
    try:
        engine.start()
        import_busybox(engine, busybox_tar)
        yield engine
        if engine.is_running:
            clean(engine)
    finally:
        engine.close()
    assert_gone(engine)


@pytest.fixture(scope="module")
def module_criu_engine(busybox_tar: bytes) -> Iterator[EngineProcess]:
    """An engine that finds criu, with the image `busybox`."""
    engine = make_engine({"PATH": criu.path()})
    with running(engine, busybox_tar):
        yield engine


@pytest.fixture
def criu_engine(module_criu_engine: EngineProcess) -> Iterator[EngineProcess]:
    """The module's engine that finds criu; afterwards nothing of any container may be left."""
    yield module_criu_engine
    if not module_criu_engine.is_running:
        module_criu_engine.start()
    clean(module_criu_engine)


@contextlib.contextmanager
def running(engine: EngineProcess, archive: bytes) -> Iterator[None]:
    """Have an engine run, with the image `busybox`; afterwards nothing of it may be left."""
    try:
        engine.start()
        import_busybox(engine, archive)
        yield
    finally:
        engine.close()
    assert_gone(engine)


def make_engine(environment: dict[str, str] | None = None) -> EngineProcess:
    """Return an engine that is not started: berth, or what it is compared with."""
    if REFERENCE:
        from support.reference import Reference

        return Reference()
    flags = ("--storage-driver", STORAGE) if STORAGE else ()
    return EngineProcess(flags=flags, environment=environment)


def import_busybox(engine: EngineProcess, archive: bytes) -> None:
    """Make the image `busybox:latest` in an engine."""
    done = engine.docker(
        "import", "-c", 'CMD ["sh"]', "-c", "ENV PATH=/bin", "-", "busybox:latest", stdin=archive
    )
    assert done.code == 0, str(done)


@pytest.fixture
def project(engine: EngineProcess, tmp_path: Path) -> Iterator[Project]:
    """A directory to be built; afterwards nothing of builds is left."""
    from support.projects import Project, clear_images, remains

    folder = tmp_path / "context"
    folder.mkdir()
    yield Project(folder, engine)
    engine.request("POST", "/build/prune")
    clear_images(engine)
    wait_for(lambda: not remains(engine), "nothing of a build is left")
    caches = engine.data_root / "caches"
    assert not (caches.exists() and any(caches.iterdir()))


@pytest.fixture
def lent(
    tmp_path: Path, busybox_tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Project, Path]]:
    """A project whose client lends secrets and an agent, and the directory of those."""
    from support import lending
    from support.projects import Project

    folder, offers = tmp_path / "context", tmp_path / "offers"
    for path in (folder, offers / "secrets"):
        path.mkdir(parents=True)
    monkeypatch.setenv(lending.FOLDER, str(offers))
    engine = EngineProcess(module="support.lending")
    with running(engine, busybox_tar):
        yield Project(folder, engine), offers


@pytest.fixture
def networks(engine: EngineProcess) -> Iterator[EngineProcess]:
    """The engine; afterwards its containers and the networks that tests made are removed."""
    yield engine
    engine.remove_containers()
    for document in engine.request("GET", "/networks")[1]:
        engine.request("DELETE", f"/networks/{document['Id']}")
    assert kernel.bridges(engine.instance) == [engine.instance.bridge]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry on loopback that lets everybody in."""
    from support.registries import Registry

    find("docker-registry")
    with contextlib.closing(Registry(tmp_path / "registry")) as registry:
        yield registry


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    """A registry that wants a password."""
    from support.registries import Registry

    find("docker-registry")
    with contextlib.closing(Registry(tmp_path / "private", password=True)) as registry:
        yield registry


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    """What stands before the registry."""
    from support.registries import Front

    with contextlib.closing(Front(registry)) as front:
        yield front


def clean(engine: EngineProcess) -> None:
    """Remove every container; nothing of them may be left."""
    engine.remove_containers()
    engine.wait_settled()


def assert_gone(engine: EngineProcess) -> None:
    """Nothing of an engine that was closed is left in the kernel or on disk."""
    left = [
        *map(str, kernel.cgroup_parents(engine.instance.cgroup)),
        *kernel.links(engine.instance),
        *kernel.detours(engine.instance),
    ]
    left += [table for table in kernel.tables() if table.split()[1] == engine.instance.table]
    left += kernel.mounts((engine.data_root, engine.exec_root))
    left += [f"process {pid}" for pid in kernel.holders((engine.data_root, engine.exec_root))]
    left += kernel.bridges(engine.instance)
    if engine.base.exists():
        left.append(str(engine.base))
    assert not left, f"left behind by a closed engine: {left}"


@pytest.fixture
def docker_cli(engine: EngineProcess) -> Callable[..., Outcome]:
    """The real docker CLI."""
    return engine.docker


@pytest.fixture
def berth_cli(engine: EngineProcess) -> Callable[..., Outcome]:
    """berth's own CLI."""
    return engine.berth


@pytest.fixture(params=["docker", "berth"])
def cli(engine: EngineProcess, request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Each of the two command lines in turn: the same words must do the same."""
    return engine.docker if request.param == "docker" else engine.berth


@pytest.fixture
def inside(engine: EngineProcess) -> Callable[..., str]:
    """Run a shell script in a container of busybox without a network and return what it printed."""
    return functools.partial(run_inside, engine.docker)


def run_inside(cli: Callable[..., Outcome], script: str, *flags: str) -> str:
    """Run a shell script in a container and return what it printed."""
    done = cli("run", "--rm", "--network", "none", *flags, "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    return done.out.removesuffix("\n")


@pytest.fixture
def docker_py(engine: EngineProcess) -> Iterator[docker.DockerClient]:
    """docker-py's client."""
    import docker

    client = docker.DockerClient(base_url=engine.host)
    yield client
    client.close()


@pytest.fixture(scope="session")
def debian_tar() -> Path:
    """A minimal Debian made by mmdebstrap, once; kept for the next session."""
    archive = CACHE / "debian-minbase.tar"
    if not archive.exists():
        CACHE.mkdir(exist_ok=True)
        half = archive.with_suffix(".half.tar")
        args = ("--variant=minbase", "--quiet", "bookworm", str(half))
        run(find("mmdebstrap"), *args, timeout_s=280, check=True)
        half.rename(archive)
    return archive


@pytest.fixture
def other_network() -> Iterator[str]:
    """A network namespace joined to the host by a veth pair: 198.18.77.1 (host) and .2 (inside)."""
    ip, name, link = find("ip"), f"bt{os.getpid()}", f"bt{os.getpid()}"
    run(ip, "netns", "add", name, check=True)
    try:
        for command in (
            f"link add {link} type veth peer name eth0 netns {name}",
            f"addr add 198.18.77.1/30 dev {link}",
            f"link set {link} up",
            f"-n {name} addr add 198.18.77.2/30 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} route add default via 198.18.77.1",
        ):
            run(ip, *command.split(), check=True)
        yield name
    finally:
        run(ip, "netns", "delete", name)
        run(ip, "link", "delete", link)
        wait_for(lambda: not Path("/sys/class/net", link).exists(), "the veth pair is gone")


@pytest.fixture(scope="session")
def berth_oci(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command `berth-oci` as pip installs it."""
    from support import bundles

    if os.geteuid() != 0:
        pytest.skip("needs root")
    return str(bundles.install(tmp_path_factory.mktemp("prefix") / "env"))


@pytest.fixture(scope="session")
def shared_zygote(berth_oci: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a `berth-oci zygote` that runs as long as the tests."""
    from support import bundles

    path = tmp_path_factory.mktemp("zygote") / "socket"
    with bundles.zygote(berth_oci, path):
        yield str(path)


@pytest.fixture(params=["cold", "zygote"])
def each_door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to `run`: the command itself does it, or a zygote."""
    socket = request.getfixturevalue("shared_zygote") if request.param == "zygote" else ""
    monkeypatch.setenv("BERTH_OCI_ZYGOTE", socket)
    return str(request.param)


@pytest.fixture
def oci(berth_oci: str, tmp_path: Path) -> Iterator[bundles.Runtime]:
    """berth-oci with a state directory of its own; afterwards nothing of it may be left."""
    from support import bundles

    runtime = bundles.Runtime(berth_oci, tmp_path / "state")
    yield runtime
    runtime.clear()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    left = [root / runtime.group for root in kernel.hierarchies()]
    assert not [group for group in left if group.exists()]


@pytest.fixture
def bundle(oci: bundles.Runtime, tmp_path: Path) -> bundles.Bundle:
    """A bundle of busybox, to be edited."""
    from support import bundles

    return bundles.Bundle(tmp_path / "bundle", oci)
