"""A registry that takes pushes as the distribution-spec says, and breaks off when told to."""

from __future__ import annotations

import contextlib
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from support.servers import Server


class UploadServer(Server):
    """Keeps what arrives of an upload whose connection breaks, and says how much that is."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.break_after: int | None = None  # bytes of the next body
        self.is_busy = False  # about uploads that were begun
        server = self

        class Uploads(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self):
                server.requests.append((self.command, self.path, dict(self.headers)))
                path = urlsplit(self.path).path
                if path == "/v2/":
                    self.answer(200)
                elif "/blobs/uploads/" not in path:
                    self.answer(404)
                elif server.is_busy:
                    self.answer(503, {"Retry-After": "600"})
                else:
                    self.say_range(path, 204)

            def do_HEAD(self):
                server.requests.append((self.command, self.path, dict(self.headers)))
                known = self.path.rpartition("/")[2] in server.blobs
                self.answer(200 if known else 404, body=None)

            def do_POST(self):
                server.requests.append((self.command, self.path, dict(self.headers)))
                place = f"{self.path.partition('?')[0]}{len(server.uploads)}"
                server.uploads[place] = bytearray()
                self.answer(202, {"Location": place})

            def do_PATCH(self):
                server.requests.append((self.command, self.path, dict(self.headers)))
                path = urlsplit(self.path).path
                first = int(self.headers["Content-Range"].partition("-")[0])
                if first != len(server.uploads[path]):
                    self.answer(416)
                elif self.receive(server.uploads[path]):
                    self.say_range(path, 202)

            def do_PUT(self):
                server.requests.append((self.command, self.path, dict(self.headers)))
                parts = urlsplit(self.path)
                if "/manifests/" in parts.path:
                    body = bytearray()
                    self.receive(body)
                    server.manifests[parts.path] = bytes(body)
                    self.answer(201)
                elif self.receive(server.uploads[parts.path]):
                    digest = parse_qs(parts.query)["digest"][0]
                    server.blobs[digest] = bytes(server.uploads.pop(parts.path))
                    self.answer(201)

            def receive(self, into):
                left = int(self.headers["Content-Length"])
                if server.break_after is not None and left > server.break_after:
                    into += self.rfile.read(server.break_after)
                    server.break_after = None
                    self.close_connection = True
                    self.connection.close()
                    return False
                into += self.rfile.read(left)
                return True

            def say_range(self, path, status):
                if path not in server.uploads:
                    self.answer(404)
                    return
                end = max(len(server.uploads[path]) - 1, 0)
                self.answer(status, {"Location": path, "Range": f"0-{end}"})

            def answer(self, status, headers=(), body=b""):
                self.send_response(status)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()

        super().__init__(Uploads)

    def asked(self, method: str, pattern: str) -> list[dict[str, str]]:
        """Return the headers of the requests with this method and a path that has the pattern."""
        return [h for m, path, h in self.requests if m == method and re.search(pattern, path)]
