"""Which images there are and what they are called. Records in memory and in the state database."""

from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Conflict, InvalidArgument, NotFound
from berth.images.records import Image
from berth.oci import times
from berth.oci.platform import Platform, choose, this_machine
from berth.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from berth.state import State

    Filters = Mapping[str, Sequence[str]]

HEX = frozenset("0123456789abcdef")
ID_LENGTH = 64
TRUE, FALSE = {"1", "true"}, {"0", "false"}
KNOWN_FILTERS = ("dangling", "label", "label!", "before", "since", "reference", "until")


def familiar(reference: str) -> str:
    """Return a name as it is listed: with its tag, without Docker Hub's prefix."""
    return Reference.parse(reference).with_default_tag().familiar()


class Catalog:
    """Images by id and by name."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._table = state.table("images", Image)
        self._images = dict(self._table.items())
        self._made: dict[tuple[str, str], set[str]] = {}  # ids, by parent and step
        for image in self._images.values():
            self._index(image)

    def _index(self, image: Image) -> None:
        if image.step:
            self._made.setdefault((image.parent, image.step), set()).add(image.id)

    def made(self, parent: str, step: str) -> list[Image]:
        """Return the images that this step of a build has made of another, the youngest first."""
        found = [self._images[id_] for id_ in self._made.get((parent, step), ())]
        return sorted(found, key=lambda image: created_ns(image.created), reverse=True)

    def all(self) -> list[Image]:
        """Return every image, the youngest first."""
        return sorted(
            self._images.values(), key=lambda image: created_ns(image.created), reverse=True
        )

    def get(self, id_: str) -> Image | None:
        """Return the image with this full id."""
        return self._images.get(id_)

    def put(self, image: Image) -> None:
        """Add or replace an image."""
        self._table.put(image.id, image, durable=True)
        self._images[image.id] = image
        self._index(image)

    def drop(self, image: Image) -> None:
        """Forget an image."""
        self._table.remove(image.id, durable=True)
        self._images.pop(image.id, None)
        made = self._made.get((image.parent, image.step), set())
        made.discard(image.id)
        if not made:
            self._made.pop((image.parent, image.step), None)

    def resolve(self, ref: str, platform: Platform | None = None) -> Image:
        """Return the image that ``ref`` names: a reference, an id or a unique prefix of one.

        Of several platforms under a name, ``platform``, else what suits this machine, else the last
        that got the name.
        """
        found = self.named(ref)
        position = choose(platform or this_machine(), [platform_of(image) for image in found])
        if position is not None:
            return found[position]
        if platform is not None:
            raise NotFound(
                f"image with reference {ref} was found but does not provide the specified"
                f" platform ({platform})"
            )
        return max(found, key=lambda image: image.tagged_ns)

    def named(self, ref: str) -> list[Image]:
        """Return the images that ``ref`` names, at least one: a name may be that of several platforms."""
        digits = ref.removeprefix("sha256:")
        is_hex = bool(digits) and len(digits) <= ID_LENGTH and HEX.issuperset(digits)
        if is_hex and (image := self._images.get(f"sha256:{digits}")):
            return [image]
        if is_hex and (ref != digits or len(digits) == ID_LENGTH):
            return [self._by_prefix(digits, ref)]
        name = familiar(ref)
        images = self._images.values()
        if found := [i for i in images if name in i.names or name in i.repo_digests]:
            return found
        if is_hex:
            return [self._by_prefix(digits, name)]
        raise NotFound(f"No such image: {name}")

    def _by_prefix(self, digits: str, shown: str) -> Image:
        found = [
            image
            for id_, image in self._images.items()
            if id_.removeprefix("sha256:").startswith(digits)
        ]
        if len(found) != 1:
            raise NotFound(f"No such image: {shown}")
        return found[0]

    def names_it(self, ref: str, image: Image) -> str | None:
        """Return the name of ``image`` that ``ref`` is, None when it is its id or part of that."""
        try:
            name = familiar(ref)
        except InvalidArgument:
            return None
        return name if name in image.names or name in image.repo_digests else None

    def give_name(
        self, image: Image, name: str, *, beside: str = "", among: Collection[str] = ()
    ) -> None:
        """Give an image a familiar name, taking it from whichever has it.

        Images of other platforms keep it that came from the same index, ``beside`` (a repo digest), or
        are ``among`` those (ids) that share it.
        """
        with self._state.transaction(durable=True):
            for other in list(self._images.values()):
                if name in other.names and other.id != image.id:
                    if other.builtin:
                        raise Conflict(f"tag {name}: the name is the built-in image's")
                    shares = beside in other.repo_digests or other.id in among
                    if not (shares and is_other_platform(image, other)):
                        self.take_name(other, name)
            image.tagged_ns = time.time_ns()
            if name not in image.names:
                image.names = sorted([*image.names, name])
            self.put(image)

    def take_name(self, image: Image, name: str) -> None:
        """Take a name or a repository digest away from an image."""
        image.names = [known for known in image.names if known != name]
        image.repo_digests = [known for known in image.repo_digests if known != name]
        self.put(image)

    def parents(self) -> set[str]:
        """Return the ids of images that others were made of."""
        return {image.parent for image in self._images.values()}

    def select(self, filters: Filters, *, steps: bool = True) -> list[Image]:
        """Return the images that pass, the youngest first; with ``reference``, only the names that match.

        Without ``steps`` none that has no name and that others were made of: those are steps of builds.
        """
        for key in filters:
            if key not in KNOWN_FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        parents = self.parents()
        found = [
            image
            for image in self.all()
            if (steps or image.names or image.repo_digests or image.id not in parents)
            and self._passes(image, filters, parents)
        ]
        patterns = filters.get("reference")
        if not patterns:
            return found
        narrowed = []
        for image in found:
            names = [name for name in image.names if matches(name, patterns)]
            digests = [name for name in image.repo_digests if matches(name, patterns)]
            if names or digests:
                narrowed.append(msgspec.structs.replace(image, names=names, repo_digests=digests))
        return narrowed

    def _passes(self, image: Image, filters: Filters, parents: set[str]) -> bool:
        if "dangling" in filters:
            is_dangling = not image.names and image.id not in parents
            if flag("dangling", filters["dangling"]) != is_dangling:
                return False
        labels = image.config.labels or {}
        if not all(has_label(labels, wanted) for wanted in filters.get("label", ())):
            return False
        if any(has_label(labels, unwanted) for unwanted in filters.get("label!", ())):
            return False
        made_ns = created_ns(image.created)
        if any(made_ns >= self._made_ns(ref) for ref in filters.get("before", ())):
            return False
        if any(made_ns <= self._made_ns(ref) for ref in filters.get("since", ())):
            return False
        return all(made_ns <= times.moment_ns(text) for text in filters.get("until", ()))

    def _made_ns(self, ref: str) -> int:
        return created_ns(self.resolve(ref).created)


def platform_of(image: Image) -> Platform:
    """Return what an image is for."""
    return Platform(os=image.os, architecture=image.architecture, variant=image.variant).normal()


def is_other_platform(image: Image, other: Image) -> bool:
    """Say whether two images are for different platforms."""
    return platform_of(image) != platform_of(other)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a name, or its repository alone, matches; ``*`` does not match a slash."""
    repository = name.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    return any(
        candidate.count("/") == pattern.count("/") and fnmatch.fnmatchcase(candidate, pattern)
        for pattern in patterns
        for candidate in (name, repository)
    )


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Say whether there is the label ``key`` or ``key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def flag(key: str, values: Sequence[str]) -> bool:
    """Read a boolean filter."""
    found = not TRUE.isdisjoint(values)
    if found != FALSE.isdisjoint(values):  # neither, or both
        shown = f"{key}=[{' '.join(values)}]" if values else key
        raise InvalidArgument(f"invalid filter '{shown}'")
    return found


def created_ns(created: str) -> int:
    """Return when an image was made, as it says; 0 when it does not."""
    try:
        return times.parse_ns(created)
    except ValueError:
        return 0
