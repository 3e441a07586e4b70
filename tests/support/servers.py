"""HTTP servers of tests, on loopback."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class _Connections(ThreadingHTTPServer):
    """Ends its connections with itself: the next server may get its port, and its clients with it."""

    daemon_threads = True

    def __init__(self, *args):
        self._open = set()
        super().__init__(*args)

    def process_request(self, request, client_address):
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self):
        super().server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):  # its client was faster
                request.shutdown(socket.SHUT_RDWR)


class Server:
    """A server that runs until it is closed, and writes nothing about requests."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Quiet(handler):
            def log_message(self, *_):
                pass

        self._server = _Connections(("127.0.0.1", 0), Quiet)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Folder(Server):
    """Shows the files of a folder."""

    def __init__(self, folder: Path) -> None:
        class Files(SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

        super().__init__(Files)
