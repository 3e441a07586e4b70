"""The images: one static busybox with lines to print, and a docker archive of given layers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from bench.engines import program

APPLETS = ("sh", "true", "sleep", "cat", "echo")
LINES, LINES_MIB = "/lines", 4


def busybox() -> bytes:
    """Return a root file system as a tar archive."""
    found = program("busybox")
    if found is None:
        raise SystemExit("bench: needs busybox-static")
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.add(Path(found).resolve(), "bin/busybox")
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        add(archive, LINES.lstrip("/"), _lines())
    return body.getvalue()


def _lines() -> bytes:
    """Return lines of about a hundred bytes, as programs write them."""
    said = "2026-01-01T00:00:00Z INFO request {0}: GET /items/{0} 200 in 12 ms, by curl/8.1 from 10.0.0.7\n"
    lines = [said.format(number) for number in range((LINES_MIB << 20) // len(said))]
    return "".join(lines).encode()


def archive(layers: list[bytes], name: str) -> bytes:
    """Return what `docker save` writes for an image of these layers."""
    body = io.BytesIO()
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    with tarfile.open(fileobj=body, mode="w") as saved:
        for file, layer in zip(begin(saved, digests, name), layers, strict=True):
            add(saved, file, layer)
    return body.getvalue()


def begin(saved: tarfile.TarFile, digests: list[str], name: str) -> list[str]:
    """Write what an archive has besides layers; return the names that those are to have in it."""
    configuration = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
        }
    ).encode()
    file = f"{hashlib.sha256(configuration).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = [{"Config": file, "RepoTags": [name], "Layers": names}]
    add(saved, "manifest.json", json.dumps(manifest).encode())
    add(saved, file, configuration)
    return names


def add(saved: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to an archive."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    saved.addfile(entry, io.BytesIO(data))
