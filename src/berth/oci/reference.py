"""References to images as people write them, normalised as Docker does.

``name[:tag][@digest]``, where the name is ``[domain/]path``; without a domain Docker Hub is meant, and a
name of one component there is an official image (``library/``). The grammar is that of
https://github.com/distribution/reference; the error texts are those that Docker's clients show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from berth.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
HUB_DOMAINS = (DEFAULT_DOMAIN, LEGACY_DOMAIN, "registry-1.docker.io")
OFFICIAL = "library"
DEFAULT_TAG = "latest"
MAX_NAME_CHARS = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"({_DOMAIN})/({_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?")
_TAG_ALONE = re.compile(_TAG)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_HEX = re.compile(r"[a-f0-9]+")
_HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A normalised reference. ``str()`` gives it in full, :meth:`familiar` as Docker lists it."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that ``text`` means. InvalidArgument with Docker's text."""
        if _IDENTIFIER.fullmatch(text):
            raise InvalidArgument(
                f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )
        domain, rest = _split_domain(text)
        name = rest.partition(":")[0]
        if name != name.lower():
            raise InvalidArgument(
                f"invalid reference format: repository name ({name}) must be lowercase"
            )
        match = _REFERENCE.fullmatch(f"{domain}/{rest}")
        if match is None:
            raise InvalidArgument("invalid reference format")
        domain, path, tag, digest = match.groups()
        if len(path) > MAX_NAME_CHARS:
            raise InvalidArgument(
                f"repository name must not be more than {MAX_NAME_CHARS} characters"
            )
        if digest is not None:
            _check_digest(digest)
        return cls(domain=domain, path=path, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """The repository in full: ``docker.io/library/debian``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as short as people write it: ``debian``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, _, rest = self.path.partition("/")
        if first == OFFICIAL and "/" not in rest and rest != DEFAULT_DOMAIN:
            return rest
        return self.path

    @property
    def is_name_only(self) -> bool:
        """Whether there is neither a tag nor a digest."""
        return self.tag is None and self.digest is None

    def familiar(self) -> str:
        """Return the whole reference as short as people write it."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """Return the reference with ``latest`` when it has neither tag nor digest."""
        return replace(self, tag=DEFAULT_TAG) if self.is_name_only else self

    def with_tag(self, tag: str) -> Reference:
        """Return the repository with this tag and no digest. InvalidArgument with Docker's text."""
        if not _TAG_ALONE.fullmatch(tag):
            raise InvalidArgument("invalid tag format")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> Reference:
        """Return the repository with this digest and no tag. InvalidArgument with Docker's text."""
        _check_digest(digest)
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag


def _split_domain(text: str) -> tuple[str, str]:
    """Return the domain and the rest; what looks like no host is the start of Docker Hub's path."""
    first, slash, rest = text.partition("/")
    is_host = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    domain, rest = (first, rest) if is_host else (DEFAULT_DOMAIN, text)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"{OFFICIAL}/{rest}"
    return domain, rest


def _check_digest(digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    digits = _HEX_DIGITS.get(algorithm)
    if digits is None:
        raise InvalidArgument("unsupported digest algorithm")
    if len(value) != digits:
        raise InvalidArgument("invalid checksum digest length")
    if not _HEX.fullmatch(value):
        raise InvalidArgument("invalid checksum digest format")
