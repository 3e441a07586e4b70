"""The registry client of an engine: pull, push, look, log in. Asyncio outside, blocking threads inside."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from berth.errors import BerthError, Unavailable
from berth.oci.digest import Digest
from berth.oci.platform import Platform, this_machine
from berth.registry import progress as messages
from berth.registry.endpoints import Endpoints
from berth.registry.push import MAX_UPLOADS, push

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from berth.content.store import ContentStore
    from berth.oci.image import Descriptor
    from berth.oci.reference import Reference
    from berth.registry.auth import Credentials
    from berth.registry.endpoints import Endpoint
    from berth.registry.look import Looked
    from berth.registry.progress import Message, Progress
    from berth.registry.push import Parcel
    from berth.registry.resolve import Resolved
    from berth.registry.session import Patience, Session
    from berth.registry.transport import Transport

log = logging.getLogger("berth")

MAX_DOWNLOADS = 3  # at once, of all pulls together, as Docker
BACKOFF_S = 0.5
END_TIMEOUT_S = 5.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """An image whose blobs are all in the content store.

    ``descriptor`` is what the reference names, an index or a manifest (its digest is the repo digest);
    ``manifest`` is the chosen platform's, the same when there is no index.
    """

    reference: Reference
    descriptor: Descriptor
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    downloaded: bool  # whether anything had to be fetched but manifests

    def summary(self, *, newer: bool) -> tuple[Message, Message]:
        """Return the last two messages, once the image has its name; ``newer``: it had not before."""
        return messages.summary(self.reference, self.descriptor.digest, newer=newer)


def _is_unknown(id_: str) -> bool:
    """Say that an image is not known: everything of it is wanted."""
    del id_
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """On whose behalf a repository is talked to."""

    reference: Reference
    auth: Credentials | None
    patience: Patience
    mounted_from: Sequence[str] | None = None  # set for a push


class RegistryClient:
    """One for an engine: all it does shares connections, transfers and their limit."""

    def __init__(
        self,
        *,
        mirrors: Sequence[str] = (),
        insecure: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._endpoints = Endpoints(mirrors, insecure)
        self._environment = environment
        self._backoff_s = backoff_s
        self._downloads = ThreadPoolExecutor(MAX_DOWNLOADS, thread_name_prefix="download")
        self._uploads = ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="upload")
        self._running: dict[str, asyncio.Future[None]] = {}
        self._transport: Transport | None = None

    def describe(self) -> dict[str, object]:
        """Return where images come from, as the Engine API shows it (RegistryConfig)."""
        return self._endpoints.describe()

    async def pull(
        self,
        reference: Reference,
        *,
        platform: Platform | None,
        auth: Credentials | None,
        content: ContentStore,
        progress: Progress,
        is_known: Callable[[str], bool] = _is_unknown,
    ) -> PulledImage:
        """Fetch what is missing of an image; ``progress`` is called in the loop, with Docker's messages.

        ``is_known`` says of a configuration's digest that nothing of that image is wanted, whatever blobs
        it is made of here.

        Nothing is reported before the image was found, so a failure until then can be a status. Raises
        kinds with Docker's texts. Cancelling ends the downloads. The blobs are held (never removed)
        until this returns; whoever names the image does so before anything else can run.
        """
        reference = reference.with_default_tag()
        # urllib3 and ssl are megabytes that an engine which never pulls does not need.
        from berth.registry.session import Patience

        pull = _Pull(content, progress, Patience(backoff_s=self._backoff_s))
        access = _Access(reference=reference, auth=auth, patience=pull.patience)
        wanted = platform or this_machine()
        try:
            session, resolved = await asyncio.to_thread(
                self._reach, access, lambda session: _resolve(session, wanted)
            )
            progress(messages.pulling(reference))
            blobs = _unique((resolved.manifest.config, *resolved.manifest.layers))
            downloaded = False
            if not is_known(resolved.manifest.config.digest):
                downloaded = await self._fetch_image(session, resolved, blobs, pull)
        finally:
            pull.patience.cancel()
        return PulledImage(
            reference=reference,
            descriptor=resolved.top,
            manifest=resolved.bottom,
            config=resolved.manifest.config,
            layers=tuple(resolved.manifest.layers),
            downloaded=downloaded,
        )

    async def push(
        self,
        reference: Reference,
        parcel: Parcel,
        *,
        auth: Credentials | None,
        content: ContentStore,
        progress: Progress,
    ) -> str:
        """Push to a tag; return the manifest's digest. ``progress`` is called in the loop."""
        from berth.registry.session import Patience

        neighbours = {path for paths in parcel.neighbours.values() for path in paths}
        access = _Access(
            reference=reference,
            auth=auth,
            patience=Patience(backoff_s=self._backoff_s),
            mounted_from=sorted(neighbours),
        )
        try:
            session, _ = await asyncio.to_thread(self._reach, access, lambda _: None)
            return await push(
                session, parcel, content=content, progress=progress, pool=self._uploads
            )
        finally:
            access.patience.cancel()

    async def tags(self, reference: Reference, auth: Credentials | None) -> list[str]:
        """Return the tags of a repository."""
        from berth.registry.look import tags
        from berth.registry.session import Patience

        patience = Patience(backoff_s=self._backoff_s)
        access = _Access(reference=reference, auth=auth, patience=patience)
        _, found = await asyncio.to_thread(self._reach, access, tags)
        return found

    async def look(self, reference: Reference, auth: Credentials | None) -> Looked:
        """Ask what a reference leads to."""
        from berth.registry.look import look
        from berth.registry.session import Patience

        access = _Access(
            reference=reference.with_default_tag(),
            auth=auth,
            patience=Patience(backoff_s=self._backoff_s),
        )
        _, found = await asyncio.to_thread(self._reach, access, look)
        return found

    async def login(self, credentials: Credentials) -> str:
        """Return the identity token that a registry gives, often none; Unauthorized when it refuses."""
        return await asyncio.to_thread(self._login, credentials)

    def _login(self, credentials: Credentials) -> str:
        from berth.registry.login import domain_of, login

        endpoints = self._registries(domain_of(credentials.serveraddress))
        for endpoint in endpoints:
            try:
                return login(self._connections(), endpoint, credentials)
            except Unavailable:
                if endpoint is endpoints[-1]:
                    raise
        raise AssertionError("there is always an endpoint")

    def _registries(self, domain: str) -> list[Endpoint]:
        """Return where a registry itself is, no mirrors."""
        return [found for found in self._endpoints.of(domain) if not found.mirror]

    def _connections(self) -> Transport:
        from berth.registry.transport import Transport

        if self._transport is None:
            self._transport = Transport(self._environment)
        return self._transport

    def _reach(
        self, access: _Access, action: Callable[[Session], Result]
    ) -> tuple[Session, Result]:
        """Do something at one endpoint after the other; the last one's error counts."""
        from berth.registry.session import Session

        pushes = access.mounted_from is not None
        domain = access.reference.domain
        endpoints = self._registries(domain) if pushes else self._endpoints.of(domain)
        for endpoint in endpoints:
            session = Session(
                endpoint=endpoint,
                reference=access.reference,
                # A mirror is somebody else: the password for Docker Hub is not for it.
                credentials=None if endpoint.mirror else access.auth,
                transport=self._connections(),
                patience=access.patience,
                mounted_from=access.mounted_from,
            )
            reached = False
            try:
                session.ping()
                reached = True
                return session, action(session)
            except BerthError as error:
                # A registry that answered has the say, unless it is only a mirror.
                if endpoint is endpoints[-1] or (reached and not endpoint.mirror):
                    raise
                log.info("%s: %s: %s", access.reference.familiar(), endpoint.url, error)
        raise AssertionError("there is always an endpoint")

    async def _fetch_image(
        self, session: Session, resolved: Resolved, blobs: dict[str, Descriptor], pull: _Pull
    ) -> bool:
        """Fetch what is missing and store the manifests; say whether anything was."""
        documents = [document.digest for document, _ in resolved.documents]
        with pull.content.hold([*blobs, *documents]):
            downloaded = await self._fetch_all(session, resolved, blobs, pull)
            for document, data in resolved.documents:
                await asyncio.to_thread(_store, pull.content, document, data)
        return downloaded

    async def _fetch_all(
        self, session: Session, resolved: Resolved, blobs: dict[str, Descriptor], pull: _Pull
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
        fetches = [
            asyncio.ensure_future(self._fetch(session, descriptor, pull, quiet=digest == config))
            for digest, descriptor in missing.items()
        ]
        try:
            await _until_failure(fetches)
        finally:
            pull.patience.cancel()
            await _end(fetches)
        return bool(missing)

    async def _fetch(
        self, session: Session, descriptor: Descriptor, pull: _Pull, *, quiet: bool
    ) -> None:
        """Fetch one blob, or wait for another pull that does."""
        digest = Digest.parse(descriptor.digest)
        while other := self._running.get(digest):
            await asyncio.wait([other])
            if pull.content.has(digest):
                if not quiet:
                    pull.progress(messages.state(digest, "Download complete"))
                return
        report = _ignore if quiet else pull.report
        meter = messages.Meter(digest, descriptor.size, report)
        done = pull.loop.run_in_executor(
            self._downloads, _download, session, descriptor, pull.content, meter
        )
        self._running[digest] = done
        try:
            await done
        finally:
            if self._running.get(digest) is done:
                del self._running[digest]

    def close(self) -> None:
        """Close connections and end the threads that wait for work."""
        for pool in (self._downloads, self._uploads):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._transport is not None:
            self._transport.close()


class _Pull:
    """What belongs to one pull."""

    def __init__(self, content: ContentStore, progress: Progress, patience: Patience) -> None:
        self.content = content
        self.progress = progress
        self.patience = patience
        self.loop = asyncio.get_running_loop()

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
    session: Session, descriptor: Descriptor, content: ContentStore, meter: messages.Meter
) -> None:
    from berth.registry.download import Download

    Download(session, descriptor, content, meter).run()


def _resolve(session: Session, platform: Platform) -> Resolved:
    from berth.registry.resolve import resolve

    return resolve(session, platform)


def _unique(descriptors: Sequence[Descriptor]) -> dict[str, Descriptor]:
    return {Digest.parse(found.digest): found for found in descriptors}


def _store(content: ContentStore, document: Descriptor, data: bytes) -> None:
    digest = Digest.parse(document.digest)
    if not content.has(digest):
        with content.ingest(digest, len(data)) as ingest:
            ingest.write(data)
            ingest.commit()
