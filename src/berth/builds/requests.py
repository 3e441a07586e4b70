"""What a client asks of a build, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from berth.builds.offers import NO_OFFERS
from berth.errors import InvalidArgument
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.builds.context import Context
    from berth.builds.offers import Offers
    from berth.engine.models import HostConfig
    from berth.oci.platform import Platform

    NamedContext = str | Context  # an image, or files that were received

DEFAULT_TAG = ":latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """The parameters of ``POST /build``, and what its client says and lends by other ways."""

    dockerfile: str = "Dockerfile"
    remote: str = ""  # URL of a Dockerfile or of an archive
    tags: Sequence[str] = ()
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)  # None: not set on purpose
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: Sequence[str] = ()
    cache_adds: bool = False  # these beside what is here, not instead of it
    use_cache: bool = True
    fresh_stages: Sequence[str] = ()  # that use no cache
    pull: bool = False
    quiet: bool = False
    remove: bool = True  # containers of a build that went well
    always_remove: bool = False  # of one that did not, too
    platform: Platform | None = None
    host: HostConfig  # of the containers of RUN
    registries: Mapping[str, str] = field(default_factory=dict)  # X-Registry-Auth by server
    contexts: Mapping[str, NamedContext] = field(
        default_factory=dict
    )  # instead of stages and images
    offers: Offers = NO_OFFERS

    def context(self, name: str) -> NamedContext | None:
        """Return what is to be taken for a name: an image's name, or files; None for nothing else."""
        if not self.contexts:
            return None
        for known in (f"{name}::{self.platform}", name):  # the first for one platform of several
            if known in self.contexts:
                return self.contexts[known]
        try:
            familiar = Reference.parse(name).familiar()
        except InvalidArgument:
            return None
        return self.contexts.get(familiar.removesuffix(DEFAULT_TAG), self.contexts.get(familiar))
