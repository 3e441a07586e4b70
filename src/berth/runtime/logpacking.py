"""Packing a log file that is no longer written, in a process of its own: no output waits for it."""

from __future__ import annotations

import os

from berth.kernel import processes
from berth.runtime import imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

HALF = ".packing"
CHUNK_BYTES = 1 << 16
LEVEL = 1  # as fast as it gets: text becomes a tenth anyway


def start(path: str, packed: str) -> int | None:
    """Begin to replace ``path`` by ``packed``; return a descriptor that ends when it is done.

    The packed file has the inode's number as its name inside, by which readers know the file again.
    """
    done, working = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError:  # it stays as it is
        child = -1
    if child == 0:
        try:  # once more: nobody is to wait for the one that works
            if os.fork() == 0:
                _pack_and_leave(path, packed, working)
        finally:
            os._exit(0)
    os.close(working)
    if child > 0:
        os.waitpid(child, 0)
    return done


def _pack_and_leave(path: str, packed: str, working: int) -> None:
    code = 1
    try:
        os.nice(10)
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        half = os.open(path + HALF, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        os.dup2(source, 0)
        os.dup2(half, 1)
        os.dup2(working, 2)
        zlib = imports.from_host("zlib")
        # Nothing of the monitor's: an open pipe here would be an open pipe for the container.
        processes.close_from(3)
        _pack(zlib, 0, 1)
        os.replace(path + HALF, packed)
        os.unlink(path)
        code = 0
    finally:
        os._exit(code)


def _pack(zlib: ModuleType, source: int, target: int) -> None:
    number = os.fstat(source).st_ino
    head = b"\x1f\x8b\x08\x08" + bytes(4) + b"\x04\x03" + b"%d\0" % number  # RFC 1952, with a name
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    checksum, size = 0, 0
    _write(target, head)
    while data := os.read(source, CHUNK_BYTES):
        checksum, size = zlib.crc32(data, checksum), size + len(data)
        _write(target, packer.compress(data))
    end = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    _write(target, packer.flush() + end)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
