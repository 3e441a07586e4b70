"""Pushing: from the content store into a registry, layers first, the manifest last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from berth.oci.digest import Digest
from berth.registry import progress as messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from berth.content.store import ContentStore
    from berth.oci.image import Descriptor
    from berth.registry.begun import BegunUploads
    from berth.registry.progress import Progress
    from berth.registry.referrers import Attached
    from berth.registry.session import Session

MAX_UPLOADS = 5  # at once, of all pushes together, as Docker


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is pushed. The blobs are in the content store, held by the caller."""

    manifest: bytes
    media_type: str
    config: Descriptor
    layers: Sequence[Descriptor]
    names: Sequence[str]  # what the layers are called in messages: their diff IDs
    # Of a digest: repositories of the registry that have it.
    neighbours: Mapping[str, Sequence[str]]
    referrers: Sequence[Attached] = ()  # to the manifest, and to each other: subjects first


async def push(
    session: Session,
    parcel: Parcel,
    *,
    content: ContentStore,
    progress: Progress,
    pool: Executor,
    begun: BegunUploads | None,
) -> str:
    """Send what the registry lacks; return the manifest's digest. ``progress`` is called in the loop."""
    loop = asyncio.get_running_loop()

    def report(message: messages.Message) -> None:
        if not session.patience.is_cancelled:
            loop.call_soon_threadsafe(progress, message)

    work: dict[str, tuple[Descriptor, str]] = {}
    for layer, name in zip(parcel.layers, parcel.names, strict=True):
        progress(messages.state(name, "Preparing" if len(work) < MAX_UPLOADS else "Waiting"))
        work.setdefault(layer.digest, (layer, name))
    uploads = [
        loop.run_in_executor(
            pool,
            _upload,
            session,
            layer,
            content,
            messages.Meter(name, layer.size, report, status="Pushing"),
            _way(session, parcel, layer.digest, begun),
        )
        for layer, name in work.values()
    ]
    try:
        await asyncio.gather(*uploads)
        quiet = messages.Meter(parcel.config.digest, parcel.config.size, lambda _: None)
        await asyncio.to_thread(_upload, session, parcel.config, content, quiet, _Way())
        await asyncio.to_thread(session.retry, lambda: _put_manifest(session, parcel))
        for one in parcel.referrers:
            await asyncio.to_thread(_push_referrer, session, one, content)
            progress(messages.referrer(one.descriptor, "Pushed"))
    finally:
        session.patience.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
    digest = str(Digest.of(parcel.manifest))
    tag = session.reference.tag or ""
    for message in messages.pushed(tag, digest, len(parcel.manifest)):
        progress(message)
    return digest


class _Way(NamedTuple):
    """How a blob may come into the registry."""

    neighbours: Sequence[str] = ()
    place: str = ""  # where an earlier upload of it began
    note: Callable[[str], object] = lambda _: None  # remembers where a new one did, in any thread


def _way(session: Session, parcel: Parcel, digest: str, begun: BegunUploads | None) -> _Way:
    neighbours = parcel.neighbours.get(digest, ())
    if begun is None:
        return _Way(neighbours)
    url, loop = session.url(f"blobs/{digest}"), asyncio.get_running_loop()

    def note(place: str) -> None:
        loop.call_soon_threadsafe(begun.note, url, place)

    return _Way(neighbours, begun.get(url), note)


def _upload(
    session: Session,
    descriptor: Descriptor,
    content: ContentStore,
    meter: messages.Meter,
    way: _Way,
) -> None:
    from berth.registry.upload import Upload

    upload = Upload(session, descriptor, content, meter, place=way.place, note=way.note)
    upload.run(way.neighbours)


def _push_referrer(session: Session, one: Attached, content: ContentStore) -> None:
    from berth.registry.referrers import attach

    for blob in one.blobs:
        quiet = messages.Meter(blob.digest, blob.size, lambda _: None)
        _upload(session, blob, content, quiet, _Way())
    session.retry(lambda: attach(session, one))


def _put_manifest(session: Session, parcel: Parcel) -> None:
    headers = {"Content-Type": parcel.media_type}
    wanted = (HTTPStatus.CREATED, HTTPStatus.OK)
    which = session.reference.digest or session.reference.tag
    url = session.url(f"manifests/{which}")
    session.call("PUT", url, wanted, headers=headers, body=lambda: parcel.manifest)
