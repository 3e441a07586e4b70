"""What a command of RUN sees that is not its image's: ``--mount``. Nothing of it becomes part of the layer.

Paths in contexts and images are resolved by the kernel below their root, whatever links say. Secrets are in a
memory file system of the container's own.
"""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from berth.builds import leftovers
from berth.builds.caches import CacheRecord
from berth.builds.layers import open_folder
from berth.dockerfile import mounts as language
from berth.dockerfile.mounts import AGENT_VARIABLE, BIND, CACHE, SSH
from berth.dockerfile.sharings import SHARED, SHARINGS
from berth.dockerfile.substitution import Expansion
from berth.engine.life import Loan
from berth.errors import Failed, InvalidArgument, NotFound, Unsupported
from berth.images.records import Image
from berth.kernel import mounts
from berth.runtime.requests import DirectoryRootfs, ImageTree, Tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from berth.builds.caches import Caches
    from berth.builds.context import Context
    from berth.builds.layers import LayerMaker
    from berth.builds.leftovers import Leftovers
    from berth.builds.offers import Offers
    from berth.builds.stage import StageState
    from berth.dockerfile.mounts import Mount
    from berth.engine.services import Services

COPY_UP = "berth.volumes.copy:copy_up"
SECRET_NAME = "secret"  # noqa: S105 - of a file
SECRET_MODE, AGENT_MODE, CACHE_MODE = 0o400, 0o600, 0o755
CLOSED = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A mount, where its content comes from, and the hash of that, if it matters to the command."""

    mount: Mount
    origin: Image | Context | Path | None = None  # a directory of the build's own
    digest: str = ""

    def facts(self) -> object:
        """Return what of it tells a step from another."""
        return [asdict(self.mount), self.digest]


@dataclass(slots=True, kw_only=True)
class _Opened:
    """What is ready for a container."""

    trees: list[Tree] = field(default_factory=list)
    images: list[ImageTree] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    caches: dict[tuple[str, str], Path] = field(default_factory=dict)


class Mounts:
    """Prepares and opens mounts for every build."""

    def __init__(
        self, services: Services, layers: LayerMaker, caches: Caches, notes: Leftovers
    ) -> None:
        self._images = services.images
        self._runtime = services.runtime
        self._layers = layers
        self._caches = caches
        self._notes = notes

    async def prepare(
        self,
        texts: Sequence[str],
        state: StageState,
        context: Context,
        find: Callable[[str], Awaitable[Image | Context]],
    ) -> list[Wanted]:
        """Read flags, and find what they name. ``find`` returns what ``from=`` names."""
        put_in = Expansion(state.variables, state.settings.escape)
        said = [language.read(text, put_in) for text in texts]
        found = []
        for mount in language.settled(said, state.settings.config.working_dir):
            origin: Image | Context | None = None
            if mount.kind in (BIND, CACHE) and mount.origin:
                origin = await find(mount.origin)
            elif mount.kind == BIND:
                origin = context
            elif mount.kind == CACHE and mount.source.strip("/"):
                raise NotFound(f"{mount.source}: not found in a cache that begins empty")
            digest = "" if origin is None else await self._digest(origin, mount.source)
            found.append(Wanted(mount=mount, origin=origin, digest=digest))
        return found

    async def _digest(self, origin: Image | Context, source: str) -> str:
        path = source.strip("/")
        if not isinstance(origin, Image):
            digest, _ = await origin.digest([_plain(path) or "."], [])
            return digest
        if not path:
            return ",".join(origin.diff_ids)
        digest, _ = await self._layers.digest(origin, [_plain(path)])
        return digest

    @asynccontextmanager
    async def open(
        self, wanted: Sequence[Wanted], folder: Path, offers: Offers
    ) -> AsyncIterator[Loan]:
        """Give what a container is to get; ``folder`` is the build's own."""
        opened = _Opened()
        async with AsyncExitStack() as undo:
            for one in sorted(wanted, key=_order):
                match one.mount.kind:
                    case language.SECRET:
                        await self._secret(one.mount, offers, opened, undo)
                    case language.SSH:
                        await self._agent(one.mount, offers, opened, undo)
                    case language.TMPFS:
                        _memory(one.mount, opened, undo)
                    case language.CACHE:
                        await self._cache(one, opened, undo)
                    case _:
                        await self._bind(one, folder, opened, undo)
            yield Loan(
                trees=tuple(opened.trees), images=tuple(opened.images), env=tuple(opened.env)
            )

    # What a client lends

    async def _secret(
        self, mount: Mount, offers: Offers, opened: _Opened, undo: AsyncExitStack
    ) -> None:
        data = await offers.secret(mount.id)
        if data is None:
            if mount.required:
                raise NotFound(f"secret {mount.id}: not found")
            return
        if mount.env is not None:
            if b"\0" in data:
                raise InvalidArgument(f"secret {mount.id}: no variable can have its zero byte")
            opened.env.append(f"{mount.env}={os.fsdecode(data)}")
        if not mount.target:
            return
        options = [("size", str(len(data) + mounts.DATA_BYTES * 4)), ("mode", "0700")]
        attr = CLOSED | mounts.MOUNT_ATTR_NOEXEC
        fd = mounts.make_mount("tmpfs", options, read_only=False, attr=attr)
        undo.callback(os.close, fd)
        _write_secret(fd, mount, data)
        tree = Tree(fd=fd, target=mount.target, stored=True, read_only=True, subpath=SECRET_NAME)
        opened.trees.append(tree)

    async def _agent(
        self, mount: Mount, offers: Offers, opened: _Opened, undo: AsyncExitStack
    ) -> None:
        agent = await offers.agent(mount.id)
        if agent is None:
            if mount.required:
                raise NotFound(f'no SSH key "{mount.id}" forwarded from the client')
            return
        path = await undo.enter_async_context(agent)
        os.chown(path, mount.uid or 0, mount.gid or 0)
        path.chmod(AGENT_MODE if mount.mode is None else mount.mode)
        fd = mounts.open_tree(str(path), recursive=False)
        undo.callback(os.close, fd)
        opened.trees.append(Tree(fd=fd, target=mount.target, stored=True))

    # What is kept

    async def _cache(self, wanted: Wanted, opened: _Opened, undo: AsyncExitStack) -> None:
        mount, now = wanted.mount, time.time_ns()
        record = CacheRecord(
            id=mount.id,
            base=_base(wanted),
            description=f"cached mount {mount.target}",
            created_ns=now,
            used_ns=now,
        )

        async def fill(path: Path) -> None:
            path.mkdir(mode=CACHE_MODE)
            os.chown(path, mount.uid or 0, mount.gid or 0)
            path.chmod(CACHE_MODE if mount.mode is None else mount.mode)
            origin = wanted.origin
            if origin is None or isinstance(origin, Path):
                return
            if mount.source.strip("/") or not _owner(mount):
                await self._fill(path, origin, mount.source)

        known, sharing = (record.id, record.base), mount.sharing or SHARED
        path = opened.caches.get(known)
        if path is None:
            path = await undo.enter_async_context(self._caches.use(record, sharing, fill))
            opened.caches[known] = path
        fd = mounts.open_tree(str(path), recursive=False)
        undo.callback(os.close, fd)
        opened.trees.append(
            Tree(fd=fd, target=mount.target, stored=True, read_only=bool(mount.read_only))
        )

    async def _fill(self, path: Path, origin: Image | Context, source: str) -> None:
        """Copy a directory into a new cache."""
        async with AsyncExitStack() as undo:
            if isinstance(origin, Image):
                view = await undo.enter_async_context(self._layers.view(origin))
            else:
                view = {"base": str(origin.folder.parent), "lower": [origin.folder.name]}
            fd = open_folder(path)
            undo.callback(os.close, fd)
            argument = {**view, "path": f"/{source.strip('/')}"}
            job = await self._runtime.run_job(COPY_UP, argument, fds=[fd], template=True)
            try:
                if not (await job.result())["copied"]:
                    raise Failed(f"a cache begins with a directory, which {source} is not")
            finally:
                await job.end()

    # What is there

    async def _bind(
        self, wanted: Wanted, folder: Path, opened: _Opened, undo: AsyncExitStack
    ) -> None:
        mount, origin = wanted.mount, wanted.origin
        assert origin is not None
        source = mount.source.strip("/")
        if isinstance(origin, Path):
            opened.trees.append(_part(origin, mount, undo))
            return
        if not isinstance(origin, Image):
            if mount.read_only:
                opened.trees.append(_part(origin.folder, mount, undo))
            else:
                opened.images.append(self._scratch_over(origin.folder, mount, folder))
            return
        name = self._notes.note(leftovers.SNAPSHOT)
        undo.push_async_callback(self._layers.forget, name)
        if mount.read_only:
            self._images.prepare_view(origin, name)
            await self._images.fill_rootfs(name)
            lower = self._images.view(name)
            opened.images.append(
                ImageTree(lower=lower, target=mount.target, subpath=source, is_root=True)
            )
            return
        self._images.prepare_rootfs(origin, name, marked=False)
        await self._images.fill_rootfs(name)
        root = self._images.rootfs(name)
        if isinstance(root, DirectoryRootfs):
            opened.trees.append(_part(root.base / root.path, mount, undo))
            return
        opened.images.append(
            ImageTree(
                lower=root.lower,
                upper=root.upper,
                work=root.work,
                target=mount.target,
                subpath=source,
                is_root=True,
            )
        )

    def _scratch_over(self, context: Path, mount: Mount, folder: Path) -> ImageTree:
        """Return a context that may be written to: what is written goes with the build."""
        if not self._images.derived.has_layers_as_made:
            raise Unsupported(
                "a context can be mounted for writing with overlayfs only",
                hint="use the storage driver overlay2, or copy what is to be changed",
            )
        own = folder / os.urandom(8).hex()
        own.mkdir(mode=0o700)
        for name in ("upper", "work"):
            (own / name).mkdir(mode=0o755)
        return ImageTree(
            lower=(str(context),),
            upper=str(own / "upper"),
            work=str(own / "work"),
            target=mount.target,
            subpath=mount.source.strip("/"),
            is_root=True,
        )


