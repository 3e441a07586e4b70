"""Images as BuildKit's graphs have them: one operation that names it, and the one that is its result.

Clients keep what a build has led to as a graph, and hand it to the builds that need it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from berth.buildkit import messages
from berth.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from google.protobuf.message import Message

IMAGE = "docker-image://"


def definition_of(image_id: str) -> Message:
    """Return the graph of an image."""
    op = messages.of("Op")()
    op.source.identifier = f"{IMAGE}{image_id}"
    source = op.SerializeToString(deterministic=True)
    digest = f"sha256:{hashlib.sha256(source).hexdigest()}"
    result = messages.of("Op")()
    result.inputs.add(digest=digest)
    found = messages.of("Definition")(**{"def": [source, result.SerializeToString()]})
    found.metadata[digest].SetInParent()  # without any, clients take it for nothing
    return found


def source_of(definition: Message) -> str:
    """Return what a graph names; Unsupported when it is more than an image or a URL."""
    ops = list(getattr(definition, "def"))
    try:
        found = [messages.of("Op").FromString(data) for data in ops]
    except DecodeError as error:
        raise InvalidArgument(f"this is no graph: {error}") from error
    names = [op.source.identifier for op in found if op.HasField("source")]
    if len(ops) != 2 or len(names) != 1:
        raise Unsupported("graphs of BuildKit (LLB) are not run: berth reads Dockerfiles itself")
    return str(names[0])
