"""Dockerfile instructions that change an image's configuration (`import --change`, `commit --change`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.image import ImageConfig

CHANGES = (
    *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL"),
    *("USER", "VOLUME", "WORKDIR"),
)


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """Return ``config`` with the instructions applied in order. InvalidArgument names a wrong one."""
    if not changes:
        return config
    from berth.dockerfile import instructions, syntax
    from berth.dockerfile.settings import Settings

    settings = Settings(config)
    for change in changes:
        if not any(row.strip() and not row.lstrip().startswith("#") for row in change.split("\n")):
            continue
        for line in syntax.parse(change).lines:
            if line.name not in CHANGES:
                raise InvalidArgument(f"{line.name} is not a valid change command")
            settings.apply(instructions.read(line), settings.environment())
    return settings.config
