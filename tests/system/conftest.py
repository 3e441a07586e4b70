"""A real engine, driven as its users drive it, and a look at what it leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

START_TIMEOUT_S = 20
HIERARCHIES = Path("/sys/fs/cgroup")


class Engine:
    """One berthd with roots of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.host = f"unix://{base}/b.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ready, told = os.pipe()
        command = [sys.executable, "-m", "berth", "serve", "-H", self.host]
        command += ["--data-root", f"{self.base}/data", "--exec-root", f"{self.base}/exec"]
        command += ["--ready-fd", str(told)]
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(command, pass_fds=[told], stdout=log, stderr=log)
        os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read(1) == b"1", (self.base / "log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(START_TIMEOUT_S)

    def docker(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "-H", self.host, *args]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)

    def out(self, *args: str, stdin: bytes = b"") -> str:
        done = self.docker(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def cgroups(self) -> list[Path]:
        """Return the groups of containers in every hierarchy."""
        import hashlib

        name = "berth-" + hashlib.sha256(f"{self.base}/data".encode()).hexdigest()[:8]
        return [p for p in HIERARCHIES.glob(f"*/{name}/*/*") if p.is_dir()]


def wait_until(condition, what: str) -> None:
    limit = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < limit, f"waited too long for: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    found = Engine(tmp_path_factory.mktemp("engine"))
    found.start()
    yield found
    found.stop()
    for parent in ("std", "dev", "."):
        for group in HIERARCHIES.glob(f"*/{_name(found)}/{parent}"):
            group.rmdir()


def _name(found: Engine) -> str:
    import hashlib

    return "berth-" + hashlib.sha256(f"{found.base}/data".encode()).hexdigest()[:8]


@pytest.fixture(scope="session")
def busybox(engine, tmp_path_factory):
    """The image `busybox`, imported from a tar of one static program."""
    if not shutil.which("busybox"):
        pytest.fail("busybox-static is missing: run tools/test-packages.sh")
    root = tmp_path_factory.mktemp("busybox")
    root.chmod(0o755)
    (root / "bin").mkdir()
    (root / "etc").mkdir()
    (root / "tmp").mkdir(mode=0o1777)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for name in (
        "sh",
        "cat",
        "true",
        "id",
        "sleep",
        "ls",
        "echo",
        "grep",
        "head",
        "stty",
        "ps",
        "env",
    ):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nme:x:1000:\nextra:x:44:me\n")
    archive = root.parent / "busybox.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, "/")
    engine.out("import", str(archive), "busybox")
    return "busybox"


@pytest.fixture(autouse=True)
def nothing_left(request):
    """After each test: no container, and of the removed ones no cgroup, folder or mount."""
    yield
    if "engine" not in request.fixturenames:
        return
    engine = request.getfixturevalue("engine")
    ids = engine.out("ps", "-aq").split()
    if ids:
        engine.out("rm", "-f", *ids)
    wait_until(lambda: not engine.cgroups(), "cgroups to go")
    assert not list((engine.base / "data/containers").iterdir())
    assert str(engine.base) not in Path("/proc/self/mountinfo").read_text()
