"""What images are like that are made here: of another with a layer more or none, or of a tar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.images.records import Image
from berth.oci.image import History, ImageConfig, ImageDocument, RootFs

if TYPE_CHECKING:
    from pathlib import Path

    from berth.oci.platform import Platform

EMPTY_TAR = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A layer as a plain tar in a file of the ingest directory, if any, and what is said about it."""

    layer: Path | None = None
    digest: str = EMPTY_TAR
    size: int = 0
    config: ImageConfig
    author: str = ""
    comment: str = ""
    created_by: str = ""
    created: str = ""  # now, unless said
    step: str = ""  # of a build: what tells it from others on the same parent

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed: no layer then, as in Docker."""
        return self.digest == EMPTY_TAR


def nothing(platform: Platform) -> Image:
    """Return what an image is made of that has no parent."""
    return Image(
        id="",
        config=ImageConfig(),
        chain_id="",
        diff_ids=[],
        size_bytes=0,
        created="",
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
    )


def document(
    commit: Commit, parent: Image, parents: ImageDocument, *, created: str
) -> ImageDocument:
    """Return the new image's configuration; ``parents`` is that of the image it came from."""
    step = History(
        created=created,
        created_by=commit.created_by,
        author=commit.author,
        comment=commit.comment,
        empty_layer=commit.is_empty,
    )
    return ImageDocument(
        architecture=parent.architecture,
        os=parent.os,
        variant=parent.variant,
        created=created,
        author=commit.author,
        comment=commit.comment,
        config=commit.config,
        rootfs=RootFs(diff_ids=[*parent.diff_ids, *([] if commit.is_empty else [commit.digest])]),
        history=[*_history(parent, parents), step],
    )


def _history(parent: Image, document: ImageDocument) -> list[History]:
    """Return the parent's history, with a step for every layer that it does not speak of."""
    steps = list(document.history or ())
    missing = len(parent.diff_ids) - sum(not step.empty_layer for step in steps)
    steps += [History(created=parent.created, comment=parent.comment) for _ in range(missing)]
    if parent.builtin:
        steps = [History(created=parent.created, comment=parent.comment, empty_layer=True)]
    return steps


def imported(
    diff_id: str, config: ImageConfig, platform: Platform, *, comment: str, created: str
) -> ImageDocument:
    """Return the configuration of an image that is one imported layer."""
    return ImageDocument(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        comment=comment,
        config=config,
        rootfs=RootFs(diff_ids=[diff_id]),
        history=[History(created=created, comment=comment)],
    )
