"""HTTP for the registry client: pools, proxies, TLS and redirects. Blocking; used in threads only."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from berth import __version__
from berth.errors import Unavailable
from berth.registry import certificates
from berth.registry.places import FOLDERS, NO_TLS, Tls, folder_of
from berth.registry.proxies import PORTS, origin, proxy_for

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from urllib3.response import BaseHTTPResponse

    Body = bytes | Iterable[bytes]

CONNECT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 60.0
MAX_REDIRECTS = 10
MAX_REDIRECT_BYTES = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
# What another server may see; what hosts.toml adds for a registry may be a secret.
FOR_ANYBODY = ("user-agent", "accept", "accept-encoding", "range")

AGENT = f"berth/{__version__}"


class Transport:
    """Connections to any registry, kept for the next request. Threads share it; close it."""

    def __init__(
        self,
        environment: Mapping[str, str],
        certificate_folders: Sequence[Path] = FOLDERS,
        *,
        context: ssl.SSLContext | None = None,
        silence_s: float = READ_TIMEOUT_S,
    ) -> None:
        """``context``: of TLS, for one that cannot read authorities when it needs them."""
        self._environment = environment
        self._certificates = certificate_folders
        self._context = context
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._pools: dict[tuple[str | None, Tls, Path | None], urllib3.PoolManager] = {}

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: Tls = NO_TLS,
        body: Body | None = None,
    ) -> BaseHTTPResponse:
        """Send a request and follow redirects; the body is still to be read, and released.

        Unavailable, with Go's text, when there is no answer. Headers but FOR_ANYBODY and client
        certificates never leave the origin (scheme, host and port) that they are for, and no other
        asks for credentials. A body is never sent elsewhere.
        """
        return self.follow(method, url, headers=headers, tls=tls, body=body)[0]

    def follow(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: Tls = NO_TLS,
        body: Body | None = None,
    ) -> tuple[BaseHTTPResponse, str]:
        """Do as :meth:`request`, and say as well who answered: the URL that redirects led to."""
        asked = origin(url)
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
        for _ in range(MAX_REDIRECTS):
            response = self._send(method, url, headers=sent, tls=tls, body=body)
            moved = response.status in REDIRECTS and "location" in response.headers
            if not moved or method not in ("GET", "HEAD"):
                if origin(url) != asked:
                    response.headers.discard("www-authenticate")
                return response, url
            _finish(response)
            target = urljoin(url, response.headers["location"])
            if urlsplit(target).scheme not in PORTS:
                raise Unavailable(f'{_verb(method)} "{url}": redirected to {target!r}')
            if origin(target) != origin(url):
                sent = {k: v for k, v in sent.items() if k.lower() in FOR_ANYBODY}
                tls = Tls(verify=tls.verify)
            url = target
        raise Unavailable(f'{_verb(method)} "{url}": stopped after {MAX_REDIRECTS} redirects')

    def _send(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        tls: Tls,
        body: Body | None,
    ) -> BaseHTTPResponse:
        pool = self._pool(url, tls)
        try:
            return pool.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
            )
        except HTTPError as error:
            raise Unavailable(f'{_verb(method)} "{url}": {describe(error, url)}') from error

    def _pool(self, url: str, tls: Tls) -> urllib3.PoolManager:
        proxy = proxy_for(url, self._environment)
        folder = folder_of(urlsplit(url).netloc, self._certificates)
        key = (proxy, tls, folder)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                context = self._context or certificates.tls_context(tls, folder)
                pool = self._pools[key] = _make_pool(proxy, context, self._silence_s)
            return pool

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()


def _make_pool(proxy: str | None, context: ssl.SSLContext, silence_s: float) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, silence_s), read=silence_s)
    if proxy is None:
        return urllib3.PoolManager(maxsize=8, timeout=timeout, ssl_context=context)
    user = urlsplit(proxy).netloc.rpartition("@")[0]
    headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
    return urllib3.ProxyManager(
        proxy, maxsize=8, timeout=timeout, ssl_context=context, proxy_headers=headers
    )


def _finish(response: BaseHTTPResponse) -> None:
    """Read a redirect's short body, so that the connection serves again."""
    with contextlib.suppress(HTTPError):
        response.read(MAX_REDIRECT_BYTES)
    response.close()


def _verb(method: str) -> str:
    return method.capitalize()


def describe(error: HTTPError, url: str) -> str:
    """Return the cause in Go's words, which Docker's users know and search for."""
    if isinstance(error, ProxyError):
        return f"proxyconnect tcp: {error.original_error}"
    if isinstance(error, NameResolutionError):
        return f"dial tcp: lookup {urlsplit(url).hostname}: no such host"
    if isinstance(error, ReadTimeoutError):
        return "net/http: timeout awaiting response headers"
    if isinstance(error, SSLError):
        return _describe_tls(str(error))
    if isinstance(error, ConnectTimeoutError | NewConnectionError):
        cause = error.__cause__
        if isinstance(cause, TimeoutError) and not cause.errno:
            return f"dial tcp {_address(url)}: i/o timeout"
        number = cause.errno if isinstance(cause, OSError) and cause.errno else errno.ECONNREFUSED
        return f"dial tcp {_address(url)}: connect: {os.strerror(number).lower()}"
    return f"unexpected EOF ({error})"


def _describe_tls(text: str) -> str:
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return "http: server gave HTTP response to HTTPS client"
    if "self-signed" in text or "self signed" in text or "unable to get local issuer" in text:
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.rpartition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return f"tls: failed to verify certificate: x509: {reason}"
    return f"tls: {text}"


def _address(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or PORTS.get(parts.scheme, 0)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return f"{parts.hostname}:{port}"
    host = str(found[0][4][0])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
