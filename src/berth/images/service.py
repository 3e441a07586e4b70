"""The images of one engine: named, stored, unpacked, given to containers."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, InvalidArgument, NotFound
from berth.images import host
from berth.images.archive import Archive, read_archive
from berth.snapshots.overlay import OverlaySnapshots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from berth.runtime.client import Runtime
    from berth.runtime.requests import OverlayRootfs
    from berth.state import State

UNPACK = "berth.images.unpack:unpack"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MIN_PREFIX = 4


class ImageConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """The part of an image config that its containers get (image-spec, config.md)."""

    user: str = ""
    exposed_ports: dict[str, object] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, object] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str | None = None


class Image(msgspec.Struct, kw_only=True):
    """An image as it is stored."""

    id: str  # sha256:…
    config: ImageConfig
    chain_id: str  # empty for the built-in image
    diff_ids: list[str]
    size_bytes: int
    created: str
    names: list[str] = []
    architecture: str = "amd64"
    builtin: bool = False


REFERENCE = re.compile(r"[a-z0-9]+(?:[._:/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")


def familiar(reference: str) -> str:
    """Return ``reference`` with its tag, without Docker Hub's prefix: how it is listed."""
    if not REFERENCE.fullmatch(reference):
        lowered = REFERENCE.fullmatch(reference.lower())
        hint = f": repository name ({reference}) must be lowercase" if lowered else ""
        raise InvalidArgument(f"invalid reference format{hint}")
    name = reference.removeprefix("docker.io/").removeprefix("library/")
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


