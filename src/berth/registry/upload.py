"""One blob from the content store into a registry: found, mounted from a neighbour, or sent. Blocking."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin

from berth.errors import Corrupt, Failed, NotFound, Unavailable
from berth.oci.digest import Digest
from berth.oci.image import is_foreign
from berth.registry.session import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from urllib3.response import BaseHTTPResponse

    from berth.content.store import ContentStore
    from berth.oci.image import Descriptor
    from berth.registry.progress import Meter
    from berth.registry.session import Session

READ_BYTES = 1 << 18
UPLOADS = "blobs/uploads/"


def ignore(_: str) -> None:
    """Remember nothing."""


class Upload:
    """Puts one blob where a manifest of the session's repository may name it."""

    def __init__(
        self,
        session: Session,
        descriptor: Descriptor,
        content: ContentStore,
        meter: Meter,
        *,
        place: str = "",
        note: Callable[[str], object] = ignore,
    ) -> None:
        """Begin. ``place`` is where an earlier upload of the blob began; ``note`` is told of a new one's."""
        self._session = session
        self._place = place
        self._note = note
        self._descriptor = descriptor
        self._digest = Digest.parse(descriptor.digest)
        self._content = content
        self._meter = meter

    def run(self, mountable: Sequence[str]) -> None:
        """Do it; ``mountable`` are repositories of the registry that should have the blob."""
        if is_foreign(self._descriptor):
            self._meter.say("Skipped foreign layer")
            return
        if self._session.retry(self._exists):
            self._meter.say("Layer already exists")
            return
        for path in mountable:
            if self._session.retry(partial(self._mount, path)):
                self._meter.say(f"Mounted from {path}")
                return
        failures = 0
        while True:
            self._session.patience.check()
            try:
                self._send()
            except Unavailable as error:
                failures += 1
                if failures >= MAX_ATTEMPTS:
                    raise
                pause_s = round(self._session.patience.pause_s(failures, error))
                self._meter.say(f"Retrying in {pause_s} second{'s' if pause_s != 1 else ''}")
                self._session.patience.pause(failures, error)
            else:
                self._note("")
                self._meter.say("Pushed")
                return

    def _exists(self) -> bool:
        url = self._session.url(f"blobs/{self._digest}")
        try:
            self._session.call("HEAD", url, (HTTPStatus.OK,))
        except NotFound:
            return False
        return True

    def _mount(self, path: str) -> bool:
        """Take the blob from a neighbour; without luck the registry has begun an upload, which is dropped."""
        query = urlencode({"mount": self._digest, "from": path})
        url = self._session.url(f"{UPLOADS}?{query}")
        wanted = (HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
        answer = self._session.call("POST", url, wanted)
        if answer.status == HTTPStatus.CREATED:
            return True
        self._session.call("DELETE", _location(url, answer), DROPPED)
        return False

    def _send(self) -> None:
        """Send the blob, or what the registry lacks of it since the last attempt."""
        offset = self._received()
        size = self._content.size(self._digest)
        if not offset:
            begin = self._session.url(UPLOADS)
            answer = self._session.call("POST", begin, (HTTPStatus.ACCEPTED,))
            self._move(begin, answer)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size - offset)}
        if offset and offset < size:
            headers["Content-Range"] = f"{offset}-{size - 1}"
            body = partial(self._body, offset)
            wanted = (HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
            self._move(
                self._place,
                self._session.call("PATCH", self._place, wanted, headers=headers, body=body),
            )
        url = self._place + ("&" if "?" in self._place else "?")
        url += urlencode({"digest": self._digest})
        if offset:
            headers = {"Content-Length": "0"}
            self._session.call("PUT", url, (HTTPStatus.CREATED,), headers=headers)
        else:
            body = partial(self._body, 0)
            self._session.call("PUT", url, (HTTPStatus.CREATED,), headers=headers, body=body)

    def _move(self, url: str, answer: BaseHTTPResponse) -> None:
        """Go on where the registry says."""
        self._place = _location(url, answer)
        self._note(self._place)

    def _received(self) -> int:
        """Ask how much of the upload there is; 0: begin anew, with what is said here or no longer known."""
        if not self._place:
            return 0
        try:
            answer = self._session.call("GET", self._place, (HTTPStatus.NO_CONTENT,))
        except (NotFound, Failed, Corrupt):
            self._place = ""
            return 0
        found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
        received = int(found[1]) + 1 if found else 0
        # "0-0" is said of nothing as well as of one byte.
        if not 1 < received <= self._content.size(self._digest):
            return 0
        if "location" in answer.headers:
            self._move(self._place, answer)
        return received

    def _body(self, offset: int) -> Iterator[bytes]:
        sent = offset
        with self._content.open_blob(self._digest) as blob:
            blob.seek(offset)
            while piece := blob.read(READ_BYTES):
                self._session.patience.check()
                yield piece
                sent += len(piece)
                self._meter.at(sent)


# What a registry may say to a dropped upload: that is nobody's failure.
DROPPED = tuple(status.value for status in HTTPStatus)


def _location(url: str, answer: BaseHTTPResponse) -> str:
    location = answer.headers.get("location", "")
    if not location:
        raise Unavailable(f'Post "{url}": the registry names no place for the upload')
    return urljoin(url, location)
