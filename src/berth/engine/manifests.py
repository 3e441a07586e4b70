"""Manifests in registries: seen as they are, and several put together under one name."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from berth.oci.platform import Platform  # noqa: TC001 - msgspec reads it
from berth.oci.reference import Reference
from berth.registry.auth import Credentials

if TYPE_CHECKING:
    from berth.registry.client import RegistryClient

Document = dict[str, object]


class Source(msgspec.Struct, rename="pascal", kw_only=True):
    """An image that becomes part, and its platform when that is not what the image says."""

    ref: str
    platform: Platform | None = None


class AssembleRequest(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``POST /distribution/NAME/index``."""

    manifests: list[Source]


class Manifests:
    """What an engine does with manifests that stay in registries."""

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry

    async def raw(self, name: str, *, auth: str) -> Document:
        """Return a manifest or index, its bytes in base64."""
        found, data = await self._registry.raw(Reference.parse(name), Credentials.decode(auth))
        return {
            "Descriptor": msgspec.to_builtins(found),
            "Manifest": base64.b64encode(data).decode(),
        }

    async def referrers(self, name: str, *, kind: str, auth: str) -> Document:
        """Return what refers to a manifest in its registry, of a type if one is given."""
        subject, found = await self._registry.referrers(
            Reference.parse(name), Credentials.decode(auth), kind=kind
        )
        return {
            "Subject": msgspec.to_builtins(subject),
            "Referrers": [msgspec.to_builtins(entry) for entry in found],
        }

    async def assemble(self, name: str, request: AssembleRequest, *, auth: str) -> Document:
        """Make a tag an index of images that are in the same registry."""
        sources = [
            (Reference.parse(source.ref).with_default_tag(), source.platform)
            for source in request.manifests
        ]
        target = Reference.parse(name).with_default_tag()
        found = await self._registry.assemble(target, sources, Credentials.decode(auth))
        return {"Digest": found.digest, "Size": found.size}
