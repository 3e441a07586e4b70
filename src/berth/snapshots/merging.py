"""The directories of layers made one tree: a job confined to the directory that has them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from berth.errors import Failed
from berth.runtime import fileattributes
from berth.runtime.treecopy import DIRECTORY, TreeCopy, make_link, remove
from berth.runtime.worker import FILE_CAPABILITIES, confine
from berth.snapshots.whiteouts import META, OPAQUE, WHITEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from berth.runtime.treecopy import Place

    Report = Callable[[Mapping[str, object]], None]

# To read what its owner may not, and for trusted.* attributes.
CAPABILITIES = (*FILE_CAPABILITIES, "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")
# What file systems say that have no hard links, or not so many of one file.
UNLINKABLE = (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)


def merge(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Make the new directory ``target`` what ``layers`` are together, the lowest first.

    All are paths below ``fds[0]``. With ``link`` files are hard links of the layers', which nobody may change
    then; else they are copies.
    """
    del report
    target, layers = str(argument["target"]), argument["layers"]
    assert isinstance(layers, list)
    os.umask(0)
    confine(fds[0], keep_capabilities=CAPABILITIES)
    os.mkdir(f"/{target}", 0o700)
    root = os.open(f"/{target}", DIRECTORY)
    for layer in layers:
        Merge(os.open(f"/{layer}", DIRECTORY), root, link=bool(argument["link"])).run()
    return {}


class Merge(TreeCopy):
    """One layer, and the tree that it comes into."""

    def __init__(self, layer: int, root: int, *, link: bool) -> None:
        super().__init__(layer, root)
        self._link = link

    def run(self) -> None:
        """Do all of it. Failed names what could not be made."""
        try:
            self.whole()
        except OSError as error:
            what = os.strerror(error.errno or 0).lower()
            raise Failed(f"copy layer: in {self.at[:200]!r}: {what}") from error

    def names(self, source: int, target: int, path: str) -> list[str]:
        """Remove what the layer hides; return what it has."""
        del path
        names = os.listdir(source)
        if OPAQUE in names:
            for name in os.listdir(target):
                remove(target, name)
        for name in names:
            if name.startswith(WHITEOUT) and not name.startswith(META):
                remove(target, name.removeprefix(WHITEOUT))
        return [name for name in names if not name.startswith(WHITEOUT)]

    def liken(self, source: int, target: int) -> None:
        """Make a directory what it is in the layer, whatever it was in those below."""
        fileattributes.copy_all(source, target)

    def entry(self, source: Place, target: Place, status: os.stat_result, into: str) -> None:
        """Link or copy what is no directory."""
        if self._link:
            try:
                make_link(source, target)
            except OSError as error:
                if error.errno not in UNLINKABLE:
                    raise
            else:
                return
        super().entry(source, target, status, into)
