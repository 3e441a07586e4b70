"""HTTP servers of tests, on loopback."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Server:
    """A server that runs until it is closed, and writes nothing about requests."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Quiet(handler):
            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        self._server.daemon_threads = True
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
