"""Asking a registry whether credentials are good. Blocking."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec

from berth.errors import Failed, Unauthorized, Unavailable
from berth.oci.reference import DEFAULT_DOMAIN, HUB_DOMAINS
from berth.registry.auth import CLIENT_ID, guard, parse_challenges, token_request

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from berth.registry.auth import Challenge, Credentials
    from berth.registry.places import Endpoint
    from berth.registry.transport import Transport

MAX_ANSWER_BYTES = 1 << 16


class _Answer(msgspec.Struct):
    refresh_token: str = ""


def domain_of(address: str) -> str:
    """Return the registry that ``serveraddress`` means; old clients give a URL."""
    host = urlsplit(address).netloc if "://" in address else address.partition("/")[0]
    return DEFAULT_DOMAIN if host in ("", *HUB_DOMAINS) else host


def login(transport: Transport, endpoint: Endpoint, credentials: Credentials) -> str:
    """Return the identity token that the registry gives for a password, often none ("").

    Unauthorized: the credentials are wrong. Unavailable: nobody answers.
    """
    url = f"{endpoint.api}/"
    response = transport.request("GET", url, headers=dict(endpoint.headers), tls=endpoint.tls)
    response.close()
    if response.status == HTTPStatus.OK:
        return ""
    header = response.headers.get("www-authenticate", "")
    offers = {challenge.scheme: challenge for challenge in parse_challenges(header)}
    if response.status != HTTPStatus.UNAUTHORIZED or not offers:
        raise _refused(url, response)
    if bearer := offers.get("bearer"):
        return _fetch_token(transport, endpoint, bearer, credentials)
    headers = {**dict(endpoint.headers), "Authorization": credentials.basic()}
    response = transport.request("GET", url, headers=headers, tls=endpoint.tls)
    response.close()
    if response.status != HTTPStatus.OK:
        raise _refused(url, response)
    return ""


def _fetch_token(
    transport: Transport, endpoint: Endpoint, challenge: Challenge, credentials: Credentials
) -> str:
    request = token_request(challenge, credentials, "")
    guard(request, endpoint.url, verify=endpoint.tls.verify)
    headers = {"Authorization": request.authorization} if request.authorization else {}
    url, body = request.url, None
    if request.form:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(request.form).encode()
    else:
        url += "&" + urlencode({"client_id": CLIENT_ID, "offline_token": "true"})
    response = transport.request(
        "POST" if body else "GET", url, headers=headers, tls=endpoint.tls_of(url), body=body
    )
    data = response.read(MAX_ANSWER_BYTES)
    response.close()
    if response.status != HTTPStatus.OK:
        raise Unauthorized(f'Get "{endpoint.api}/": unauthorized: incorrect username or password')
    try:
        return msgspec.json.decode(data, type=_Answer).refresh_token
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Failed(f'Get "{request.url}": the answer is no token') from None


def _refused(url: str, response: BaseHTTPResponse) -> Unauthorized | Unavailable:
    phrase = HTTPStatus(response.status).phrase if response.status in set(HTTPStatus) else ""
    text = f"login attempt to {url} failed with status: {response.status} {phrase}".rstrip()
    if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Unauthorized(text)
    return Unavailable(text)
