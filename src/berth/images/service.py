"""The images of one engine: brought in, named, given to containers, sent out, removed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence  # noqa: TC003 - `list` is a method here
from typing import TYPE_CHECKING

import msgspec

from berth.content.store import ContentStore
from berth.errors import InvalidArgument
from berth.images import commits, documents, host
from berth.images.catalog import Catalog, familiar
from berth.images.changes import apply_changes
from berth.images.check import StoreCheck
from berth.images.derived import Derived, now_text
from berth.images.disposal import Deleted, Disposal
from berth.images.early import Early
from berth.images.garbage import KEPT_S, Garbage
from berth.images.layers import NOTHING_READY, LayerStore, LoadTeller, Teller, quiet
from berth.images.records import Image, ImageUser
from berth.images.save import ArchiveWriter, selected
from berth.images.shipping import Shipping
from berth.images.thinning import Thinning
from berth.images.transfer import Transfer, platform_of, record, remove_ingest
from berth.oci.digest import Digest
from berth.oci.image import ImageConfig, ImageDocument, chain_ids, decode
from berth.oci.reference import Reference

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Collection, Mapping
    from pathlib import Path

    from berth.images.arrivals import Found
    from berth.images.check import Report
    from berth.images.disposal import Step
    from berth.images.layers import Progress, Ready
    from berth.images.records import Referrer
    from berth.images.shipping import Shipment
    from berth.oci.image import Descriptor
    from berth.oci.platform import Platform
    from berth.runtime.client import Runtime
    from berth.runtime.requests import Rootfs
    from berth.snapshots.store import Snapshots
    from berth.state import State

__all__ = ["Image", "ImageConfig", "ImageService", "ImageUser"]


class ImageService:
    """Everything berthd knows of images."""

    def __init__(
        self, *, state: State, data_root: Path, runtime: Runtime, snapshots: Snapshots
    ) -> None:
        self.content = ContentStore(
            data_root / "content", lambda chain_id: snapshots.base / snapshots.tree(chain_id)
        )
        self._catalog = Catalog(state)
        self._snapshots = snapshots
        self._layers = LayerStore(snapshots=self._snapshots, content=self.content, runtime=runtime)
        self._transfer = Transfer(
            content=self.content, snapshots=self._snapshots, layers=self._layers
        )
        self._thinning = Thinning(
            content=self.content, snapshots=self._snapshots, layers=self._layers
        )
        self._shipping = Shipping(state=state, content=self.content, catalog=self._catalog)
        self._garbage = Garbage(
            catalog=self._catalog,
            content=self.content,
            snapshots=self._snapshots,
            layers=self._layers,
        )
        self._disposal = Disposal(
            catalog=self._catalog,
            content=self.content,
            garbage=self._garbage,
            thinning=self._thinning,
        )

        self.derived = Derived(
            catalog=self._catalog,
            content=self.content,
            snapshots=self._snapshots,
            layers=self._layers,
            keep=self._keep,
            is_whole=self.is_whole,
        )

    async def open(self) -> None:
        """Remove what a crash left, and make the built-in image what this machine is now."""
        for left in self.content.leftovers():
            remove_ingest(left)
        await self._snapshots.open()
        self._garbage.drop_torn()
        built_in = host.image()
        for image in self._catalog.all():
            if image.builtin:
                built_in.names = sorted({*built_in.names, *image.names})
                built_in.tagged_ns = image.tagged_ns
                if image.id != built_in.id:
                    self._catalog.drop(image)
        self._catalog.put(built_in)
        await self._garbage.remove_layers()
        self._garbage.remove_blobs(older_than_s=KEPT_S)

    async def close(self) -> None:
        """Wait until what was removed is deleted."""
        await self._thinning.close()
        await self._snapshots.settle()

    # Finding

    def all(self) -> Sequence[Image]:
        """Return every image, the youngest first."""
        return self._catalog.all()

    def list(self, *, filters: Mapping[str, Sequence[str]], steps: bool) -> Sequence[Image]:
        """Return the images that pass Docker's filters, the youngest first; with those of builds' steps."""
        return self._catalog.select(filters, steps=steps)

    def resolve(self, ref: str, platform: Platform | None = None) -> Image:
        """Return the image that ``ref`` names: a reference, an id or a unique prefix of one.

        Of several platforms under a name, the one that is asked for, or suits this machine.
        """
        return self._catalog.resolve(ref, platform)

    def history(self, image: Image) -> Sequence[documents.Json]:
        """Return the steps of an image as the API shows them."""
        if image.builtin:
            return documents.history(image, ImageDocument(), [])
        data = self.content.read(Digest(image.id))
        sizes = [
            self._snapshots.size(chain_id) if self._snapshots.has(chain_id) else 0
            for chain_id in chain_ids(image.diff_ids)
        ]
        return documents.history(image, decode(data, ImageDocument, "image configuration"), sizes)

    def shared_bytes(self) -> tuple[Mapping[str, int], int]:
        """Return the bytes that each image shares with others, by its id, and those of all layers."""
        chains = {image.id: chain_ids(image.diff_ids) for image in self.all()}
        users = Counter(chain_id for chain in chains.values() for chain_id in chain)
        sizes = {key: self._snapshots.size(key) for key in users if self._snapshots.has(key)}
        shared = {
            id_: sum(sizes.get(key, 0) for key in chain if users[key] > 1)
            for id_, chain in chains.items()
        }
        return shared, sum(sizes.values())

    # Containers

    async def restore(self, image: Image) -> None:
        """Unpack an image again whose snapshots are gone; nothing when they are there."""
        if not image.builtin:
            await self._layers.restore(image)

    def prepare_rootfs(
        self, image: Image, key: str, *, marked: bool = True, limit_bytes: int = 0
    ) -> None:
        """Begin the writable snapshot ``key`` (the container's id) on top of the image.

        ``marked``: in its root is the file of containers, which this machine's image has anyway.
        ``limit_bytes`` of what is written there, 0 for none.
        """
        marked = marked and not image.is_of_host
        lower = self._lower(image)
        self._snapshots.prepare(key, lower, marked=marked, limit_bytes=limit_bytes)

    def prepare_view(self, image: Image, key: str) -> None:
        """Begin the snapshot ``key`` through which an image is seen."""
        self._snapshots.prepare_view(key, self._lower(image))

    def _lower(self, image: Image) -> builtins.list[str]:
        lower = self._snapshots.lower_of(image.chain_id) if image.chain_id else []
        if image.is_of_host:
            return self._snapshots.lower_of_host([*lower, host.MACHINE] if lower else host.lower())
        return lower or self._snapshots.lower_of_nothing()

    async def fill_rootfs(self, key: str) -> None:
        """Make what takes time of a snapshot that was begun, before anybody uses it."""
        await self._snapshots.fill(key)

    def rootfs(self, key: str) -> Rootfs:
        """Return how to mount the writable snapshot ``key``."""
        return self._snapshots.rootfs(key)

    def view(self, key: str) -> tuple[str, ...]:
        """Return the directories that are the image under a snapshot, topmost first."""
        return self._snapshots.view(key)

    @property
    def storage(self) -> tuple[str, str]:
        """Return the storage driver's name, and what it works with."""
        return self._snapshots.driver.name, self._snapshots.driver.backing

    async def remove_rootfs(self, key: str) -> None:
        """Remove a writable snapshot; nothing when there is none."""
        await self._snapshots.remove(key)
        if self._garbage.awaits_others:
            await self._garbage.remove_layers()

    async def rootfs_size(self, key: str) -> int:
        """Return the bytes that a container's writable layer takes, 0 when it has none any more."""
        return await self._snapshots.usage(key) if self._snapshots.has(key) else 0

    # Names and removal

    def tag(self, ref: str, name: str, *, among: Collection[str] = ()) -> Image:
        """Give an image one more name; those keep it that are ``among`` the ones (ids) that share it."""
        reference = Reference.parse(name)
        if reference.digest is not None:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        image = self.resolve(ref)
        self._catalog.give_name(image, reference.with_default_tag().familiar(), among=among)
        return image

    async def remove(
        self,
        ref: str,
        *,
        platforms: Sequence[Platform] = (),
        force: bool = False,
        prune: bool = True,
        users: Sequence[ImageUser] = (),
    ) -> Sequence[tuple[Image, Sequence[Deleted]]]:
        """Remove a name, and with the last one the image: of every platform, or of some.

        ``prune``: and the images without a name that it was made of.
        """
        return await self._disposal.remove(
            ref, platforms=platforms, force=force, prune=prune, users=users
        )

    async def prune(
        self, *, filters: Mapping[str, Sequence[str]], users: Sequence[ImageUser]
    ) -> Mapping[str, object]:
        """Remove images that no container uses, and what broken transfers have left."""
        return await self._disposal.prune(filters=filters, users=users)

    def steps(self, *, users: Sequence[ImageUser]) -> builtins.list[Step]:
        """Return the steps of builds that have no name."""
        return self._disposal.steps(users=users)

    async def remove_step(self, id_: str, *, users: Sequence[ImageUser]) -> bool:
        """Remove a step, unless somebody has named or used it by now; say whether it is gone."""
        return await self._disposal.remove_step(id_, users=users)

    async def check(self, *, users: Sequence[ImageUser], repair: bool) -> Report:
        """Verify the whole store; with ``repair`` remove what is broken. ``users``: the containers."""
        check = StoreCheck(
            catalog=self._catalog,
            content=self.content,
            snapshots=self._snapshots,
            layers=self._layers,
            garbage=self._garbage,
        )
        return await check.run(users=users, repair=repair)

    # In

    async def import_rootfs(
        self,
        body: AsyncIterator[bytes],
        *,
        reference: str | None = None,
        message: str = "",
        changes: Sequence[str] = (),
        platform: str | None = None,
    ) -> Image:
        """Make an image of one layer from a tar of a root file system, plain or compressed."""
        name = familiar(reference) if reference else None
        config = apply_changes(ImageConfig(), [*changes])
        target = platform_of(platform)
        spooled = await self._transfer.spool(body)
        expanded = self.content.temporary()
        try:
            diff_id, layer, size = await self._transfer.import_layer(spooled, expanded.name)
            document = commits.imported(
                diff_id, config, target, comment=message or "Imported from -", created=now_text()
            )
            data = msgspec.json.encode(document)
            with self.content.hold([layer.digest, Digest.of(data)]), self._layers.hold(diff_id):
                digest = await asyncio.to_thread(self.content.write, data)
            image = record(document, digest, [layer], None, size)
            self._keep(image, [name] if name else [])
        finally:
            remove_ingest(spooled)
            remove_ingest(expanded)
        return image

    async def load(
        self,
        body: AsyncIterator[bytes],
        *,
        platform: Platform | None = None,
        progress: Progress = quiet,
    ) -> Sequence[tuple[Image, Sequence[str]]]:
        """Load a docker-archive or an OCI layout; return the images, each with the names it came with.

        With ``platform`` those for it only.
        """
        folder = self.content.temporary()
        folder.mkdir(mode=0o700)
        blobs: Sequence[str] = ()
        try:
            found, ready = await self._transfer.read_archive(body, folder, self._known(), platform)
            blobs = [blob for one in found for blob in one.blobs()]
            teller = LoadTeller(progress)
            with self.content.hold(blobs):
                return [await self._load_one(one, teller, ready) for one in found]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self._disposal.drop_blobs(blobs)
            await asyncio.to_thread(remove_ingest, folder)

    def _known(self) -> set[str]:
        """Return the digests, in digits, of blobs that need not be unpacked again."""
        layers = (layer for image in self._catalog.all() for layer in image.layers)
        return {layer.digest.partition(":")[2] for layer in layers}

    async def _load_one(
        self, found: Found, teller: Teller, ready: Mapping[str, Ready]
    ) -> tuple[Image, Sequence[str]]:
        names = [familiar(name) for name in found.names]
        image = await self._transfer.make_image(
            found.config, found.layers, found.manifest, teller, ready
        )
        image.add_referrers(found.referrers)
        return self._keep(image, names), names

    def unpacking(self, progress: Progress) -> Early:
        """Return what unpacks the layers of a pull as they come."""
        return Early(
            content=self.content,
            snapshots=self._snapshots,
            layers=self._layers,
            progress=progress,
            is_whole=self.is_whole,
        )

    async def add_pulled(
        self,
        *,
        reference: Reference,
        descriptor: Descriptor,
        id_: str,
        repo_digest: str | None = None,
        early: Early | None = None,
    ) -> Image:
        """Unpack and name an image whose blobs a registry client has put into the content store.

        ``descriptor`` is the manifest of our platform, ``id_`` its configuration, ``repo_digest`` what the
        reference led to, when that is an index.
        """
        if self.is_whole(id_):
            image = msgspec.structs.replace(self._catalog.resolve(id_))
        else:
            with self.content.hold(self._transfer.blobs_of(descriptor)):
                ready = await early.finish() if early else NOTHING_READY
                teller = early.teller if early else Teller(quiet)
                image = await self._transfer.pulled(descriptor, teller, ready)
        name = reference.with_default_tag()
        origin = reference.with_digest(repo_digest or descriptor.digest).familiar()
        image.repo_digests = [origin]
        names = [name.familiar()] if name.tag and not name.digest else []
        return self._keep(image, names, beside=origin)

    def is_whole(self, id_: str) -> bool:
        """Say whether an image is here with all its blobs and layers."""
        image = self._catalog.get(id_)
        return image is not None and not (
            any(not self.content.has(Digest(blob)) for blob in image.blobs())
            or any(not self._snapshots.has(chain_id) for chain_id in chain_ids(image.diff_ids))
        )

    def _keep(self, image: Image, names: Sequence[str], *, beside: str = "") -> Image:
        """Record an image and name it; one that is known keeps the blobs and names that it has.

        Images of other platforms that came from the index ``beside`` keep the names as well.
        """
        known = self._catalog.get(image.id)
        if known is not None:
            known.repo_digests = sorted({*known.repo_digests, *image.repo_digests})
            known.add_referrers(image.referrers)
            extra = image.blobs()
            image = known
            self._disposal.drop_blobs([blob for blob in extra if blob not in known.blobs()])
        self._catalog.put(image)
        for name in names:
            self._catalog.give_name(image, name, beside=beside)
        self._thinning.want(image)
        return image

    # Out

    async def shipment(self, image: Image, target: Reference) -> Shipment:
        """Return an image as the registry of ``target`` gets it."""
        return await self._shipping.prepare(image, target)

    def note_pushed(self, image: Image, target: Reference, digest: str) -> None:
        """Remember that an image is in a registry now, under this digest."""
        known = self._catalog.get(image.id)
        if known is not None:
            name = target.with_digest(digest).familiar()
            known.repo_digests = sorted({*known.repo_digests, name})
            self._catalog.put(known)

    def keep_referrers(self, image: Image, referrers: builtins.list[Referrer]) -> None:
        """Keep artifacts whose blobs are here with the image that they are about."""
        if known := self._catalog.get(image.id):
            known.add_referrers(referrers)
            self._catalog.put(known)

    def save(
        self, refs: Sequence[str], platform: Platform | None = None, *, referrers: bool = False
    ) -> tuple[Sequence[Image], AsyncIterator[bytes]]:
        """Return the images, and an archive of them: a docker-archive that is an OCI layout as well.

        A name without a tag stands for all tags of the repository, as in Docker. With ``referrers``
        the layout has what refers to them.
        """
        wanted = selected(self._catalog, refs, platform)
        writer = ArchiveWriter(self.content, wanted, referrers=referrers)
        return [image for image, _ in wanted], writer.stream()
