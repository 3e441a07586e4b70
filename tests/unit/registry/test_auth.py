import base64
import json

import pytest

from berth.errors import InvalidArgument, Unauthorized
from berth.registry.auth import (
    Authorizer,
    Challenge,
    Credentials,
    guard,
    parse_challenges,
    read_token,
    token_request,
)


def header(document):
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def test_challenges_are_read():
    assert parse_challenges(
        'Bearer realm="https://a/t?x=1",service="s, \\"q\\"", Basic realm=plain'
    ) == [
        Challenge("bearer", {"realm": "https://a/t?x=1", "service": 's, "q"'}),
        Challenge("basic", {"realm": "plain"}),
    ]
    assert parse_challenges("Negotiate") == [Challenge("negotiate", {})]
    assert parse_challenges("") == []


def test_credentials_come_from_docker_s_header():
    assert Credentials.decode("") is None
    assert Credentials.decode(header({})) is None
    assert Credentials.decode(header(None)) is None
    expected = Credentials(username="u", password="p:q")
    assert Credentials.decode(header({"username": "u", "password": "p:q", "email": ""})) == expected
    assert Credentials.decode(header({"username": "u", "password": "p:q"}).rstrip("=")) == expected
    assert Credentials.decode(header({"auth": base64.b64encode(b"u:p:q").decode()})) == expected
    for wrong in ("!", header([]), header({"auth": "!!"})):
        with pytest.raises(InvalidArgument):
            Credentials.decode(wrong)


def test_tokens_are_asked_for_with_what_is_known():
    challenge = Challenge("bearer", {"realm": "https://a/t?x=1", "service": "s"})
    anonymous = token_request(challenge, None, "repository:a:pull")
    assert anonymous.url == "https://a/t?x=1&scope=repository%3Aa%3Apull&service=s"
    assert anonymous.authorization is None
    refresh = token_request(challenge, Credentials(identitytoken="i"), "repository:a:pull")
    assert refresh.form is not None
    assert refresh.form["refresh_token"] == "i"
    with pytest.raises(Unauthorized, match="realm"):
        token_request(Challenge("bearer", {"realm": "file:///etc"}), None, "")


def test_answers_without_a_token_are_refused():
    assert read_token(b'{"access_token": "t"}') == "t"
    for body in (b"{}", b"\xff", b"[]"):
        with pytest.raises(Unauthorized, match="did not include a token"):
            read_token(body)


def test_a_refused_header_is_renewed_once_for_all_threads():
    asked = []
    tokens = iter(("one", "two"))

    def fetch(request):
        asked.append(request)
        return json.dumps({"token": next(tokens)}).encode()

    authorizer = Authorizer(None, "scope", fetch)
    challenge = 'Bearer realm="https://a/t"'
    assert authorizer.renew(challenge, None)
    assert authorizer.renew(challenge, None)
    assert authorizer.header == "Bearer one"
    assert authorizer.renew(challenge, "Bearer one")
    assert authorizer.header == "Bearer two"
    assert len(asked) == 2


def test_a_refused_password_is_not_sent_again():
    authorizer = Authorizer(Credentials(username="u", password="p"), "scope", lambda _: b"")
    assert authorizer.renew("Basic realm=x", None)
    assert not authorizer.renew("Basic realm=x", authorizer.header)
    assert not authorizer.renew("Negotiate", authorizer.header)


def test_a_secret_does_not_leave_without_tls_when_the_registry_has_it():
    challenge = Challenge("bearer", {"realm": "http://tokens.invalid/t", "service": "s"})
    secret = token_request(challenge, Credentials(username="u", password="p"), "")
    with pytest.raises(Unauthorized, match="refusing to send credentials"):
        guard(secret, "https://images.invalid", verify=True)
    guard(secret, "http://images.invalid", verify=True)
    guard(secret, "https://127.0.0.1", verify=False)
    guard(token_request(challenge, None, ""), "https://images.invalid", verify=True)
