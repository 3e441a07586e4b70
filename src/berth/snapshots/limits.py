"""How much containers may write, and into volumes: a project with a quota for each, where there are some.

The number of a project is in its directory, where a later engine finds it; it is given up with the directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from berth.errors import Failed
from berth.kernel import quotas

if TYPE_CHECKING:
    from pathlib import Path

REMEDY = "have the data root on xfs, mounted with pquota, or on ext4 with prjquota, and Linux 5.14"
FIRST, COUNT = 1 << 20, 1 << 30  # below are people's own


def _draw() -> int:
    return FIRST + int.from_bytes(os.urandom(4), "big") % COUNT


class Limits:
    """The quotas of one file system."""

    def __init__(self, base: Path) -> None:
        self._base = str(base)
        with quotas.open_directory(self._base) as fd:
            self.are_possible = quotas.enforces_projects(fd)

    def set(self, folder: Path, size_bytes: int) -> None:
        """Limit what is made below a new directory. Other engines may have projects here, too."""
        try:
            with quotas.open_directory(self._base) as fd:
                while quotas.is_used(fd, project := _draw()):
                    pass
                quotas.set_project(str(folder), project)
                quotas.limit(fd, project, size_bytes)
        except OSError as error:
            raise Failed(f"limit a size to {size_bytes} bytes: {error.strerror}") from error

    def project_of(self, folder: Path) -> int:
        """Return the project of a directory, 0 for none."""
        try:
            return quotas.project_of(str(folder)) if self.are_possible else 0
        except OSError:  # not ours
            return 0

    def give_up(self, project: int) -> None:
        """Take the limit from a project; nothing for 0."""
        if project >= FIRST:
            with quotas.open_directory(self._base) as fd:
                quotas.limit(fd, project, 0)
