"""Answering a registry's challenge (RFC 7235; distribution-spec's token authentication).

Pure but for :class:`Authorizer`, which is given the function that fetches a token.
"""

from __future__ import annotations

import base64
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec

from berth.errors import InvalidArgument, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_ID = "berth"
_ITEM = re.compile(
    r'\s*(?:([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([^\s,=]+))\s*,?'
)


class Credentials(msgspec.Struct, kw_only=True, frozen=True):
    """What a client sends in X-Registry-Auth (AuthConfig of the Engine API)."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    @classmethod
    def decode(cls, header: str) -> Credentials | None:
        """Read the header: base64url of JSON; None when it says nothing."""
        if not header:
            return None
        try:
            data = _decode_base64(header, altchars=b"-_")
            found = msgspec.json.decode(data or b"{}", type=cls | None) or cls()
            return found._completed()
        except (ValueError, msgspec.DecodeError) as error:
            raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from None

    def _completed(self) -> Credentials | None:
        if self.auth and not self.username:
            pair = _decode_base64(self.auth).decode()
            username, _, password = pair.partition(":")
            return msgspec.structs.replace(self, username=username, password=password, auth="")
        return self if self.username or self.identitytoken or self.registrytoken else None

    def basic(self) -> str:
        """Return the Authorization header of the Basic scheme."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def _decode_base64(text: str, *, altchars: bytes | None = None) -> bytes:
    """Decode strictly, with or without padding; ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=altchars, validate=True)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers; scheme and names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Read WWW-Authenticate."""
    found: list[Challenge] = []
    for name, quoted, plain, scheme in _ITEM.findall(header):
        if scheme:
            found.append(Challenge(scheme.lower(), {}))
        elif found:
            found[-1].parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or plain
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """How to ask an authorization server for a token: by POST when there is a form."""

    url: str
    authorization: str | None = None
    form: dict[str, str] | None = None


def guard(request: TokenRequest, registry_url: str, *, verify: bool) -> None:
    """Unauthorized when a secret would leave by http for a registry that is asked by https."""
    if request.authorization is None and request.form is None:
        return
    if verify and registry_url.startswith("https:") and not request.url.startswith("https:"):
        raise Unauthorized(
            f"refusing to send credentials of {registry_url} without TLS to {request.url!r}"
        )


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def token_request(
    challenge: Challenge, credentials: Credentials | None, scope: str
) -> TokenRequest:
    """Return the request that a Bearer challenge asks for; ``scope`` has scopes with spaces between."""
    realm = challenge.parameters.get("realm", "")
    if urlsplit(realm).scheme not in ("http", "https"):
        raise Unauthorized(f"invalid token auth challenge realm: {realm!r}")
    service = challenge.parameters.get("service", "")
    if credentials is not None and credentials.identitytoken:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": CLIENT_ID,
            "scope": scope,
            "refresh_token": credentials.identitytoken,
        }
        return TokenRequest(url=realm, form=form)
    query = [*(("scope", one) for one in scope.split()), ("service", service)]
    authorization = None
    if credentials is not None and credentials.username:
        query.append(("account", credentials.username))
        authorization = credentials.basic()
    pairs = [(name, value) for name, value in query if value]
    return TokenRequest(
        url=f"{realm}{'&' if '?' in realm else '?'}{urlencode(pairs)}", authorization=authorization
    )


def read_token(body: bytes) -> str:
    """Return the token of an authorization server's answer."""
    try:
        answer = msgspec.json.decode(body, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Token()
    token = answer.token or answer.access_token
    if not token:
        raise Unauthorized("authorization server did not include a token in the response")
    return token


class Authorizer:
    """Keeps the Authorization header of one repository. Threads share it."""

    def __init__(
        self, credentials: Credentials | None, scope: str, fetch: Callable[[TokenRequest], bytes]
    ) -> None:
        self._credentials = credentials
        self._scope = scope
        self._fetch = fetch
        self._lock = threading.Lock()
        self.header: str | None = None
        if credentials is not None and credentials.registrytoken:
            self.header = f"Bearer {credentials.registrytoken}"

    def renew(self, challenge: str, refused: str | None) -> bool:
        """Answer a challenge that came when ``refused`` had been sent; False when there is no answer.

        Unauthorized when the registry asks for a password and none is known, or the token is refused.
        """
        with self._lock:
            if self.header != refused:
                return True  # another thread was faster
            header = self._answer(parse_challenges(challenge))
            if header is None or (header == refused and header.startswith("Basic")):
                return False
            self.header = header
            return True

    def _answer(self, challenges: list[Challenge]) -> str | None:
        offers = {challenge.scheme: challenge for challenge in challenges}
        if bearer := offers.get("bearer"):
            if self._credentials is not None and self._credentials.registrytoken:
                return None
            return f"Bearer {read_token(self._fetch(self._request(bearer)))}"
        if "basic" in offers:
            if self._credentials is None or not self._credentials.username:
                raise Unauthorized("no basic auth credentials")
            return self._credentials.basic()
        return None

    def _request(self, challenge: Challenge) -> TokenRequest:
        return token_request(challenge, self._credentials, self._scope)
