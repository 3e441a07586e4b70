"""A socket that answers connections with prepared bytes and keeps what it was sent."""

import socket
import threading
from pathlib import Path


class ScriptedEngine:
    """Each connection is given to the next of the scripts: functions of a connected socket."""

    def __init__(self, path, *scripts):
        self.path = str(path)
        self.url = f"unix://{path}"
        self.sent = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._scripts = scripts
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(10)
        self._socket.close()
        Path(self.path).unlink()
        assert not self._thread.is_alive()

    def _serve(self):
        for script in self._scripts:
            connection, _ = self._socket.accept()
            connection.settimeout(10)
            with connection:
                script(self, connection)

    def take(self, connection):
        """Read one request and remember it."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(1)
        head = data.decode()
        if "chunked" in head:
            while not data.endswith(b"0\r\n\r\n"):
                data += connection.recv(1)
        for line in head.split("\r\n"):
            if line.startswith("Content-Length: ") and (length := int(line.split(" ")[1])):
                data += connection.recv(length, socket.MSG_WAITALL)
        self.sent.append(data)
        return data


def answers(*replies):
    """Return a script that answers each request with the next reply, a byte string."""

    def script(engine, connection):
        for reply in replies:
            engine.take(connection)
            connection.sendall(reply)

    return script


def reply(body=b"", *, status="200 OK", headers=""):
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
