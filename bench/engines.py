"""The engines side by side: berth, dockerd and podman, each with its state on a tmpfs.

Each has a network namespace of its own: what other engines' rules cost is not theirs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.accounts import Account, Spawner

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV = {
    "PATH": os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": "/root",
    "DOCKER_CLI_HINTS": "false",
}
IMAGE = "busybox"
# Limits that need no CAP_SYS_RESOURCE, and podman's own bridge instead of the machine's.
PODMAN_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_config_dir = "{base}/networks"
"""
START_S = 60.0
GONE_S = 10.0


def program(name: str) -> str | None:
    """Return a program's path."""
    return shutil.which(name, path=ENV["PATH"])


def call(*command: str, stdin: bytes | None = None, env: Mapping[str, str] = ENV) -> str:
    """Run a program whose time does not count."""
    done = subprocess.run(command, input=stdin, env=env, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


class Engine:
    """One engine under test. ``name`` heads its column."""

    name = ""

    def __init__(self, base: Path) -> None:
        self.base = base / self.name
        self.base.mkdir()
        self.netns = f"bench{os.getpid()}{self.name}"
        call("ip", "netns", "add", self.netns)
        call("ip", "-n", self.netns, "link", "set", "lo", "up")
        self.account = Account(f"bench-{os.getpid()}-{self.name}", *self.groups())
        self.env = ENV | self.environment()
        self.spawner = Spawner(self.account, self.env)
        self.daemon: subprocess.Popen[bytes] | None = None

    def groups(self) -> tuple[str, ...]:
        """Other groups whose time is this engine's."""
        return ()

    def environment(self) -> dict[str, str]:
        """Return more of the clients' environment."""
        return {}

    def inside(self) -> list[str]:
        """Return what begins the command line of a program in the engine's network namespace."""
        return [program("nsenter") or "nsenter", f"--net=/run/netns/{self.netns}"]

    def command(self, *args: str) -> list[str]:
        """Return the command line of a client."""
        raise AssertionError(self.name)

    def ask(self, *args: str, stdin: bytes | None = None) -> str:
        """Run a client whose time does not count."""
        return call(*self.command(*args), stdin=stdin, env=self.env).strip()

    def flags(self) -> list[str]:
        """Return flags that every container gets, to be counted."""
        return [f"--cgroup-parent=/{self.account.own.name}"]

    def run(self, *flags: str) -> list[str]:
        """Return the command line of one short container."""
        return self.command("run", "--rm", *self.flags(), *flags, IMAGE, "true")

    def load(self, archive: bytes) -> None:
        """Make the image."""
        self.ask("import", "-", IMAGE, stdin=archive)

    def version(self) -> str:
        """Return the engine's version and what it stores containers with."""
        return self.ask(
            "info", "--format", "{{.ServerVersion}}, {{.Driver}}, cgroup {{.CgroupDriver}}"
        )

    def keeper(self, container_id: str) -> list[int]:
        """Return the processes that an idle container costs besides its own."""
        raise AssertionError(self.name)

    def close(self) -> None:
        """End the engine."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        # conmon and podman's cleaning up end a little after the last container.
        end = time.monotonic() + GONE_S
        while self.account.processes() and time.monotonic() < end:
            time.sleep(0.05)
        remove_groups(self.account.own.name)
        with contextlib.suppress(RuntimeError):
            call("ip", "netns", "delete", self.netns)


class Daemon(Engine):
    """An engine that is asked through a unix socket by the docker CLI."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.socket = self.base / "socket"
        self.docker = program("docker") or ""
        self.start()

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        raise AssertionError(self.name)

    def command(self, *args: str) -> list[str]:
        return [self.docker, "-H", f"unix://{self.socket}", *args]


class Berth(Daemon):
    """`berth serve`."""

    name = "berth"

    def groups(self) -> tuple[str, ...]:
        from berth.engine.instance import Instance

        self.instance = Instance.of(self.base / "data")
        return (self.instance.cgroup,)

    def flags(self) -> list[str]:
        return []

    def start(self) -> None:
        ready, told = os.pipe()
        self.daemon = self.account.start(
            [
                *self.inside(),
                *(sys.executable, "-m", "berth", "serve", "-H", f"unix://{self.socket}"),
                *("--data-root", str(self.base / "data"), "--exec-root", str(self.base / "exec")),
                *("--ready-fd", str(told)),
            ],
            env={**ENV, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
            stderr=(self.base / "log").open("wb"),
            pass_fds=(told,),
        )
        os.close(told)
        with open(ready, "rb") as pipe:
            if not pipe.read(1):
                raise RuntimeError((self.base / "log").read_text())

    def keeper(self, container_id: str) -> list[int]:
        pid = self.ask("inspect", "-f", "{{.State.Pid}}", container_id)
        return [parent(int(pid))]

    def close(self) -> None:
        super().close()
        remove_groups(self.instance.cgroup)


class BerthCli(Engine):
    """berth's own command line on the engine of :class:`Berth`."""

    name = "berth-cli"

    def __init__(self, base: Path, engine: Berth) -> None:
        self._engine = engine
        super().__init__(base)
        installed = Path(sys.executable).with_name("berth")
        self._berth = [str(installed)] if installed.exists() else [sys.executable, "-m", "berth"]

    def groups(self) -> tuple[str, ...]:
        return (self._engine.instance.cgroup, self._engine.account.own.name)

    def command(self, *args: str) -> list[str]:
        return [*self._berth, "-H", f"unix://{self._engine.socket}", *args]

    def flags(self) -> list[str]:
        return []


class Dockerd(Daemon):
    """Debian's dockerd, with a containerd of its own."""

    name = "dockerd"

    def start(self) -> None:
        log = (self.base / "log").open("wb")
        self.daemon = self.account.start(
            [
                *(*self.inside(), program("dockerd") or "dockerd"),
                *("-H", f"unix://{self.socket}", "--data-root", str(self.base / "data")),
                *("--exec-root", str(self.base / "exec"), "--pidfile", str(self.base / "pid")),
                *("--userland-proxy=true", "--log-level=warn"),
            ],
            env=ENV,
            stdout=log,
            stderr=log,
        )
        wait_until_answers(self.command("version"), self.daemon, self.base / "log")

    def keeper(self, container_id: str) -> list[int]:
        pid = self.ask("inspect", "-f", "{{.State.Pid}}", container_id)
        return [parent(int(pid))]

    def close(self) -> None:
        super().close()
        unmount_below(self.base)


class Podman(Engine):
    """podman, which has no daemon."""

    name = "podman"

    def environment(self) -> dict[str, str]:
        configuration = self.base / "containers.conf"
        configuration.write_text(PODMAN_CONFIGURATION.format(base=self.base))
        return {"CONTAINERS_CONF": str(configuration)}

    def command(self, *args: str) -> list[str]:
        return [
            *self.inside(),
            *(program("podman") or "podman", "--root", str(self.base / "root")),
            *("--runroot", str(self.base / "run"), "--cgroup-manager", "cgroupfs"),
            *("--events-backend", "none", "--tmpdir", str(self.base / "tmp"), *args),
        ]

    def version(self) -> str:
        return self.ask(
            "info",
            "--format",
            "{{.Version.Version}}, {{.Store.GraphDriverName}}, {{.Host.OCIRuntime.Name}}",
        )

    def keeper(self, container_id: str) -> list[int]:
        pid = self.ask("inspect", "-f", "{{.State.ConmonPid}}", container_id)
        return [int(pid)]

    def close(self) -> None:
        super().close()
        unmount_below(self.base)


def parent(pid: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until_answers(command: list[str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    """Repeat a command until it succeeds."""
    end = time.monotonic() + START_S
    while subprocess.run(command, env=ENV, capture_output=True, check=False).returncode:
        if time.monotonic() > end or daemon.poll() is not None:
            raise RuntimeError(f"{command[0]}: no answer\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def remove_groups(name: str) -> None:
    """Remove a parent group in all hierarchies."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup"):
            for folder, _, _ in os.walk(Path(left.split()[4], name), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def unmount_below(base: Path) -> None:
    """Unmount what an engine left mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{base}/")), reverse=True):
        subprocess.run(["umount", "-l", point], env=ENV, check=False, capture_output=True)


@contextlib.contextmanager
def tmpfs():
    """A folder in memory, so that nobody measures the disk."""
    base = Path(tempfile.mkdtemp(prefix="bench-"))
    call("mount", "-t", "tmpfs", "-o", "mode=711", "bench", str(base))
    try:
        yield base
    finally:
        unmount_below(base)
        call("umount", "-l", str(base))
        base.rmdir()