def _order(wanted: Wanted) -> tuple[str, str, str, int]:
    """Have caches locked in one order, whoever asks for several; of one, the strictest wish counts."""
    mount = wanted.mount
    return mount.kind, mount.id, _base(wanted), -SHARINGS.index(mount.sharing or SHARED)


def _base(wanted: Wanted) -> str:
    """Return what a cache begins with."""
    return f"{wanted.digest} {wanted.mount.source.strip('/')} {_owner(wanted.mount)}"


def _owner(mount: Mount) -> str:
    """Return whose a new cache is; "" when nothing is said of that."""
    if mount.uid == mount.gid == mount.mode is None:
        return ""
    return f"{mount.uid or 0}:{mount.gid or 0}:{mount.mode}"


def _write_secret(folder: int, mount: Mount, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(SECRET_NAME, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
        os.fchown(file.fileno(), mount.uid or 0, mount.gid or 0)
        os.fchmod(file.fileno(), SECRET_MODE if mount.mode is None else mount.mode)


def _memory(mount: Mount, opened: _Opened, undo: AsyncExitStack) -> None:
    options = [("mode", "1777")]
    if mount.size_bytes:
        options.append(("size", str(mount.size_bytes)))
    fd = mounts.make_mount("tmpfs", options, read_only=False, attr=CLOSED)
    undo.callback(os.close, fd)
    opened.trees.append(
        Tree(fd=fd, target=mount.target, stored=True, read_only=bool(mount.read_only))
    )


def _part(root: Path, mount: Mount, undo: AsyncExitStack) -> Tree:
    """Return what a mount shows of a directory of berthd's own."""
    top = open_folder(root)
    place = top
    try:
        place = mounts.open_in_root(top, mount.source.strip("/"), os.O_PATH)
        fd = mounts.open_tree("", dir_fd=place, recursive=False)
    finally:
        for opened in {top, place}:
            os.close(opened)
    undo.callback(os.close, fd)
    return Tree(fd=fd, target=mount.target, stored=True, read_only=bool(mount.read_only))


def _plain(path: str) -> str:
    """Return a path as a pattern that means it alone."""
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in path)


def environment(wanted: Sequence[Wanted], known: Mapping[str, str]) -> list[str]:
    """Return the variable by which programs find the first agent, unless it is said already."""
    agents = [one.mount.target for one in wanted if one.mount.kind == SSH]
    return [f"{AGENT_VARIABLE}={agents[0]}"] if agents and AGENT_VARIABLE not in known else []
