"""How a layer's directory says that it hides what is below it.

In an image's archive (image-spec, layer.md) ``.wh.NAME`` hides NAME, ``.wh..wh..opq`` all there was in its
directory. Plain file systems keep layers in just that form; overlayfs has one of its own: a character device
0:0, and the attribute trusted.overlay.opaque.
"""

from __future__ import annotations

import os
import stat

WHITEOUT = ".wh."
META = ".wh..wh."  # of AUFS; only the opaque marker means something
OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARKER = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether overlayfs hides what is below such a file."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_opaque(parent: int, leaf: str) -> None:
    """Make overlayfs show nothing from below the directory ``leaf``."""
    fd = os.open(leaf, _DIRECTORY, dir_fd=parent)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)


def is_opaque(fd: int) -> bool:
    """Say whether overlayfs shows nothing from below a directory of an upper layer."""
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False


def make_marker(parent: int, leaf: str) -> None:
    """Make the plain file ``leaf``, whose name says it all; it is the same whenever it is made."""
    os.close(os.open(leaf, _MARKER, 0, dir_fd=parent))
    os.utime(leaf, ns=(0, 0), dir_fd=parent, follow_symlinks=False)
