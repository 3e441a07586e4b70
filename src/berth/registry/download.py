"""One blob from a registry into the content store, through broken connections. Blocking."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from berth.errors import BerthError, Corrupt, Failed, NotFound, Unavailable
from berth.oci.digest import Digest
from berth.oci.image import is_foreign
from berth.registry.session import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse

    from berth.content.store import ContentStore, Ingest
    from berth.oci.image import Descriptor
    from berth.registry.fetching import Tap
    from berth.registry.progress import Meter
    from berth.registry.session import Session

READ_BYTES = 1 << 18  # what a broken connection loses at most


class Download:
    """Fetches one blob. What has arrived is kept when the connection breaks, and the rest asked for."""

    def __init__(
        self,
        session: Session,
        descriptor: Descriptor,
        content: ContentStore,
        meter: Meter,
        tap: Tap | None = None,
    ) -> None:
        self._tap = tap
        self._session = session
        self._descriptor = descriptor
        self._digest = Digest.parse(descriptor.digest)
        self._content = content
        self._meter = meter
        self._ingest: Ingest | None = None
        self._resumed = False

    def run(self) -> None:
        """Store the blob, verified. Corrupt when the registry has other bytes under this digest."""
        failures = 0
        try:
            self._resume()
            while True:
                self._session.patience.check()
                before = self._written()
                try:
                    self._fetch()
                except Unavailable as error:
                    failures = 0 if self._written() > before else failures + 1
                    if failures >= MAX_ATTEMPTS:
                        raise
                    self._pause(failures, error)
                except Corrupt as error:
                    # Pieces of different answers may not fit together; one whole answer must.
                    if not self._resumed:
                        raise Corrupt(
                            f"filesystem layer verification failed for digest {self._digest}"
                        ) from error
                    self._restart()
                else:
                    return
        except (Corrupt, Failed):  # nothing to go on with, or no space for it
            if self._ingest is not None:
                self._ingest.abort()
            raise
        finally:
            if self._ingest is not None:
                self._ingest.suspend()  # for the next pull, also after berthd was killed

    def _resume(self) -> None:
        """Begin with what an earlier pull got."""
        self._ingest = self._content.resume(self._digest, self._descriptor.size)
        self._resumed = self._ingest.written > 0

    def _written(self) -> int:
        return self._ingest.written if self._ingest is not None else 0

    def _pause(self, failures: int, error: Unavailable) -> None:
        self._session.patience.check()
        pause_s = round(self._session.patience.pause_s(failures, error))
        if pause_s:
            self._meter.say(f"Retrying in {pause_s} second{'s' if pause_s > 1 else ''}")
        self._session.patience.pause(failures, error)

    def _restart(self) -> None:
        if self._tap is not None:
            self._tap.end()
        if self._ingest is not None:
            self._ingest.abort()
        self._ingest = self._content.resume(self._digest, self._descriptor.size)
        self._resumed = False

    def _fetch(self) -> None:
        offset = self._written()
        if offset == self._descriptor.size and self._ingest is not None:
            self._finish(self._ingest)
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        self._resumed = self._resumed or offset > 0
        response = self._open(headers)
        with self._session.patience.reading(response):
            self._expect(response, offset)
            assert self._ingest is not None
            try:
                self._copy(response, self._ingest)
            except HTTPError as error:
                raise Unavailable(f"download {self._digest}: unexpected EOF") from error

    def _open(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Ask the registry, then the makers of a layer that registries may not have."""
        try:
            return self._session.open(f"blobs/{self._digest}", headers)
        except NotFound:
            if not is_foreign(self._descriptor):
                raise
        *others, last = self._descriptor.urls or [""]
        for url in others:
            with contextlib.suppress(BerthError):
                return self._session.open_elsewhere(url, headers)
        return self._session.open_elsewhere(last, headers)

    def _expect(self, response: BaseHTTPResponse, offset: int) -> None:
        """Start anew when the answer is the whole blob; Corrupt when it is another part of it."""
        if not offset:
            return
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            self._restart()
        elif not response.headers.get("content-range", "").startswith(f"bytes {offset}-"):
            raise Corrupt("another range than was asked for")

    def _copy(self, response: BaseHTTPResponse, ingest: Ingest) -> None:
        while chunk := response.read(READ_BYTES):
            self._session.patience.check()
            ingest.write(chunk)
            self._meter.at(ingest.written)
            if self._tap is not None:
                self._tap.at(ingest.path, ingest.written)
        if ingest.written < self._descriptor.size:
            raise Unavailable(f"download {self._digest}: unexpected EOF")
        self._finish(ingest)

    def _finish(self, ingest: Ingest) -> None:
        self._meter.say("Verifying Checksum")
        ingest.commit()
        self._meter.say("Download complete")
