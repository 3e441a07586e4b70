"""An initramfs for a test machine: busybox, kernel modules in the order of loading, and an init script."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
HEADER_FIELDS = 13


def modules(kernel: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the files of modules and of all that they depend on, each after what it needs."""
    files = {path.stem.replace("-", "_"): path for path in (kernel / "lib/modules").rglob("*.ko")}
    order: list[Path] = []

    def visit(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:  # None: built in
            return
        found = DEPENDS.search(path.read_bytes())
        for needed in found.group(1).decode().split(",") if found else ():
            if needed:
                visit(needed)
        order.append(path)

    for name in names:
        visit(name)
    return order


def build(target: Path, *, busybox: Path, loaded: list[Path], init: str) -> None:
    """Write the archive (cpio's newc form, which the kernel unpacks)."""
    archive = _Archive()
    for folder in ("bin", "dev", "proc", "sys", "root", "lower", "upper", "modules"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    for number, path in enumerate(loaded):
        archive.add(f"modules/{number:03}-{path.name}", stat.S_IFREG | 0o644, path.read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, init.encode())
    half = target.with_suffix(".half")
    half.write_bytes(archive.finish())
    half.rename(target)


class _Archive:
    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        self._count += 1
        path = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
        assert len(fields) == HEADER_FIELDS
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)
