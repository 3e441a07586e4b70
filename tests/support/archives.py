"""Image archives by hand, and what an engine's store has."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.engine import EngineProcess


OCI = "application/vnd.oci.image"


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


def oci_archive(
    parts: list[bytes],
    name: str,
    media_types: Sequence[str] = (),
    *,
    plain: Sequence[bytes] = (),
    spaces: bool = False,
) -> bytes:
    """Return an OCI layout as a tar, of an image of layers in gzip or as ``media_types`` says.

    ``plain`` are the layers uncompressed, where that is not known. ``spaces``: its documents are written
    as no engine would, with members that nobody knows.
    """
    kinds = list(media_types) or [f"{OCI}.layer.v1.tar+gzip"] * len(parts)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id(part) for part in plain or parts]},
    }
    odd: dict[str, object] = {"x-unknown": [1, {"a": None}], "annotations": {"k": "v"}}
    indent = 3 if spaces else None
    config |= odd if spaces else {}
    blobs = dict(map(_blob, (json.dumps(config, indent=indent).encode(), *parts)))
    digests = list(blobs)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _descriptor(digests[0], blobs, f"{OCI}.config.v1+json"),
        "layers": [
            _descriptor(_blob(part)[0], blobs, kind)
            for part, kind in zip(parts, kinds, strict=True)
        ],
    }
    manifest |= odd if spaces else {}
    digest, data = _blob(json.dumps(manifest, indent=indent).encode())
    blobs[digest] = data
    top = _descriptor(digest, blobs, f"{OCI}.manifest.v1+json")
    top["annotations"] = {"io.containerd.image.name": name}
    files: list[tuple[str, bytes | None, dict[str, object]]] = [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}', {}),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode(), {}),
        *((f"blobs/sha256/{digest[7:]}", data, {}) for digest, data in blobs.items()),
    ]
    return layer(files)


def diff_id(part: bytes) -> str:
    """Return the digest of a layer's plain bytes."""
    plain = gzip.decompress(part) if part[:2] == b"\x1f\x8b" else part
    return f"sha256:{hashlib.sha256(plain).hexdigest()}"


def _blob(data: bytes) -> tuple[str, bytes]:
    return f"sha256:{hashlib.sha256(data).hexdigest()}", data


def _descriptor(digest: str, blobs: dict[str, bytes], kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": len(blobs[digest])}


def blobs_of(engine: EngineProcess) -> set[str]:
    """Return the names of the blobs in an engine's store."""
    return {path.name for path in (engine.data_root / "content/blobs/sha256").iterdir()}


def layers_of(engine: EngineProcess) -> set[str]:
    """Return the directories of layers and containers in an engine's store, but those being deleted.

    The layer that marks containers is every image's, and stays.
    """
    found = set()
    for path in (engine.data_root / "snapshots").iterdir():
        mark = path / "fs" / ".dockerenv"
        if not path.name.startswith("removed-") and not mark.exists():
            found.add(path.name)
    return found


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder that may change meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total
