"""Messages about a pull, as Docker's JSON stream has them and its clients draw them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berth.oci.image import Descriptor
    from berth.oci.reference import Reference

Message = dict[str, object]
Progress = Callable[[Message], None]

INTERVAL_S = 0.1
SHORT_CHARS = 12


def short(digest: str) -> str:
    """Return how a layer is called in messages."""
    return digest.partition(":")[2][:SHORT_CHARS]


def pulling(reference: Reference) -> Message:
    """Say what is being pulled."""
    what = reference.digest or reference.tag or ""
    return {"status": f"Pulling from {reference.path}", "id": what}


def state(digest: str, status: str) -> Message:
    """Say what happens to a layer."""
    return {"status": status, "progressDetail": {}, "id": short(digest)}


def summary(reference: Reference, digest: str, *, newer: bool) -> tuple[Message, Message]:
    """Return the last two messages of a pull that succeeded."""
    what = "Downloaded newer image for" if newer else "Image is up to date for"
    return (
        {"status": f"Digest: {digest}"},
        {"status": f"Status: {what} {reference.familiar()}"},
    )


def referrer(found: Descriptor, status: str) -> Message:
    """Say what happened to an artifact that refers to an image."""
    return {"status": f"{status} referrer {found.digest} ({found.artifact_type})"}


def pushed(tag: str, digest: str, size: int) -> tuple[Message, Message]:
    """Return the last two messages of a push: for people, and for programs."""
    aux = {"Tag": tag, "Digest": digest, "Size": size}
    return (
        {"status": f"{tag}: digest: {digest} size: {size}"},
        {"progressDetail": {}, "aux": aux},
    )


class Meter:
    """Reports the bytes of one layer, ten times a second at most. Called in any thread."""

    def __init__(
        self, digest: str, total_bytes: int, report: Progress, *, status: str = "Downloading"
    ) -> None:
        self._digest = digest  # what the layer is called by
        self._status = status
        self._total_bytes = total_bytes
        self._report = report
        self._next_s = 0.0

    def at(self, current_bytes: int) -> None:
        """Report how far it is, unless it just was."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + INTERVAL_S
        self._report(
            {
                "status": self._status,
                "progressDetail": {"current": current_bytes, "total": self._total_bytes},
                "id": short(self._digest),
            }
        )

    def say(self, status: str) -> None:
        """Report a state."""
        self._report(state(self._digest, status))
