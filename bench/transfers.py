"""Images on their way: load, save, push, rmi and pull, each engine with a registry of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import image
from bench.engines import ENV, Berth, BerthCli, Podman, call, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.accounts import Cost
    from bench.engines import Engine
    from bench.measure import Bench

FEW = 3  # rounds of what takes seconds
VERBS = ("load", "save", "push", "rmi", "pull")
CACHE = Path(tempfile.gettempdir(), "berth-bench-cache")
MB = 1e6
KIB = 1024
CONFIG = """
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, cache: {{blobdescriptor: inmemory}}}}
http: {{addr: "127.0.0.1:0"}}
"""


def transfers(bench: Bench) -> None:
    """Move images in and out, cold each time, and see how much memory berthd takes meanwhile."""
    if program("docker-registry") is None:
        print("without images in registries: docker-registry is not installed", file=sys.stderr)
        return
    engines = [e for e in bench.engines if not isinstance(e, BerthCli)]
    for title, make in _images(quick=bench.quick):
        source = bench.base / "image.tar"
        make(source)
        _reset_peak(bench.berth)
        _measure(bench, engines, title, source)
        peak = _peak_mb(bench.berth)
        bench.megabytes.setdefault("berth", {})[f"peak with {title}"] = peak
        print(f"memory, berth      peak with {title:40} {peak:8.2f} MB", flush=True)
        source.unlink()


def _measure(bench: Bench, engines: list[Engine], title: str, source: Path) -> None:
    found: dict[str, dict[str, list[Cost]]] = {verb: {} for verb in VERBS}
    for number in range(min(FEW, bench.rounds) + 1):
        for engine in engines:
            with _registry(engine, bench.base) as host:
                costs = _tour(engine, source, f"{host}/bench:1")
            if number:  # the first warms up
                for verb, cost in costs.items():
                    found[verb].setdefault(engine.name, []).append(cost)
    for verb in VERBS:
        bench.add(f"{verb} {title}", found[verb])


def _tour(engine: Engine, source: Path, name: str) -> dict[str, Cost]:
    """Measure every verb once; nothing is left in the engine."""
    plain = ["--tls-verify=false"] if isinstance(engine, Podman) else []
    target = source.with_name(f"{engine.name}.tar")
    costs: dict[str, Cost] = {}

    def measured(verb: str, *args: str) -> None:
        engine.account.settled_s()
        costs[verb] = engine.spawner.cost(engine.command(*args))

    try:
        measured("load", "load", "-i", str(source))
        measured("save", "save", "-o", str(target), "bench:load")
        engine.ask("tag", "bench:load", name)
        measured("push", "push", *plain, name)
        engine.ask("rmi", name)
        measured("rmi", "rmi", "bench:load")
        engine.ask("image", "prune", "-f")
        measured("pull", "pull", *plain, name)
    finally:
        target.unlink(missing_ok=True)
        for left in (name, "bench:load"):
            with contextlib.suppress(RuntimeError):
                engine.ask("rmi", "-f", left)
        engine.ask("image", "prune", "-f")
    return costs


@contextlib.contextmanager
def _registry(engine: Engine, base: Path) -> Iterator[str]:
    """An empty registry on the loopback of the engine's network."""
    folder = base / "registry"
    folder.mkdir()
    (folder / "config.yml").write_text(CONFIG.format(root=folder / "store"))
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                *engine.inside(),
                program("docker-registry") or "",
                "serve",
                str(folder / "config.yml"),
            ],
            env=ENV,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        while not (found := re.search(r"listening on ([0-9.:]+)", log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.01)
        yield found[1]
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


# Memory


def _reset_peak(engine: Berth) -> None:
    assert engine.daemon is not None
    Path(f"/proc/{engine.daemon.pid}/clear_refs").write_text("5")


def _peak_mb(engine: Berth) -> float:
    assert engine.daemon is not None
    for line in Path(f"/proc/{engine.daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB / MB
    raise AssertionError("a process without a peak")


# What is moved


def _images(*, quick: bool) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield titles, and what writes such an image's archive."""
    if quick:
        yield "30 small files", lambda path: _write(path, [_small(30)])
        return
    if program("mmdebstrap"):
        yield "a Debian with python3", lambda path: _write(path, [_debian()])
    else:
        print("without a Debian: mmdebstrap is not installed", file=sys.stderr)
    yield "20,000 small files", lambda path: _write(path, [_small(20_000)])
    yield "a layer of 1 GB", lambda path: _write(path, [_large(1 << 30)])
    yield "60 layers", lambda path: _write(path, [_small(30, str(n)) for n in range(60)])


def _debian() -> Path:
    """Return a Debian's root file system; made once, from Debian's servers."""
    made = CACHE / "debian-python3.tar"
    if not made.exists():
        CACHE.mkdir(exist_ok=True)
        half = made.with_suffix(".half.tar")
        options = ("--variant=important", "--include=python3", "--quiet")
        call(program("mmdebstrap") or "", *options, "bookworm", str(half))
        half.rename(made)
    return made


def _temporary() -> Path:
    with tempfile.NamedTemporaryFile(prefix="bench-layer-", delete=False) as file:
        return Path(file.name)


def _small(count: int, name: str = "") -> Path:
    """Write a layer of small files in folders of a hundred."""
    path = _temporary()
    numbers = random.Random(f"small {name}")
    with tarfile.open(path, "w") as layer:
        for number in range(count):
            data = (f"line of file {number}\n" * numbers.randrange(1, 300)).encode()
            image.add(layer, f"small{name}/{number // 100}/{number}", data)
    return path


def _large(size: int) -> Path:
    """Write a layer of one file, half of it text."""
    path = _temporary()
    numbers = random.Random("large")
    with tarfile.open(path, "w") as layer:
        entry = tarfile.TarInfo("large")
        entry.size = size
        layer.addfile(entry, _Mixed(numbers, size))
    return path


class _Mixed(io.RawIOBase):
    """Noise and text in turn, a mebibyte each."""

    def __init__(self, numbers: random.Random, size: int) -> None:
        self._numbers, self._left, self._noisy = numbers, size, False
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._pending) < min(size, self._left):
            self._noisy = not self._noisy
            noise = self._numbers.randbytes(1 << 20)
            self._pending += noise if self._noisy else (noise[:64].hex().encode() * (1 << 13))
        data, self._pending = self._pending[:size], self._pending[size:]
        self._left -= len(data)
        return data


def _write(path: Path, layers: list[Path]) -> None:
    """Write what `docker save` writes for an image of these layers, which go unless they are kept."""
    with tarfile.open(path, "w") as saved:
        names = image.begin(saved, [_digest(layer) for layer in layers], "bench:load")
        for name, layer in zip(names, layers, strict=True):
            saved.add(layer, name)
            if layer.parent != CACHE:
                layer.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
