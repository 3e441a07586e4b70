"""Fetching the blobs of images: several at once, each once however many pulls want it. Asyncio."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from berth.oci.digest import Digest
from berth.registry import progress as messages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from berth.content.store import ContentStore
    from berth.oci.image import Descriptor, Manifest
    from berth.registry.progress import Message, Progress
    from berth.registry.referrers import Attached
    from berth.registry.resolve import Resolved
    from berth.registry.session import Patience, Session

MAX_DOWNLOADS = 3  # at once, of all pulls together, as Docker
END_TIMEOUT_S = 5.0


class Tap(Protocol):
    """Who is told how a blob grows, in the thread that downloads it."""

    def at(self, path: Path, size: int) -> None:
        """Take that ``size`` bytes of the file at ``path`` are written."""

    def end(self) -> None:
        """Take that nothing follows."""


class Watcher(Protocol):
    """Who wants to know of the layers of a pull as they come. Called in the loop."""

    def is_whole(self, id_: str) -> bool:
        """Say of a configuration's digest that nothing of that image is wanted."""

    def begin(self, manifest: Manifest) -> None:
        """Take that the configuration is here."""

    def here(self, layer: Descriptor) -> None:
        """Take that a layer's blob is here."""

    def growing(self, layer: Descriptor) -> Tap | None:
        """Return who is told of a layer's blob that is being downloaded."""


class Downloads:
    """One for an engine."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_DOWNLOADS, thread_name_prefix="download")
        self._running: dict[str, asyncio.Future[None]] = {}

    def close(self) -> None:
        """End the threads that wait for work."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, session: Session, resolved: Resolved, pull: Pull) -> bool:
        """Fetch what is missing and store the manifests; say whether anything was."""
        blobs = _unique((resolved.manifest.config, *resolved.manifest.layers))
        documents = [document.digest for document, _ in resolved.documents]
        with pull.content.hold([*blobs, *documents]):
            downloaded = await self._fetch_all(session, resolved, blobs, pull)
            for document, data in resolved.documents:
                await asyncio.to_thread(_store, pull.content, document, data)
        return downloaded

    async def fetch_referrers(
        self, session: Session, found: Sequence[Attached], pull: Pull
    ) -> None:
        """Fetch what is missing of artifacts and store their manifests. The caller holds it all."""
        blobs = _unique([blob for one in found for blob in one.blobs])
        fetches = [
            asyncio.ensure_future(self._fetch(session, descriptor, pull, quiet=True))
            for digest, descriptor in blobs.items()
            if not pull.content.has(Digest.parse(digest))
        ]
        try:
            await _until_failure(fetches)
        finally:
            pull.patience.cancel()
            await _end(fetches)
        for one in found:
            await asyncio.to_thread(_store, pull.content, one.descriptor, one.data)

    async def _fetch_all(
        self, session: Session, resolved: Resolved, blobs: dict[str, Descriptor], pull: Pull
    ) -> bool:
        """Fetch the blobs that are missing; say whether there were any."""
        config = resolved.manifest.config.digest
        missing = {}
        for digest, descriptor in blobs.items():
            known = pull.content.has(Digest.parse(digest))
            if not known:
                missing[digest] = descriptor
            if digest != config:
                status = "Already exists" if known else "Pulling fs layer"
                pull.progress(messages.state(digest, status))
        waiting = [digest for digest in missing if digest != config][MAX_DOWNLOADS:]
        for digest in waiting:
            pull.progress(messages.state(digest, "Waiting"))
        fetches: list[asyncio.Future[None]] = []
        try:
            # The configuration says what the layers are: it comes first.
            if config in missing:
                await self._fetch(session, missing[config], pull, quiet=True)
            pull.begin(
                resolved.manifest, [d for digest, d in blobs.items() if digest not in missing]
            )
            fetches += [
                asyncio.ensure_future(self._fetch(session, descriptor, pull, quiet=False))
                for digest, descriptor in missing.items()
                if digest != config
            ]
            await _until_failure(fetches)
        finally:
            pull.patience.cancel()
            await _end(fetches)
        return bool(missing)

    async def _fetch(
        self, session: Session, descriptor: Descriptor, pull: Pull, *, quiet: bool
    ) -> None:
        """Fetch one blob, or wait for another pull that does."""
        digest = Digest.parse(descriptor.digest)
        while other := self._running.get(digest):
            await asyncio.wait([other])
            if pull.content.has(digest):
                if not quiet:
                    pull.progress(messages.state(digest, "Download complete"))
                    pull.here(descriptor)
                return
        report = _ignore if quiet else pull.report
        meter = messages.Meter(digest, descriptor.size, report)
        done = pull.loop.run_in_executor(
            self._pool, _download, session, descriptor, pull.content, meter, pull.tap(descriptor)
        )
        self._running[digest] = done
        try:
            await done
        finally:
            if self._running.get(digest) is done:
                del self._running[digest]
        if not quiet:
            pull.here(descriptor)


class Pull:
    """What belongs to one pull."""

    def __init__(
        self,
        content: ContentStore,
        progress: Progress,
        patience: Patience,
        watcher: Watcher | None = None,
    ) -> None:
        self._watcher = watcher
        self.content = content
        self.progress = progress
        self.patience = patience
        self.loop = asyncio.get_running_loop()

    def begin(self, manifest: Manifest, known: Sequence[Descriptor]) -> None:
        """Tell that the configuration is here, and which blobs were before."""
        if self._watcher is not None:
            self._watcher.begin(manifest)
            for descriptor in known:
                self._watcher.here(descriptor)

    def here(self, layer: Descriptor) -> None:
        """Tell that a layer's blob is here."""
        if self._watcher is not None:
            self._watcher.here(layer)

    def tap(self, layer: Descriptor) -> Tap | None:
        """Return who is told how a layer's blob grows."""
        return self._watcher.growing(layer) if self._watcher is not None else None

    def report(self, message: Message) -> None:
        """Pass a message on, from any thread; nobody listens after the pull has ended."""
        if not self.patience.is_cancelled:
            self.loop.call_soon_threadsafe(self.progress, message)


async def _until_failure(fetches: Sequence[asyncio.Future[None]]) -> None:
    if fetches:
        done, _ = await asyncio.wait(fetches, return_when=asyncio.FIRST_EXCEPTION)
        for fetch in done:
            fetch.result()


async def _end(fetches: Sequence[asyncio.Future[None]]) -> None:
    """Let cancelled downloads remove what they have; one that waits for an answer does so later."""
    running = [fetch for fetch in fetches if not fetch.done()]
    if running:
        await asyncio.wait(running, timeout=END_TIMEOUT_S)
    for fetch in fetches:
        fetch.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)


def _ignore(message: Message) -> None:
    """Report nothing: the config is no layer."""


def _download(
    session: Session,
    descriptor: Descriptor,
    content: ContentStore,
    meter: messages.Meter,
    tap: Tap | None,
) -> None:
    from berth.registry.download import Download

    try:
        Download(session, descriptor, content, meter, tap).run()
    finally:
        if tap is not None:
            tap.end()


def _unique(descriptors: Sequence[Descriptor]) -> dict[str, Descriptor]:
    return {Digest.parse(found.digest): found for found in descriptors}


def _store(content: ContentStore, document: Descriptor, data: bytes) -> None:
    digest = Digest.parse(document.digest)
    if not content.has(digest):
        with content.ingest(digest, len(data)) as ingest:
            ingest.write(data)
            ingest.commit()
