"""OCI runtimes beside each other: one bundle, `run` as a cold process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import berth
from bench.engines import call, program

if TYPE_CHECKING:
    from bench.measure import Bench

SCRIPT = Path(__file__).parents[1] / "scripts" / "berth-oci"
RIVALS = ("runc", "crun")
COUNT = "import sys; sys.path.append({path!r}); import berth.oci_cli.main, berth.oci_cli.lives as l"
PRINT = "; print(len(sys.modules), *sorted(m for m in sys.modules if m.startswith('berth.')))"


def runtimes(bench: Bench) -> None:
    """`run` of `true` in the namespaces, mounts, masks and groups of `runc spec`."""
    ours = _install(bench.base / "prefix")
    found = {"berth-oci": str(ours), **{name: program(name) for name in RIVALS}}
    bundle = _bundle(bench.base / "bundle", found["runc"] or str(ours))
    spawner = bench.berth.spawner
    commands = {
        name: [
            path,
            "--root",
            str(bench.base / f"state-{name}"),
            "run",
            "--bundle",
            str(bundle),
            f"bench-{name}",
        ]
        for name, path in found.items()
        if path
    }
    measures = {
        name: lambda command=command: spawner.cost(command)
        for name, command in commands.items()
        if name == "berth-oci" or _runs_here(command)
    }
    bench.compare("oci run", measures, bench.rounds * 2)
    path = str(Path(berth.__file__).parents[1])
    code = COUNT.format(path=path) + PRINT
    words = call(sys.executable, "-I", "-S", "-c", code).split()
    print(f"berth-oci run imports {words[0]} modules, {len(words) - 1} of them berth's\n")


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
