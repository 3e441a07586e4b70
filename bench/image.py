"""The image of all runs: one static busybox."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from bench.engines import program

APPLETS = ("sh", "true", "sleep", "cat", "echo")


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
    return body.getvalue()
