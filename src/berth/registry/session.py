"""One repository at one endpoint: authorized requests, repeated while that may help. Blocking."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from urllib3.exceptions import HTTPError

from berth.errors import InvalidArgument, Unauthorized, Unavailable
from berth.oci.image import INDEXES, MANIFESTS, MAX_DOCUMENT_BYTES
from berth.registry.auth import Authorizer, TokenRequest, guard
from berth.registry.proxies import origin
from berth.registry.refusals import TRANSIENT, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from urllib3.response import BaseHTTPResponse

    from berth.errors import BerthError
    from berth.oci.reference import Reference
    from berth.registry.auth import Credentials
    from berth.registry.places import Endpoint
    from berth.registry.transport import Body, Transport

MAX_ATTEMPTS = 5
MAX_PAUSE_S = 60.0
MAX_ASKED_PAUSE_S = 600.0
MAX_PAGES = 1000
MAX_REFUSAL_BYTES = 1 << 16
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))

Result = TypeVar("Result")


class Busy(Unavailable):
    """The registry says when to ask again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Patience:
    """How long to try, and whether anybody still wants the answer. Threads share it."""

    def __init__(self, *, backoff_s: float) -> None:
        self._backoff_s = backoff_s
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._bodies: set[BaseHTTPResponse] = set()

    def cancel(self) -> None:
        """End all pauses and reads, now and from now on. Any thread; idempotent."""
        self._cancelled.set()
        with self._lock:
            for body in self._bodies:
                # Read to its end meanwhile, it has no connection any more.
                with contextlib.suppress(ValueError, RuntimeError, OSError):
                    body.shutdown()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Unavailable once nobody waits any more."""
        if self._cancelled.is_set():
            raise Unavailable("pull cancelled")

    @contextmanager
    def reading(self, body: BaseHTTPResponse) -> Iterator[None]:
        """Let :meth:`cancel` interrupt what is read; give the body up at the end."""
        with self._lock:
            self._bodies.add(body)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._bodies.discard(body)
            body.close()  # a connection whose body was read to its end serves again

    def pause_s(self, failures: int, error: Unavailable) -> float:
        """Return how long to wait after so many failures in a row."""
        asked = error.retry_after_s if isinstance(error, Busy) else 0.0
        own = min(MAX_PAUSE_S, self._backoff_s * (1 << failures))
        return max(own, min(MAX_ASKED_PAUSE_S, asked))

    def pause(self, failures: int, error: Unavailable) -> None:
        """Wait; Unavailable when cancelled meanwhile."""
        self.check()
        self._cancelled.wait(self.pause_s(failures, error))
        self.check()


class Session:
    """Requests about one repository. Threads share it."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        reference: Reference,
        credentials: Credentials | None,
        transport: Transport,
        patience: Patience,
        mounted_from: Sequence[str] | None = None,
    ) -> None:
        """Begin to pull; to push, when ``mounted_from`` says from which repositories blobs may come."""
        self.endpoint = endpoint
        self.reference = reference
        self.patience = patience
        self._transport = transport
        self._pulls = mounted_from is None
        actions = "pull" if self._pulls else "pull,push"
        scopes = [f"repository:{reference.path}:{actions}"]
        scopes += [f"repository:{path}:pull" for path in mounted_from or ()]
        self._authorizer = Authorizer(credentials, " ".join(scopes), self._fetch_token)

    def ping(self) -> None:
        """Find out whether a registry answers here, and authenticate. Unavailable: none does."""
        url = f"{self.endpoint.api}/"
        headers = dict(self.endpoint.headers)
        response = self._transport.request("GET", url, headers=headers, tls=self.endpoint.tls)
        challenge = response.headers.get("www-authenticate", "")
        response.close()
        if response.status == HTTPStatus.UNAUTHORIZED and challenge:
            self._renew(url, challenge, self._authorizer.header)

    def manifest(self, which: str) -> tuple[bytes, str]:
        """Return a manifest or index by tag or digest, unverified, and its media type."""
        path = f"manifests/{which}"
        return self.retry(lambda: self._read_document(path))

    def document(self, path: str) -> bytes:
        """Return something small of the repository, unverified."""
        return self.retry(lambda: self._read_document(path))[0]

    def pages(self, path: str) -> Iterator[bytes]:
        """Yield a list that comes in pages (``Link`` with ``rel="next"``), unverified."""
        for _ in range(MAX_PAGES):
            data, headers = self.retry(partial(self._read, path))
            yield data
            found = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', headers.get("link", ""))
            following = urljoin(self.url(path), found[1]) if found else ""
            if not following.startswith(self.url("")):
                return
            path = following.removeprefix(self.url(""))

    def _read_document(self, path: str) -> tuple[bytes, str]:
        data, headers = self._read(path)
        return data, headers.get("content-type", "").partition(";")[0].strip()

    def _read(self, path: str) -> tuple[bytes, Mapping[str, str]]:
        response = self.open(path, {"Accept": ACCEPT})
        with self.patience.reading(response):
            data = _read(response, MAX_DOCUMENT_BYTES + 1, self.url(path))
        return data, response.headers

    def retry(self, action: Callable[[], Result]) -> Result:
        """Repeat ``action`` while it is Unavailable, with growing pauses."""
        for failures in range(MAX_ATTEMPTS - 1):
            try:
                return action()
            except Unavailable as error:
                self.patience.pause(failures, error)
        return action()

    def open(self, path: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """GET something of the repository; the body is the caller's to read and release.

        Raises what the registry's refusal means; Unavailable when a retry may help.
        """
        url = self.url(path)
        response = self._authorized("GET", url, headers)
        if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return response
        raise self._refusal(url, response)

    def open_elsewhere(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """GET something that a manifest says is elsewhere: without credentials, by http or https."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidArgument(f"fetch layer: {url[:200]!r} is no URL of the web")
        response = self._transport.request("GET", url, headers=headers)
        if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return response
        raise self._refusal(url, response)

    def call(
        self,
        method: str,
        url: str,
        wanted: Sequence[int],
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Body] | None = None,
    ) -> BaseHTTPResponse:
        """Do something whose answer has a status and headers only; these are returned.

        ``wanted`` are the statuses that are no refusal; ``body`` makes the body, anew for each attempt.
        """
        response = self._authorized(method, url, headers or {}, body)
        if response.status not in wanted:
            raise self._refusal(url, response)
        with self.patience.reading(response):
            _read(response, MAX_REFUSAL_BYTES, url)
        return response

    def _refusal(self, url: str, response: BaseHTTPResponse) -> BerthError:
        challenge = response.headers.get("www-authenticate", "")
        with self.patience.reading(response):
            body = _read(response, MAX_REFUSAL_BYTES, url)
        error = refusal(response.status, body, challenge, self.reference, pulling=self._pulls)
        if response.status in TRANSIENT:
            return _busy(error, response)
        return error

    def url(self, path: str) -> str:
        """Return the URL of something of the repository."""
        return f"{self.endpoint.api}/{self.reference.path}/{path}"

    def _authorized(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Body] | None = None,
    ) -> BaseHTTPResponse:
        response, sent = self._send(method, url, headers, body)
        challenge = response.headers.get("www-authenticate", "")
        if response.status != HTTPStatus.UNAUTHORIZED or not challenge:
            return response
        # Where an upload goes on elsewhere, nobody may ask for the registry's password.
        if origin(url) != origin(self.endpoint.url):
            return response
        # A token may have expired; a second refusal of a fresh one is final.
        if not self._renew(url, challenge, sent):
            return response
        response.close()
        return self._send(method, url, headers, body)[0]

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], Body] | None,
    ) -> tuple[BaseHTTPResponse, str | None]:
        authorization = self._authorizer.header
        # An upload may go on at another server: that one has other credentials.
        if origin(url) == origin(self.endpoint.url):
            headers = {**dict(self.endpoint.headers), **headers}
            if authorization:
                headers["Authorization"] = authorization
        response = self._transport.request(
            method,
            url,
            headers=headers,
            tls=self.endpoint.tls_of(url),
            body=body() if body else None,
        )
        return response, authorization

    def _renew(self, url: str, challenge: str, refused: str | None) -> bool:
        try:
            return self._authorizer.renew(challenge, refused)
        except Unauthorized as error:
            raise Unauthorized(f'Get "{url}": {error.message}') from error

    def _fetch_token(self, request: TokenRequest) -> bytes:
        return self.retry(lambda: self._fetch_token_once(request))

    def _fetch_token_once(self, request: TokenRequest) -> bytes:
        guard(request, self.endpoint.url, verify=self.endpoint.tls.verify)
        headers = {"Authorization": request.authorization} if request.authorization else {}
        if request.form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        response = self._transport.request(
            "POST" if request.form else "GET",
            request.url,
            headers=headers,
            tls=self.endpoint.tls_of(request.url),
            body=urlencode(request.form).encode() if request.form else None,
        )
        with self.patience.reading(response):
            body = _read(response, MAX_REFUSAL_BYTES, request.url)
        if response.status == HTTPStatus.OK:
            return body
        error = refusal(response.status, body, "", self.reference, pulling=self._pulls)
        if response.status in TRANSIENT:
            raise _busy(error, response)
        raise Unauthorized(error.message)


def _busy(error: BerthError, response: BaseHTTPResponse) -> Busy:
    return Busy(error.message, retry_after_s=seconds_of(response.headers.get("retry-after", "")))


def seconds_of(retry_after: str) -> float:
    """Return how long to wait by a Retry-After header (RFC 9110): seconds or a date; 0 for nonsense."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _read(response: BaseHTTPResponse, size: int, url: str) -> bytes:
    try:
        return response.read(size)
    except HTTPError as error:
        raise Unavailable(f'Get "{url}": unexpected EOF') from error
