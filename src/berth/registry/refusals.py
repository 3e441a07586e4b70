"""What a registry's refusal means, in the words of Docker's clients. Pure.

Registries answer with ``{"errors": [{"code", "message"}]}`` (distribution-spec, "Error Codes").
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from berth.errors import BerthError, Corrupt, Failed, Forbidden, NotFound, Unauthorized, Unavailable
from berth.registry.auth import parse_challenges

if TYPE_CHECKING:
    from berth.oci.reference import Reference

DENIED = "requested access to the resource is denied"
AUTHENTICATE = "authentication required"
TRANSIENT = (408, 429, 500, 502, 503, 504)
MAX_TEXT_CHARS = 400


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] | None = None


def refusal(
    status: int, body: bytes, challenge: str, reference: Reference, *, pulling: bool = True
) -> BerthError:
    """Return the error for an answer that is neither what was asked for nor a redirect."""
    error = _first_error(status, body, challenge)
    text = f"{error.code.lower().replace('_', ' ')}: {error.message}"
    if not pulling:
        return _kind(status)(text if error.code else _status_text(status))
    if error.code == "DENIED":
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may"
            f" require 'docker login': {text}"
        )
    if error.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {reference.familiar()} not found: {text}")
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {reference.familiar_name} not found: {text}")
    return _kind(status)(text if error.code else _status_text(status))


def _kind(status: int) -> type[BerthError]:
    if status in TRANSIENT:
        return Unavailable
    kinds = {401: Unauthorized, 403: Forbidden, 404: NotFound, 416: Corrupt}
    return kinds.get(status, Failed)


def _status_text(status: int) -> str:
    known = {entry.value: entry.phrase for entry in HTTPStatus}
    return f"received unexpected HTTP status: {status} {known.get(status, '')}".rstrip()


def _first_error(status: int, body: bytes, challenge: str) -> _Error:
    # An authorization server that gave less than was asked for shows only in the challenge.
    for offer in parse_challenges(challenge):
        if offer.parameters.get("error") == "insufficient_scope":
            return _Error("DENIED", offer.parameters.get("error_description") or DENIED)
    try:
        found = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if found and found[0].code:
        return _Error(found[0].code[:MAX_TEXT_CHARS], found[0].message[:MAX_TEXT_CHARS])
    return _Error("UNAUTHORIZED", AUTHENTICATE) if status == HTTPStatus.UNAUTHORIZED else _Error()