class ImageService:
    """Everything berthd knows of images."""

    def __init__(self, *, state: State, data_root: Path, runtime: Runtime) -> None:
        self._table = state.table("images", Image)
        self._ingest = data_root / "ingest"
        self._runtime = runtime
        self._snapshots = OverlaySnapshots(state=state, data_root=data_root)

    async def open(self) -> None:
        """Remove what a crash left, and make the built-in image what this machine is now."""
        shutil.rmtree(self._ingest, ignore_errors=True)
        self._ingest.mkdir(mode=0o700)
        self._snapshots.clean()
        config = msgspec.convert(host.config(), ImageConfig)
        id_ = "sha256:" + hashlib.sha256(b"berth built-in image: host").hexdigest()
        known = self._table.get(id_)
        image = Image(
            id=id_,
            config=config,
            chain_id="",
            diff_ids=[],
            size_bytes=0,
            created=_now(),
            names=known.names if known else [host.NAME],
            architecture=_architecture(),
            builtin=True,
        )
        self._table.put(id_, image)

    def all(self) -> list[Image]:
        """Return every image."""
        return [image for _, image in self._table.items()]

    def resolve(self, ref: str) -> Image:
        """Return the image that ``ref`` names: a reference, an id or a unique prefix of one."""
        name = familiar(ref) if not ref.startswith("sha256:") else ref
        prefix = ref.removeprefix("sha256:")
        candidates = []
        for image in self.all():
            if name in image.names or image.id == ref:
                return image
            if len(prefix) >= MIN_PREFIX and image.id.removeprefix("sha256:").startswith(prefix):
                candidates.append(image)
        if len(candidates) != 1:
            raise NotFound(f"No such image: {name}")
        return candidates[0]

    def prepare_rootfs(self, image: Image, key: str) -> None:
        """Make the writable snapshot ``key`` on top of the image."""
        layers = host.lower() if image.builtin else self._snapshots.lower_of(image.chain_id)
        self._snapshots.prepare(key, layers)

    def rootfs(self, key: str) -> OverlayRootfs:
        """Return how to mount the writable snapshot ``key``."""
        return self._snapshots.rootfs(key)

    async def remove_rootfs(self, key: str) -> None:
        """Remove a writable snapshot."""
        await self._snapshots.remove(key)

    def tag(self, ref: str, name: str) -> None:
        """Give an image one more name, taking it from whichever has it."""
        image = self.resolve(ref)
        self._name(image, familiar(name))

    def _name(self, image: Image, name: str) -> None:
        for other in self.all():
            if name in other.names and other.id != image.id:
                other.names.remove(name)
                self._table.put(other.id, other)
        if name not in image.names:
            image.names.append(name)
        self._table.put(image.id, image, durable=True)

    async def remove(self, ref: str, *, force: bool, users: list[str]) -> list[dict[str, str]]:
        """Remove a name, and with the last one the image. ``users``: image ids containers have."""
        image = self.resolve(ref)
        by_name = familiar(ref) in image.names if not ref.startswith("sha256:") else False
        if by_name and len(image.names) > 1:
            image.names.remove(familiar(ref))
            self._table.put(image.id, image, durable=True)
            return [{"Untagged": familiar(ref)}]
        if image.builtin:
            raise Conflict("the image host is built in and cannot be removed")
        if image.id in users:
            short = image.id.removeprefix("sha256:")[:12]
            raise Conflict(
                f"conflict: unable to remove repository reference {ref!r} (must force)"
                f" - a container is using its referenced image {short}"
            )
        if len(image.names) > 1 and not force:
            short = image.id.removeprefix("sha256:")[:12]
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in"
                " multiple repositories"
            )
        self._table.remove(image.id, durable=True)
        if not any(image.chain_id == other.chain_id for other in self.all()):
            await self._snapshots.remove(image.chain_id)
        untagged = [{"Untagged": name} for name in image.names]
        return [*untagged, {"Deleted": image.id}]

    async def import_rootfs(
        self, body: AsyncIterator[bytes], *, reference: str | None, config: ImageConfig
    ) -> Image:
        """Make an image of one layer from a tar of a root file system, plain or compressed."""
        name = familiar(reference) if reference else None
        spooled = await self._spool(body)
        try:
            chain_id, size = await self._unpack_layer(spooled, parent=None, expected=None)
        finally:
            spooled.unlink()
        image = Image(
            id="",
            config=config,
            chain_id=chain_id,
            diff_ids=[chain_id],
            size_bytes=size,
            created=_now(),
            architecture=_architecture(),
        )
        image.id = "sha256:" + hashlib.sha256(_config_bytes(image)).hexdigest()
        if name:
            self._name(image, name)
        else:
            self._table.put(image.id, image, durable=True)
        return image

    async def load(self, body: AsyncIterator[bytes]) -> list[str]:
        """Load a docker-archive or an OCI layout; return what was loaded, for people."""
        spooled = await self._spool(body)
        folder = self._ingest / uuid.uuid4().hex
        folder.mkdir()
        try:
            await self._unpack(spooled, folder, layer=False)
            spooled.unlink()
            loaded: list[str] = []
            for archive in read_archive(folder, _architecture()):
                loaded += await self._load_image(archive)
            return loaded
        finally:
            spooled.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

    async def _load_image(self, archive: Archive) -> list[str]:
        chain_id = ""
        size = 0
        for layer, diff_id in zip(archive.layers, archive.diff_ids, strict=True):
            parent = chain_id or None
            chain_id, layer_size = await self._unpack_layer(layer, parent=parent, expected=diff_id)
            size += layer_size
        image = Image(
            id=archive.id,
            config=msgspec.convert(archive.config.get("config") or {}, ImageConfig),
            chain_id=chain_id,
            diff_ids=archive.diff_ids,
            size_bytes=size,
            created=str(archive.config.get("created") or _now()),
            names=known.names if (known := self._table.get(archive.id)) else [],
            architecture=str(archive.config.get("architecture") or _architecture()),
        )
        self._table.put(image.id, image, durable=True)
        for name in archive.names:
            self._name(image, familiar(name))
        if not archive.names:
            return [f"Loaded image ID: {image.id}"]
        return [f"Loaded image: {familiar(name)}" for name in archive.names]

    async def _unpack_layer(
        self, archive: Path, *, parent: str | None, expected: str | None
    ) -> tuple[str, int]:
        """Unpack one layer unless it is there; return its chain ID and size."""
        if expected is not None and self._snapshots.has(chain(parent, expected)):
            return chain(parent, expected), archive.stat().st_size
        partial = self._snapshots.partial()
        try:
            diff_id, size = await self._unpack(archive, partial / "fs", layer=True)
            if expected is not None and diff_id != expected:
                raise InvalidArgument(
                    f"invalid diffID for layer: expected {expected}, got {diff_id}"
                )
            chain_id = chain(parent, diff_id)
            if not self._snapshots.has(chain_id):
                self._snapshots.commit(chain_id, partial, parent=parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return chain_id, size

    async def _unpack(self, archive: Path, folder: Path, *, layer: bool) -> tuple[str, int]:
        source = os.open(archive, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            job = await self._runtime.run_job(UNPACK, {"layer": layer}, fds=[source, target])
        finally:
            os.close(source)
            os.close(target)
        result = await job.result()
        size = result["size"]
        assert isinstance(size, int)
        return str(result["diff_id"]), size

    async def _spool(self, body: AsyncIterator[bytes]) -> Path:
        path = self._ingest / uuid.uuid4().hex
        try:
            with path.open("wb") as file:
                async for chunk in body:
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def chain(parent: str | None, diff_id: str) -> str:
    """Return the chain ID of ``diff_id`` on ``parent`` (image-spec, config.md)."""
    if parent is None:
        return diff_id
    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest()


def _config_bytes(image: Image) -> bytes:
    document = {
        "architecture": image.architecture,
        "os": "linux",
        "created": image.created,
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": image.diff_ids},
    }
    return msgspec.json.encode(document)


def _architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
