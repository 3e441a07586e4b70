"""Image archives by hand, and what an engine's store has."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from support.engine import EngineProcess


def layer(entries: list[tuple[str, bytes | None, dict[str, object]]]) -> bytes:
    """Return a tar: None as content makes a directory; the dictionary sets fields of its entry."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, fields in entries:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.mode = 0o755 if content is None else 0o644
            entry.size = len(content or b"")
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(content or b""))
    return body.getvalue()


def docker_archive(parts: list[bytes], tag: str) -> bytes:
    """Return what `docker save` writes, by hand."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": {"Env": ["PATH=/bin", "MADE=by-hand"], "Cmd": ["sh"], "WorkingDir": "/work"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(part).hexdigest()}" for part in parts],
            },
            "history": [{"created_by": f"layer {i}"} for i, _ in enumerate(parts)],
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [
        {
            "Config": name,
            "RepoTags": [tag],
            "Layers": [f"{i}/layer.tar" for i, _ in enumerate(parts)],
        }
    ]
    files: list[tuple[str, bytes | None, dict[str, object]]] = [(name, config, {})]
    files += [(f"{i}/layer.tar", part, {}) for i, part in enumerate(parts)]
    files.append(("manifest.json", json.dumps(manifest).encode(), {}))
    return layer(files)


def blobs_of(engine: EngineProcess) -> set[str]:
    """Return the names of the blobs in an engine's store."""
    return {path.name for path in (engine.data_root / "content/blobs/sha256").iterdir()}


def layers_of(engine: EngineProcess) -> set[str]:
    """Return the directories of layers and containers in an engine's store, but those being deleted."""
    names = {path.name for path in (engine.data_root / "snapshots").iterdir()}
    return {name for name in names if not name.startswith("removed-")}


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder that may change meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total
