"""Unpacking archives in a worker that is confined to the target directory.

The job ``berth.images.unpack:unpack`` gets the archive's and the directory's descriptors. Whatever the
archive says, nothing outside the directory can be reached: it is the process's root by then.
Layers' whiteouts (image-spec, layer.md) become overlayfs's.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import sys
import tarfile
import zlib
from typing import TYPE_CHECKING, Protocol

from berth.errors import InvalidArgument
from berth.runtime.worker import confine

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SYS_ADMIN",  # trusted.overlay.opaque
)
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
XATTR_HEADER = "SCHILY.xattr."
CHUNK_BYTES = 1 << 20
MAX_MEMBERS = 5_000_000


class Readable(Protocol):
    """What decompressors give."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, empty at the end."""
        ...


class Digesting:
    """A stream that hashes and counts what is read from it."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.hash = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read from the source."""
        data = self._source.read(size)
        self.hash.update(data)
        self.size_bytes += len(data)
        return data


def decompress(fd: int) -> Readable:
    """Open the archive ``fd``, plain or compressed, told by its first bytes."""
    file = open(fd, "rb", closefd=False)  # noqa: SIM115 - a descriptor, the caller's
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.ZstdFile(file)
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(file)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return file


def unpack(
    argument: dict[str, object],
    fds: list[int],
    report: Callable[[Mapping[str, object]], None],
) -> Mapping[str, object]:
    """Unpack descriptor 0 of ``fds`` into the directory that is descriptor 1.

    Argument: ``layer`` (whiteouts mean something). Returns ``diff_id`` and ``size`` of the plain tar.
    """
    del report
    archive, directory = fds
    stream = Digesting(decompress(archive))
    os.umask(0)
    confine(directory, keep_capabilities=CAPABILITIES)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as tar:  # type: ignore[call-overload]  # read is all it calls
            _extract_all(tar, layer=bool(argument.get("layer")))
        while stream.read(CHUNK_BYTES):
            pass
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, zstd.ZstdError) as error:
        raise InvalidArgument(f"unpack archive: {str(error) or 'unexpected end'}") from error
    except gzip.BadGzipFile as error:
        raise InvalidArgument(f"unpack archive: {error}") from error
    return {"diff_id": f"sha256:{stream.hash.hexdigest()}", "size": stream.size_bytes}


def _extract_all(tar: tarfile.TarFile, *, layer: bool) -> None:
    directories: list[tuple[str, tarfile.TarInfo]] = []
    seen: set[str] = set()
    for count, member in enumerate(tar):
        if count > MAX_MEMBERS:
            raise InvalidArgument(f"unpack archive: more than {MAX_MEMBERS} entries")
        path = "/" + os.path.normpath("/" + member.name).lstrip("/")
        folder, name = os.path.split(path)
        _ensure_parent(folder)
        if layer and name.startswith(WHITEOUT):
            _white_out(folder, name, seen)
            continue
        seen.add(path)
        _extract(tar, member, path)
        if member.isdir():
            directories.append((path, member))
    # Their times last: every file made inside changed them.
    for path, member in reversed(directories):
        os.utime(path, ns=(_mtime_ns(member),) * 2)


def _ensure_parent(folder: str) -> None:
    if not os.path.isdir(folder):
        if os.path.lexists(folder):
            os.unlink(folder)
        os.makedirs(folder, mode=0o755, exist_ok=True)


def _white_out(folder: str, name: str, seen: set[str]) -> None:
    if name == OPAQUE:
        os.setxattr(folder, OPAQUE_XATTR, b"y")
        return
    hidden = os.path.join(folder, name.removeprefix(WHITEOUT))
    # A whiteout hides lower layers only; what this layer itself has stays.
    if hidden not in seen and not os.path.lexists(hidden):
        os.mknod(hidden, stat.S_IFCHR, 0)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    _clear(path, member)
    if member.islnk():
        os.link(
            "/" + os.path.normpath("/" + member.linkname).lstrip("/"), path, follow_symlinks=False
        )
        return
    if member.isdir():
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
    elif member.isreg():
        _write_file(tar, member, path)
    elif member.issym():
        os.symlink(member.linkname, path)
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))
    elif member.isfifo():
        os.mkfifo(path, 0o600)
    else:
        raise InvalidArgument(f"unpack archive: {member.name!r} has unknown type {member.type!r}")
    _set_attributes(member, path)


def _clear(path: str, member: tarfile.TarInfo) -> None:
    """Make room for ``member``: a later entry replaces an earlier one."""
    if path == "/" or not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.path.islink(path):
        if not member.isdir():
            os.rmdir(path)
        return
    os.unlink(path)


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)


def _set_attributes(member: tarfile.TarInfo, path: str) -> None:
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(path, member.mode & 0o7777)
    for header, value in member.pax_headers.items():
        if header.startswith(XATTR_HEADER):
            name = header.removeprefix(XATTR_HEADER)
            if name.startswith(("user.", "security.capability")):
                data = value.encode("utf-8", "surrogateescape")
                os.setxattr(path, name, data, follow_symlinks=False)
    if not member.isdir():
        os.utime(path, ns=(_mtime_ns(member),) * 2, follow_symlinks=False)


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the time in full: tarfile's float loses nanoseconds."""
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 1_000_000_000
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])
