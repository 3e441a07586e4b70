"""Bundles for OCI runtimes, and the runtimes: berth-oci as pip installs it, and runc beside it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import berth
from support.programs import PATH, Outcome, find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).parents[2] / "scripts" / "berth-oci"
VARIABLE = "BERTH_OCI_ZYGOTE"
APPLETS = """
sh cat echo ls id env true false sleep wc head tail mkdir rm touch test stat mount umount ps kill hostname
grep dd tr cut sort seq chmod ln readlink mknod pwd stty printf awk sed df find tty nproc uname chown setsid
"""


def install(prefix: Path) -> Path:
    """Lay out ``prefix`` as an editable installation does; return the command."""
    library = prefix / f"lib/python{sysconfig.get_python_version()}/site-packages"
    library.mkdir(parents=True)
    (library / "_editable_impl_berth.pth").write_text(str(Path(berth.__file__).parents[1]))
    folder = prefix / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    return Path(shutil.copy(SCRIPT, folder / "berth-oci"))


@contextlib.contextmanager
def zygote(program: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `berth-oci zygote` at ``path``; it has to end by itself when it is told to, and its workers too."""
    environment = {**os.environ, "PATH": PATH, VARIABLE: str(path)}
    process = subprocess.Popen([program, "zygote"], env=environment, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(path), "the zygote listens")
        yield process
    finally:
        process.terminate()
        process.wait()


def _listens(path: Path) -> bool:
    """Say whether somebody does: one that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        return client.connect_ex(str(path)) == 0


class Runtime:
    """An OCI runtime with a state directory of its own."""

    def __init__(self, program: str, root: Path) -> None:
        self.program = program
        self.root = root
        self.group = f"berth-test-{secrets.token_hex(4)}"

    def __call__(self, *args: str, stdin: bytes | None = None, cwd: Path | None = None) -> Outcome:
        """Run a command of it to its end."""
        return run(*self.command(*args), stdin=stdin, cwd=str(cwd) if cwd else None)

    def command(self, *args: str) -> list[str]:
        """Return the whole command line."""
        return [self.program, "--root", str(self.root), *args]

    def background(self, *args: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a command of it."""
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self.command(*args), env={**os.environ, "PATH": PATH}, **options
        )

    def state(self, id_: str) -> dict[str, object]:
        """Return a container's state document."""
        done = self("state", id_)
        assert done.code == 0, str(done)
        found: dict[str, object] = json.loads(done.out)
        return found

    def status(self, id_: str) -> object:
        """Return a container's status."""
        return self.state(id_)["status"]

    def create(self, bundle: Bundle, id_: str, *args: str) -> Outcome:
        """Create a container whose streams are the null device."""
        # A file: the container keeps its streams, and a pipe would not end before it does.
        with open(os.devnull, "r+b") as null, tempfile.TemporaryFile() as errors:
            process = self.background(
                "create", "--bundle", str(bundle.path), *args, id_,
                stdin=null, stdout=null, stderr=errors,
            )  # fmt: skip
            process.wait()
            errors.seek(0)
            err = errors.read().decode(errors="replace")
        return Outcome(("create", id_), process.returncode, b"", err)

    def run(self, bundle: Bundle, id_: str, *args: str) -> Outcome:
        """Run a container to its end."""
        return self("run", "--bundle", str(bundle.path), *args, id_)

    def clear(self) -> None:
        """Delete every container."""
        for id_ in self("list", "--quiet").lines:
            self("delete", "--force", id_)


class Bundle:
    """A directory with config.json and a root of busybox."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self.path = path
        self.root = path / "rootfs"
        (self.root / "bin").mkdir(parents=True)
        shutil.copy(find("busybox"), self.root / "bin/busybox")
        for applet in APPLETS.split():
            (self.root / "bin" / applet).symlink_to("busybox")
        for name in ("proc", "sys", "dev", "etc", "tmp", "work"):
            (self.root / name).mkdir()
        run(*runtime.command("spec"), cwd=str(path), check=True)
        self.edit(lambda spec: spec["process"].update(terminal=False))
        self.edit(lambda spec: spec["linux"].update(cgroupsPath=f"/{runtime.group}"))

    @property
    def spec(self) -> dict:
        """The document as it is now."""
        return json.loads((self.path / "config.json").read_text())

    def edit(self, change: Callable[[dict], object]) -> Bundle:
        """Change the document in place."""
        spec = self.spec
        change(spec)
        (self.path / "config.json").write_text(json.dumps(spec))
        return self

    def runs(self, *args: str) -> Bundle:
        """Set the program."""
        return self.edit(lambda spec: spec["process"].update(args=list(args)))

    def shell(self, script: str) -> Bundle:
        """Set a shell script as the program."""
        return self.runs("sh", "-c", script)
