"""Routes of images."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - `list` is a method here
from typing import TYPE_CHECKING

import msgspec

from berth.api import compatibility
from berth.api.exchange import TAR
from berth.api.progress import ProgressStream
from berth.api.router import Route
from berth.engine.manifests import AssembleRequest
from berth.errors import BerthError, InvalidArgument, Unsupported
from berth.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.api.parameters import Call
    from berth.engine.engine import Engine


class ImageRoutes:
    """``/images``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    def routes(self) -> list[Route]:
        """Return the table; the order counts, for names have slashes."""
        return [
            Route("GET", "/images/json", self.list),
            Route("POST", "/images/create", self.create, long=True),
            Route("POST", "/images/load", self.load, long=True),
            Route("POST", "/images/prune", self.prune),
            Route("GET", "/images/get", self.save, long=True),
            Route("GET", "/images/{}/get", self.save_one, long=True),
            Route("GET", "/images/{}/json", self.inspect),
            Route("GET", "/images/{}/history", self.history),
            Route("POST", "/images/{}/tag", self.tag),
            Route("POST", "/images/{}/push", self.push, long=True),
            Route("GET", "/images/{}/attestations", self.attestations),
            Route("GET", "/images/search", self.search),
            Route("GET", "/distribution/{}/json", self.distribution),
            Route("GET", "/distribution/{}/raw", self.raw_manifest),
            Route("GET", "/distribution/{}/referrers", self.referrers),
            Route("POST", "/distribution/{}/index", self.assemble),
            Route("DELETE", "/images/{}", self.remove),
        ]

    async def list(self, call: Call) -> None:
        """Answer summaries."""
        filters = call.filters()
        if (name := call.text("filter")) and call.version < compatibility.IMAGE_FILTERS_SINCE:
            filters.setdefault("reference", []).append(name)
        manifests = call.flag("manifests") and call.version >= compatibility.MANIFESTS_SINCE
        found = self._engine.image_list(
            filters,
            all_=call.flag("all"),
            manifests=manifests,
            shared_size=call.flag("shared-size"),
        )
        compatibility.older_images(found, call.version)
        await call.exchange.respond(200, found)

    async def inspect(self, call: Call) -> None:
        """Answer everything about one."""
        manifests = call.flag("manifests") and call.version >= compatibility.MANIFESTS_SINCE
        found = self._engine.image_inspect(call.name, chosen_platform(call), manifests=manifests)
        compatibility.older_image(found, call.version)
        await call.exchange.respond(200, found)

    async def attestations(self, call: Call) -> None:
        """Refuse what a store without image indexes cannot know, as Docker's older one does."""
        self._engine.image_inspect(call.name, chosen_platform(call))
        raise Unsupported("attestations of images are not kept")

    async def history(self, call: Call) -> None:
        """Answer how one came about."""
        await call.exchange.respond(
            200, self._engine.image_history(call.name, chosen_platform(call))
        )

    async def tag(self, call: Call) -> None:
        """Give one another name."""
        self._images.tag(call.name, reference_of(call.text("repo"), call.text("tag")))
        await call.exchange.respond(201)

    async def remove(self, call: Call) -> None:
        """Remove a name, or the image."""
        platforms = [read_platform(text) for text in call.texts("platforms")]
        removed = await self._images.remove(
            call.name,
            platforms=platforms,
            force=call.flag("force"),
            prune=not call.flag("noprune"),
        )
        await call.exchange.respond(200, removed)

    async def prune(self, call: Call) -> None:
        """Remove what no container uses."""
        await call.exchange.respond(200, await self._images.prune(call.filters()))

    async def create(self, call: Call) -> None:
        """Pull an image, or import one from the body."""
        if call.text("fromImage"):
            await self._pull(call)
        else:
            await self._import(call)

    async def _pull(self, call: Call) -> None:
        stream = ProgressStream(call.exchange)
        await self._engine.pulls.pull(
            reference_of(call.text("fromImage"), call.text("tag")),
            platform=call.text("platform"),
            auth=call.exchange.header(b"x-registry-auth") or "",
            referrers=call.flag("referrers"),
            progress=stream.report,
        )
        await stream.end()

    async def push(self, call: Call) -> None:
        """Push an image, or all tags of a repository."""
        stream = ProgressStream(call.exchange)
        await self._engine.pushes.push(
            reference_of(call.name, call.text("tag")),
            auth=call.exchange.header(b"x-registry-auth") or "",
            platform=chosen_platform(call),
            referrers=call.flag("referrers"),
            progress=stream.report,
        )
        await stream.end()

    async def distribution(self, call: Call) -> None:
        """Answer what a registry has under a name."""
        auth = call.exchange.header(b"x-registry-auth") or ""
        found = await self._engine.distribution(call.name, auth=auth)
        await call.exchange.respond(200, found)

    async def search(self, call: Call) -> None:
        """Answer what a registry finds for a term."""
        found = await self._engine.searches.search(
            call.text("term"),
            limit=call.integer("limit"),
            filters=call.filters(),
            auth=call.exchange.header(b"x-registry-auth") or "",
        )
        await call.exchange.respond(200, found)

    async def raw_manifest(self, call: Call) -> None:
        """Answer a manifest or index as a registry has it. Docker's clients ask registries themselves."""
        auth = call.exchange.header(b"x-registry-auth") or ""
        await call.exchange.respond(200, await self._engine.manifests.raw(call.name, auth=auth))

    async def referrers(self, call: Call) -> None:
        """Answer what refers to a manifest in its registry: signatures and other artifacts."""
        auth = call.exchange.header(b"x-registry-auth") or ""
        kind = call.text("artifactType")
        found = await self._engine.manifests.referrers(call.name, kind=kind, auth=auth)
        await call.exchange.respond(200, found)

    async def assemble(self, call: Call) -> None:
        """Make a tag of a registry an index of images there."""
        auth = call.exchange.header(b"x-registry-auth") or ""
        request = await call.decode(AssembleRequest, required=True)
        found = await self._engine.manifests.assemble(call.name, request, auth=auth)
        await call.exchange.respond(201, found)

    async def _import(self, call: Call) -> None:
        stream = ProgressStream(call.exchange)
        source = call.text("fromSrc") or "-"
        image = await self._images.import_rootfs(
            call.exchange.body_stream()
            if source == "-"
            else self._engine.download(source, stream.report),
            reference=reference_of(call.text("repo"), call.text("tag")) or None,
            message=call.text("message"),
            changes=call.texts("changes"),
            platform=call.text("platform") or None,
        )
        stream.report({"status": image.id})
        await stream.end()

    async def load(self, call: Call) -> None:
        """Load the images of the archive in the body."""
        stream = ProgressStream(call.exchange)
        report = quiet if call.flag("quiet") else stream.report
        try:
            loaded = await self._images.load(
                call.exchange.body_stream(), platform=chosen_platform(call), progress=report
            )
        except BerthError:
            stream.begin()  # it is said in the stream, as Docker does here alone
            raise
        for line in loaded:
            stream.report({"stream": line + "\n"})
        await stream.end()

    async def save(self, call: Call) -> None:
        """Answer an archive of several images."""
        names = [name for value in call.texts("names") for name in value.split(",") if name]
        await self._send(call, names)

    async def save_one(self, call: Call) -> None:
        """Answer an archive of one image."""
        await self._send(call, [call.name])

    async def _send(self, call: Call, names: Sequence[str]) -> None:
        chunks = self._images.save(names, chosen_platform(call), referrers=call.flag("referrers"))
        call.exchange.begin(TAR)
        async for chunk in chunks:
            await call.exchange.write(chunk)
        await call.exchange.end()


def chosen_platform(call: Call) -> Platform | None:
    """Return the platform that a request names, if it does."""
    text = call.text("platform")
    return read_platform(text) if text else None


def read_platform(text: str) -> Platform:
    """Read a platform as Docker's clients send it since API 1.46, in JSON, or as people write it."""
    if not text.startswith("{"):
        return Platform.parse(text)
    try:
        return msgspec.json.decode(text, type=Platform).normal()
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid platform: {error}") from None


def quiet(_: Mapping[str, object]) -> None:
    """Report to nobody."""


def reference_of(name: str, tag: str) -> str:
    """Join a name with a tag or digest given apart, as clients send them."""
    if not tag or not name:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
