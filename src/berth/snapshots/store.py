"""Snapshots of one engine: the layers of images, and what containers write on top of them.

Directories have short numeric names, for all of a container's layers must fit into mount options. A layer
is filled under another name and renamed when it is whole. A removal is a rename first,
so it is quick and never half done; what was renamed is deleted afterwards, or when the engine starts again.
What a container's directory has in it is the driver's (:mod:`berth.snapshots.driver`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from berth.errors import BerthError, Failed, NotFound, Unsupported
from berth.runtime.fileattributes import Facts, give_name
from berth.runtime.removal import remove_tree
from berth.snapshots.driver import SnapshotRecord, is_layer
from berth.snapshots.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from berth.runtime.requests import Rootfs
    from berth.snapshots.driver import Driver
    from berth.state import State

log = logging.getLogger("berth")

REMOVED_PREFIX = "removed-"
PARTIAL_PREFIX = "partial-"
# The lower of an image without layers: a container needs one.
EMPTY = "empty"
# On top of every image: the file by which programs know that they are in a container.
MARK, MARK_FILE = "mark", ".dockerenv"
CONCURRENT_REMOVALS = 2


class Snapshots:
    """Layers, containers' roots and views of images, by their keys."""

    def __init__(self, *, state: State, base: Path, driver: Driver) -> None:
        self.base = base
        self.driver = driver
        self._table = state.table("snapshots", SnapshotRecord)
        self._records = dict(self._table.items())
        self._last = max((record.number for record in self._records.values()), default=0)
        self.limits = Limits(base)
        self._removals = asyncio.Semaphore(CONCURRENT_REMOVALS)
        self._removing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make of what a crash left what it was to be."""
        self._clean()
        for key, record in list(self._records.items()):
            if not is_layer(record) and not self.driver.is_filled(record):
                try:
                    await self.driver.fill(record)
                except (
                    BerthError
                ) as error:  # the container does not start, and the store's check says why
                    log.warning("fill snapshot %s: %s", key, error.message)

    def _clean(self) -> None:
        """Forget what has no directory; delete what has no record. Deleting goes on in the background."""
        there = set(os.listdir(self.base))
        for key, record in list(self._records.items()):
            if str(record.number) not in there:
                del self._records[key]
                self._table.remove(key)
        known = {str(record.number) for record in self._records.values()}
        for name in there - known:
            self._delete_later(name)

    def has(self, key: str) -> bool:
        """Say whether there is a snapshot ``key``."""
        return key in self._records

    def size(self, key: str) -> int:
        """Return the bytes in a layer's files."""
        return self._record(key).size_bytes

    # Layers

    def partial(self) -> Path:
        """Make a directory to unpack into; it becomes a layer by :meth:`commit`."""
        path = self.base / f"{PARTIAL_PREFIX}{os.urandom(8).hex()}"
        path.mkdir(mode=0o700)
        (path / "fs").mkdir()
        (path / "fs").chmod(0o755)
        return path

    def adopt(self, folder: Path) -> Path:
        """Take over a directory of this file system with a filled ``fs`` in it, as a partial one."""
        path = self.base / f"{PARTIAL_PREFIX}{os.urandom(8).hex()}"
        folder.rename(path)
        return path

    def commit(
        self,
        chain_id: str,
        partial: Path,
        *,
        parent: str | None,
        size_bytes: int = 0,
        has_root: bool = True,
    ) -> None:
        """Turn a filled partial directory into the layer ``chain_id`` on top of ``parent``.

        Without ``has_root`` its root directory becomes like the parent's.
        """
        above = self._record(parent).lower if parent else []
        if above and not has_root:
            give_name(partial / "fs", Facts((self.base / above[0]).stat()))
        self._last += 1
        number = self._last
        partial.rename(self.base / str(number))
        record = SnapshotRecord(
            number=number, lower=[f"{number}/fs", *above], size_bytes=size_bytes
        )
        self._put(chain_id, record, durable=True)

    def discard(self, partial: Path) -> None:
        """Delete a partial directory in the background; nothing when it was committed."""
        if partial.exists():
            self._rename_away(partial.name)

    def layers(self) -> list[str]:
        """Return the chain IDs of the layers there are."""
        return [key for key, record in self._records.items() if is_layer(record) and key != MARK]

    def is_layer(self, key: str) -> bool:
        """Say whether a snapshot is a layer, not a container's."""
        return is_layer(self._record(key))

    def tree(self, chain_id: str) -> str:
        """Return the directory of a layer, below ``base``."""
        return self._record(chain_id).lower[0]

    async def merge_anew(self, chain_id: str, target: str) -> str:
        """See :meth:`berth.snapshots.driver.Driver.merge_anew`."""
        return await self.driver.merge_anew(self._record(chain_id), target)

    def replace(self, kept: str, made: str) -> None:
        """Put a directory in the place of another, which goes. Both are below ``base``."""
        self._rename_away(kept)
        (self.base / made).rename(self.base / kept)

    def above(self, chain_id: str) -> list[str]:
        """Return what needs a layer's directory, the topmost first and the layer itself last."""
        tree = self.tree(chain_id)
        found = [(r.number, key) for key, r in self._records.items() if tree in r.lower]
        return [key for _, key in sorted(found, reverse=True)]

    def absent(self, key: str) -> list[str]:
        """Return the directories of a layer, or all that a container needs, that are not there."""
        record = self._records.get(key)
        if record is None:
            return []
        wanted = record.lower[:1] if is_layer(record) else self.driver.needed(record)
        return [path for path in wanted if not (self.base / path).is_dir()]

    def unused(self, wanted: Container[str]) -> list[str]:
        """Return the layers that are not ``wanted`` and carry nothing that is, topmost first."""
        needed: set[str] = set()
        found: dict[int, str] = {}
        for key, record in self._records.items():
            if is_layer(record) and key not in wanted and key != MARK:
                found[record.number] = key
            else:
                needed.update(record.lower)
        return [found[n] for n in sorted(found, reverse=True) if f"{n}/fs" not in needed]

    # Containers

    def prepare(
        self, key: str, lower: list[str], *, marked: bool = True, limit_bytes: int = 0
    ) -> None:
        """Begin the writable snapshot ``key`` over ``lower`` (names as in a record, topmost first).

        ``marked``: with the file of containers in its root. ``limit_bytes`` of what is written there, 0 for
        none. :meth:`fill` makes the rest.
        """
        lower = [self._mark(), *lower] if marked else lower
        self._begin(key, lower, marked=marked, limit_bytes=limit_bytes)

    def prepare_view(self, key: str, lower: list[str]) -> None:
        """Begin the snapshot ``key`` through which an image is read only."""
        self._begin(key, lower, view=True)

    def _begin(
        self,
        key: str,
        lower: list[str],
        *,
        marked: bool = False,
        view: bool = False,
        limit_bytes: int = 0,
    ) -> None:
        self._last += 1
        record = SnapshotRecord(number=self._last, lower=[*lower], marked=marked, view=view)
        path = self.base / str(record.number)
        path.mkdir(mode=0o700)
        if limit_bytes:
            self.limits.set(path, limit_bytes)
        self.driver.make(path, record)
        self._put(key, record, durable=False)

    async def fill(self, key: str) -> None:
        """Make what takes time of a snapshot that was begun."""
        await self.driver.fill(self._record(key))

    def _mark(self) -> str:
        """Return the layer that every container has on top of its image."""
        if not self.has(MARK):
            partial = self.partial()
            (partial / "fs" / MARK_FILE).touch()
            (partial / "fs" / MARK_FILE).chmod(0o755)
            self.commit(MARK, partial, parent=None)
        return self.tree(MARK)

    def lower_of(self, chain_id: str) -> list[str]:
        """Return the lower directories of a container on top of the layer ``chain_id``."""
        return self._record(chain_id).lower

    def lower_of_nothing(self) -> list[str]:
        """Return the lower directories of a container of an image without layers."""
        if not self.has(EMPTY):
            self.commit(EMPTY, self.partial(), parent=None)
        return self.lower_of(EMPTY)

    def lower_of_host(self, lower: list[str]) -> list[str]:
        """Return ``lower``, directories of this machine's own root; Unsupported when there can be none."""
        if not self.driver.can_show_host:
            raise Unsupported(
                f"storage driver {self.driver.name} cannot show this machine's root copy-on-write",
                hint="use an image, or an engine with --storage-driver overlay2",
            )
        return lower

    def rootfs(self, key: str) -> Rootfs:
        """Return how to mount the writable snapshot ``key``."""
        return self.driver.rootfs(self._record(key))

    def view(self, key: str) -> tuple[str, ...]:
        """Return the directories below ``base`` that are the image under a snapshot, topmost first."""
        return self.driver.view(self._record(key))

    def detach(self, key: str) -> Path:
        """Turn a writable snapshot that nobody has mounted into a partial directory, the caller's."""
        folder = self.base / str(self._record(key).number)
        self.limits.give_up(self.limits.project_of(folder))
        partial = self.adopt(folder)
        del self._records[key]
        self._table.remove(key)
        remove_tree(str(partial / "work"))
        return partial

    async def usage(self, key: str) -> int:
        """Return how many bytes the writable layer takes on disk."""
        return await asyncio.to_thread(self.driver.usage, self._record(key))

    # The end

    async def remove(self, key: str) -> None:
        """Remove a snapshot; nothing when there is none. Its files are deleted in the background."""
        record = self._records.get(key)
        if record is None:
            return
        self._rename_away(str(record.number))
        del self._records[key]
        self._table.remove(key)

    async def settle(self) -> None:
        """Wait until what was removed is deleted."""
        while self._removing:
            await asyncio.gather(*self._removing)

    def _rename_away(self, name: str) -> None:
        doomed = f"{REMOVED_PREFIX}{os.urandom(8).hex()}"
        try:
            (self.base / name).rename(self.base / doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failed(f"remove snapshot {name}: {error.strerror}") from error
        self._delete_later(doomed)

    def _delete_later(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._delete(name), name=f"delete {name}")
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _delete(self, name: str) -> None:
        async with self._removals:
            try:
                await asyncio.to_thread(self._delete_now, self.base / name)
            except OSError as error:
                # It has no record: the next start tries again.
                log.warning("delete snapshot %s: %s", name, error)

    def _delete_now(self, path: Path) -> None:
        project = self.limits.project_of(path)
        delete(path)
        self.limits.give_up(project)

    def _put(self, key: str, record: SnapshotRecord, *, durable: bool) -> None:
        self._table.put(key, record, durable=durable)
        self._records[key] = record

    def _record(self, key: str) -> SnapshotRecord:
        record = self._records.get(key)
        if record is None:
            raise NotFound(f"no snapshot {key}")
        return record


def delete(path: Path) -> None:
    """Delete a stray entry of the snapshots' directory."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(str(path))
    else:
        path.unlink(missing_ok=True)
