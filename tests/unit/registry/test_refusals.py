import json

import pytest

from berth.errors import Corrupt, Failed, Forbidden, NotFound, Unauthorized, Unavailable
from berth.oci.reference import Reference
from berth.registry.refusals import refusal

REFERENCE = Reference.parse("a/b:1")


def refuse(status, *, code=None, message="", body=b"", challenge=""):
    if code:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return refusal(status, body, challenge, REFERENCE)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "text"),
    [
        (
            404,
            "MANIFEST_UNKNOWN",
            "manifest unknown",
            NotFound,
            "manifest for a/b:1 not found: manifest unknown: manifest unknown",
        ),
        (404, "NAME_UNKNOWN", "no", NotFound, "repository a/b not found: name unknown: no"),
        (
            403,
            "DENIED",
            "no",
            NotFound,
            "pull access denied for a/b, repository does not exist or may require 'docker login':"
            " denied: no",
        ),
        (401, "UNAUTHORIZED", "who?", Unauthorized, "unauthorized: who?"),
        (429, "TOOMANYREQUESTS", "slow", Unavailable, "toomanyrequests: slow"),
        (403, "ODD_CODE", "no", Forbidden, "odd code: no"),
    ],
)
def test_codes_become_docker_s_texts(status, code, message, kind, text):
    error = refuse(status, code=code, message=message)
    assert (type(error), str(error)) == (kind, text)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, Unauthorized, "unauthorized: authentication required"),
        (404, NotFound, "received unexpected HTTP status: 404 Not Found"),
        (416, Corrupt, "received unexpected HTTP status: 416"),
        (502, Unavailable, "received unexpected HTTP status: 502 Bad Gateway"),
        (418, Failed, "received unexpected HTTP status: 418"),
        (999, Failed, "received unexpected HTTP status: 999"),
    ],
)
def test_answers_of_other_servers_are_told_by_their_status(status, kind, text):
    for body in (b"", b"<html>", b"[]", b'{"errors": null}', b"\xff"):
        error = refuse(status, body=body)
        assert type(error) is kind
        assert str(error).startswith(text)


def test_a_token_that_allows_too_little_is_a_denial():
    error = refuse(401, challenge='Bearer realm="r",error="insufficient_scope"')
    assert str(error).endswith("denied: requested access to the resource is denied")
