"""The registry client of an engine: pull, push, look, log in. Asyncio outside, blocking threads inside."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from berth.errors import BerthError, InvalidArgument, Unavailable
from berth.oci.digest import Digest
from berth.oci.platform import Platform, this_machine
from berth.registry import progress as messages
from berth.registry.endpoints import Endpoints
from berth.registry.fetching import Downloads, Pull
from berth.registry.push import MAX_UPLOADS, push

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from berth.content.store import ContentStore
    from berth.oci.image import Descriptor, ImageDocument
    from berth.oci.reference import Reference
    from berth.registry.auth import Credentials
    from berth.registry.begun import BegunUploads
    from berth.registry.fetching import Watcher
    from berth.registry.look import Looked
    from berth.registry.progress import Message, Progress
    from berth.registry.push import Parcel
    from berth.registry.referrers import Attached
    from berth.registry.resolve import Resolved
    from berth.registry.search import Repository
    from berth.registry.session import Patience, Session
    from berth.registry.transport import Transport

log = logging.getLogger("berth")

BACKOFF_S = 0.5

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """On whose behalf a repository is talked to."""

    reference: Reference
    auth: Credentials | None
    patience: Patience
    mounted_from: Sequence[str] | None = None  # set for a push

    @property
    def actions(self) -> tuple[str, ...]:
        """What a place has to be good for."""
        if self.mounted_from is not None:
            return ("push",)
        return ("pull",) if self.reference.digest else ("pull", "resolve")


class RegistryClient:
    """One for an engine: all it does shares connections, transfers and their limit."""

    def __init__(
        self,
        *,
        mirrors: Sequence[str] = (),
        insecure: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        backoff_s: float = BACKOFF_S,
        begun: BegunUploads | None = None,
    ) -> None:
        self._begun = begun
        self._endpoints = Endpoints(mirrors, insecure)
        self._environment = environment
        self._backoff_s = backoff_s
        self._downloads = Downloads()
        self._uploads = ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="upload")
        self._transport: Transport | None = None

    def configure(self, *, mirrors: Sequence[str], insecure: Sequence[str]) -> None:
        """Replace the options; what is being transferred goes on."""
        self._endpoints = Endpoints(mirrors, insecure)

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
        watcher: Watcher | None = None,
    ) -> PulledImage:
        """Fetch what is missing of an image; ``progress`` is called in the loop, with Docker's messages.

        ``watcher`` says which images are here, whatever blobs they are made of, and is told of layers as
        they come.

        Nothing is reported before the image was found, so a failure until then can be a status. Raises
        kinds with Docker's texts. Cancelling ends the downloads. The blobs are held (never removed)
        until this returns; whoever names the image does so before anything else can run.
        """
        reference = reference.with_default_tag()
        # urllib3 and ssl are megabytes that an engine which never pulls does not need.
        from berth.registry.session import Patience

        pull = Pull(content, progress, Patience(backoff_s=self._backoff_s), watcher)
        access = _Access(reference=reference, auth=auth, patience=pull.patience)
        wanted = platform or this_machine()
        try:
            session, resolved = await asyncio.to_thread(
                self._reach, access, lambda session: _resolve(session, wanted)
            )
            progress(messages.pulling(reference))
            downloaded = False
            if watcher is None or not watcher.is_whole(resolved.manifest.config.digest):
                downloaded = await self._downloads.fetch(session, resolved, pull)
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

    async def referrers(
        self, reference: Reference, auth: Credentials | None, *, kind: str = ""
    ) -> tuple[Descriptor, list[Descriptor]]:
        """Return what a reference leads to and what refers to that, of a type if one is given."""
        from berth.registry.assembling import raw
        from berth.registry.referrers import find

        def ask(session: Session) -> tuple[Descriptor, list[Descriptor]]:
            subject, _ = raw(session)
            return subject, find(session, Digest.parse(subject.digest), kind=kind)

        _, found = await asyncio.to_thread(self._reach, self._access(reference, auth), ask)
        return found

    async def pull_referrers(
        self,
        reference: Reference,
        subjects: Sequence[str],
        *,
        auth: Credentials | None,
        content: ContentStore,
        progress: Progress,
    ) -> list[Attached]:
        """Fetch all that refers to manifests; held, as :meth:`pull` says, until this returns."""
        from berth.registry.referrers import gather

        access = self._access(reference, auth)
        pull = Pull(content, progress, access.patience)
        try:
            session, found = await asyncio.to_thread(
                self._reach, access, partial(gather, subjects=subjects)
            )
            with content.hold([digest for one in found for digest in one.digests()]):
                await self._downloads.fetch_referrers(session, found, pull)
        finally:
            access.patience.cancel()
        return found

    async def push(
        self,
        reference: Reference,
        parcel: Parcel,
        *,
        auth: Credentials | None,
        content: ContentStore,
        progress: Progress,
    ) -> str:
        """Push to a tag, or without one; return the manifest's digest.

        ``progress`` is called in the loop.
        """
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
                session,
                parcel,
                content=content,
                progress=progress,
                pool=self._uploads,
                begun=self._begun,
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

        _, found = await asyncio.to_thread(self._reach, self._access(reference, auth), look)
        return found

    async def configuration(
        self, reference: Reference, platform: Platform | None, auth: Credentials | None
    ) -> ImageDocument:
        """Return the configuration of an image; nothing is kept."""
        from berth.registry.look import configuration

        ask = partial(configuration, platform=platform or this_machine())
        _, found = await asyncio.to_thread(self._reach, self._access(reference, auth), ask)
        return found

    async def raw(self, reference: Reference, auth: Credentials | None) -> tuple[Descriptor, bytes]:
        """Return a manifest or index as a registry has it."""
        from berth.registry.assembling import raw

        _, found = await asyncio.to_thread(self._reach, self._access(reference, auth), raw)
        return found

    async def assemble(
        self,
        target: Reference,
        sources: Sequence[tuple[Reference, Platform | None]],
        auth: Credentials | None,
        *,
        own: Mapping[str, str] | None = None,
        said: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Descriptor:
        """Make a tag an index of images in the same registry; return what it leads to.

        ``own`` are annotations of the index, ``said`` of its entries by their digests.
        """
        from berth.registry.assembling import assemble, part

        parts = []
        for source, platform in sources:
            if source.domain != target.domain:
                raise InvalidArgument(
                    "cannot use source images from a different registry than the target image:"
                    f" {source.domain} != {target.domain}"
                )
            access = self._access(source, auth)
            parts.append(
                (await asyncio.to_thread(self._reach, access, partial(part, platform=platform)))[1]
            )
        access = self._access(target, auth, sorted({one.path for one in parts}))
        for one in parts:
            one.descriptor.annotations = dict((said or {}).get(one.descriptor.digest, {})) or None
        work = partial(assemble, parts=parts, annotations=own or {})
        reach = partial(self._reach, access, work)
        return (await asyncio.to_thread(reach))[1]

    def _access(
        self,
        reference: Reference,
        auth: Credentials | None,
        mounted_from: Sequence[str] | None = None,
    ) -> _Access:
        from berth.registry.session import Patience

        return _Access(
            reference=reference.with_default_tag(),
            auth=auth,
            patience=Patience(backoff_s=self._backoff_s),
            mounted_from=mounted_from,
        )

    async def login(self, credentials: Credentials) -> str:
        """Return the identity token that a registry gives, often none; Unauthorized when it refuses."""
        return await asyncio.to_thread(self._login, credentials)

    def _login(self, credentials: Credentials) -> str:
        from berth.registry.login import domain_of, login

        endpoints = self._endpoints.itself(domain_of(credentials.serveraddress))
        for endpoint in endpoints:
            try:
                return login(self._connections(), endpoint, credentials)
            except Unavailable:
                if endpoint is endpoints[-1]:
                    raise
        raise AssertionError("there is always an endpoint")

    async def download(self, source: str, progress: Progress) -> AsyncIterator[bytes]:
        """Yield what the web has at an address; ``progress`` is told once it is there."""
        from berth.registry import web

        url = web.address(source)
        response = await asyncio.to_thread(web.open_file, self._connections(), url)
        progress({"status": f"Downloading from {url}"})
        try:
            while data := await asyncio.to_thread(web.read, response, url):
                yield data
        finally:
            response.close()

    async def search(self, term: str, limit: int, auth: Credentials | None) -> list[Repository]:
        """Return repositories that a registry, docker.io unless said, finds for a term."""
        return await asyncio.to_thread(self._search, term, limit, auth)

    def _search(self, term: str, limit: int, auth: Credentials | None) -> list[Repository]:
        from berth.registry.search import search, split

        domain, rest = split(term)
        endpoints = self._endpoints.itself(domain)
        for endpoint in endpoints:
            try:
                return search(self._connections(), endpoint, rest, limit, auth)
            except Unavailable:
                if endpoint is endpoints[-1]:
                    raise
        raise AssertionError("there is always an endpoint")

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

        domain = access.reference.domain
        endpoints = self._endpoints.of(domain, access.actions)
        for endpoint in endpoints:
            session = Session(
                endpoint=endpoint,
                reference=access.reference,
                # A mirror is somebody else: the registry's password is not for it.
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

    def close(self) -> None:
        """Close connections and end the threads that wait for work."""
        self._downloads.close()
        self._uploads.shutdown(wait=False, cancel_futures=True)
        if self._transport is not None:
            self._transport.close()


def _resolve(session: Session, platform: Platform) -> Resolved:
    from berth.registry.resolve import resolve

    return resolve(session, platform)
