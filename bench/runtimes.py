"""OCI runtimes beside each other: one bundle, `run` as a cold process, and by berth-oci's zygote."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import berth
from bench.accounts import Spawner
from bench.engines import call, program
from berth.oci_cli import asking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Bench, Measure

SCRIPT = Path(__file__).parents[1] / "scripts" / "berth-oci"
RIVALS = ("runc", "crun")
VIA = "via-zygote"
SOCKET = "zygote.sock"
PAUSE_S = 0.01
VARIABLE = "BERTH_OCI_ZYGOTE"
# What a call imports: the command's own modules, or the one that asks the zygote.
PATHS = {
    "berth-oci run": "berth.oci_cli.start, berth.oci_cli.main, berth.oci_cli.lives",
    "its deputy": "berth.bundle.deputy",
    "the caller of a zygote": "berth.oci_cli.start, berth.oci_cli.asking",
}
COUNT = (
    "import sys; before = len(sys.modules); sys.path.append({path!r}); import {modules};"
    " own = sum(name.partition('.')[0] == 'berth' for name in sys.modules);"
    " print(len(sys.modules) - before, own)"
)


def runtimes(bench: Bench) -> None:
    """`run` of `true` in the namespaces, mounts, masks and groups of `runc spec`."""
    ours = _install(bench.base / "prefix")
    found = {"berth-oci": str(ours), **{name: program(name) for name in RIVALS}}
    bundle = _bundle(bench.base / "bundle", found["runc"] or str(ours))

    def command(name: str, path: str) -> list[str]:
        state = str(bench.base / f"state-{name}")
        return [path, "--root", state, "run", "--bundle", str(bundle), f"bench-{name}"]

    cold = Spawner(bench.berth.account, {**bench.berth.env, VARIABLE: ""})
    commands = {name: command(name, path) for name, path in found.items() if path}
    measures: dict[str, Measure] = {
        name: lambda words=words: cold.cost(words)
        for name, words in commands.items()
        if name == "berth-oci" or _runs_here(words)
    }
    with _zygote(bench, ours) as served:
        words = command(VIA, str(ours))
        measures[VIA] = lambda: served.cost(words)
        path = os.fsencode(bench.base / SOCKET)
        measures["zygote"] = lambda: served.cost_of(lambda: _hand_over(path, words[1:]))
        bench.compare("oci run", measures, bench.rounds * 2)
    library = str(Path(berth.__file__).parents[1])
    for what, modules in PATHS.items():
        code = COUNT.format(path=library, modules=modules)
        counted = call(sys.executable, "-I", "-S", "-c", code)
        every, own = counted.split()
        print(f"{what} imports {every} modules, {own} of them berth's")
    print()


def _hand_over(path: bytes, arguments: list[str]) -> int:
    """Be the zygote's caller without being a command; return the exit code."""
    zygote = asking.hand_over(path, arguments)
    if zygote is None:
        return 1
    with contextlib.closing(zygote):
        while answer := zygote.recv(asking.MAX_ANSWER_BYTES):
            if answer[:1] == asking.EXITED:
                return int(answer[1:])
            if answer == asking.STARTING:
                zygote.send(asking.READY)
    return 1


@contextlib.contextmanager
def _zygote(bench: Bench, ours: Path) -> Iterator[Spawner]:
    """Run `berth-oci zygote` on berth's account; yield what starts its callers."""
    path = bench.base / SOCKET
    environment = {**bench.berth.env, VARIABLE: str(path)}
    spawner = Spawner(bench.berth.account, environment)
    with spawner:
        process = subprocess.Popen([ours, "zygote"], env=environment, stdin=subprocess.DEVNULL)
    try:
        while not path.exists():
            if process.poll() is not None:
                raise RuntimeError("berth-oci zygote has ended")
            time.sleep(PAUSE_S)
        yield spawner
    finally:
        process.terminate()
        process.wait()


def _runs_here(command: list[str]) -> bool:
    """Say whether a rival can: crun refuses hosts with both versions of cgroups."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        print(f"{command[0]} takes no part: {done.stderr.decode().strip()[-200:]}")
    return done.returncode == 0


def _install(prefix: Path) -> Path:
    """Lay out ``prefix`` as an editable installation does; return the command."""
    library = prefix / f"lib/python{sysconfig.get_python_version()}/site-packages"
    library.mkdir(parents=True)
    (library / "_editable_impl_berth.pth").write_text(str(Path(berth.__file__).parents[1]))
    (prefix / "bin").mkdir()
    (prefix / "bin/python3").symlink_to(sys.executable)
    return Path(shutil.copy(SCRIPT, prefix / "bin/berth-oci"))


def _bundle(path: Path, runtime: str) -> Path:
    folder = path / "rootfs/bin"
    folder.mkdir(parents=True)
    shutil.copy(program("busybox") or "", folder / "busybox")
    (folder / "true").symlink_to("busybox")
    for name in ("proc", "sys", "dev"):
        (path / "rootfs" / name).mkdir()
    subprocess.run([runtime, "spec"], cwd=path, check=True)
    spec = json.loads((path / "config.json").read_text())
    spec["process"].update(terminal=False, args=["true"])
    (path / "config.json").write_text(json.dumps(spec))
    return path
