"""D-Bus, as far as systemd is asked by it: method calls over its private socket, and signals waited for.

There is one peer and no bus in between, so nothing has to be registered. Values go by their signatures
(D-Bus Specification, "Type System" and "Marshaling").
"""

from __future__ import annotations

import _socket
import os
import struct

from berth.errors import Failed

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
ALIGNMENT = {"(": 8, "{": 8, "g": 1, "v": 1, "a": 4, "s": 4, "o": 4}
HEADER_BYTES = 16  # to the end of the length of the fields
CHUNK_BYTES = 65536
WAIT_S = 30.0


class Refusal(Failed):
    """An error that the other side returned; ``name`` is what it calls it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


def split(signature: str) -> list[str]:
    """Take a signature apart into single complete types."""
    found, place = [], 0
    while place < len(signature):
        end = _end(signature, place)
        found.append(signature[place:end])
        place = end
    return found


def _end(signature: str, place: int) -> int:
    while signature[place] == "a":
        place += 1
    if signature[place] not in "({":
        return place + 1
    depth = 0
    while True:
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(signature[place], 0)
        place += 1
        if not depth:
            return place


def _alignment(kind: str) -> int:
    return ALIGNMENT.get(kind[0]) or struct.calcsize(FIXED[kind])


class Writer:
    """Bytes of values, each where its alignment has it."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        """Fill up to a multiple of ``size``."""
        self.data += bytes(-len(self.data) % size)

    def write(self, kind: str, value: object) -> None:
        """Write one value of a complete type; a variant is a pair of its type and its value."""
        self.align(_alignment(kind))
        if kind in FIXED:
            self.data += struct.pack(f"<{FIXED[kind]}", value)
        elif kind in ("s", "o", "g"):
            text = str(value).encode()
            self.data += struct.pack("<B" if kind == "g" else "<I", len(text)) + text + b"\0"
        elif kind == "v":
            assert isinstance(value, tuple)
            self.write("g", value[0])
            self.write(value[0], value[1])
        elif kind[0] == "a":
            assert isinstance(value, (list, tuple))
            self._write_array(kind[1:], list(value))
        else:
            assert isinstance(value, (list, tuple))
            for part, item in zip(split(kind[1:-1]), value, strict=True):
                self.write(part, item)

    def _write_array(self, kind: str, items: list[object]) -> None:
        place = len(self.data)
        self.data += bytes(4)
        self.align(_alignment(kind))
        start = len(self.data)
        for item in items:
            self.write(kind, item)
        struct.pack_into("<I", self.data, place, len(self.data) - start)


class Reader:
    """Values out of bytes."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data = data
        self.place = place

    def align(self, size: int) -> None:
        """Pass over what fills up to a multiple of ``size``."""
        self.place += -self.place % size

    def read(self, kind: str) -> object:
        """Read one value of a complete type."""
        self.align(_alignment(kind))
        if kind in FIXED:
            form = f"<{FIXED[kind]}"
            (value,) = struct.unpack_from(form, self.data, self.place)
            self.place += struct.calcsize(form)
            return bool(value) if kind == "b" else value
        if kind in ("s", "o", "g"):
            size = self.read("y" if kind == "g" else "u")
            assert isinstance(size, int)
            text = self.data[self.place : self.place + size]
            self.place += size + 1
            return text.decode(errors="replace")
        if kind == "v":
            return self.read(str(self.read("g")))
        if kind[0] == "a":
            return self._read_array(kind[1:])
        return tuple(self.read(part) for part in split(kind[1:-1]))

    def _read_array(self, kind: str) -> list[object]:
        size = self.read("u")
        assert isinstance(size, int)
        self.align(_alignment(kind))
        end = self.place + size
        found = []
        while self.place < end:
            found.append(self.read(kind))
        return found


class Message:
    """A message that came."""

    def __init__(self, data: bytes) -> None:
        self.kind = data[1]
        reader = Reader(data, HEADER_BYTES - 4)
        found = reader.read("a(yv)")
        assert isinstance(found, list)
        self.fields: dict[int, object] = dict(found)
        reader.align(8)
        signature = str(self.fields.get(SIGNATURE, ""))
        self.values = [reader.read(kind) for kind in split(signature)]


class Connection:
    """A connection to one peer. Close it, or use it in a ``with``."""

    def __init__(self, path: str) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.settimeout(WAIT_S)
        self._buffer = b""
        self._serial = 0
        self._signals: list[Message] = []
        try:
            self._socket.connect(path)
            self._authenticate()
        except OSError as error:
            self._socket.close()
            raise Failed(f"cannot speak to systemd by {path}: {error.strerror or error}") from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _authenticate(self) -> None:
        user = str(os.geteuid()).encode().hex()
        # All at once: systemd would not look at a message that it reads together with BEGIN.
        self._socket.send(f"\0AUTH EXTERNAL {user}\r\nBEGIN\r\n".encode())
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise Failed(f"systemd refuses this user: {line.decode(errors='replace')}")

    def _more(self) -> None:
        try:
            data = self._socket.recv(CHUNK_BYTES)
        except TimeoutError:
            raise Failed(f"systemd does not answer within {WAIT_S:.0f} seconds") from None
        if not data:
            raise Failed("systemd closed the connection")
        self._buffer += data

    def _receive(self) -> Message:
        while len(self._buffer) < HEADER_BYTES:
            self._more()
        body, _, fields = struct.unpack_from("<III", self._buffer, 4)
        size = HEADER_BYTES + fields + -fields % 8 + body
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return Message(data)

    def call(
        self, where: tuple[str, str, str], member: str, signature: str = "", *values: object
    ) -> list[object]:
        """Call a method of (destination, path, interface); return its values. Refusal when it says so."""
        destination, path, interface = where
        body = Writer()
        for kind, value in zip(split(signature), values, strict=True):
            body.write(kind, value)
        self._serial += 1
        fields: list[object] = [
            (PATH, ("o", path)),
            (INTERFACE, ("s", interface)),
            (MEMBER, ("s", member)),
            (DESTINATION, ("s", destination)),
        ]
        if signature:
            fields.append((SIGNATURE, ("g", signature)))
        head = Writer()
        for kind, value in zip(
            "yyyyuu", (ord("l"), CALL, 0, 1, len(body.data), self._serial), strict=True
        ):
            head.write(kind, value)
        head.write("a(yv)", fields)
        head.align(8)
        self._socket.sendall(bytes(head.data + body.data))
        return self._answer(self._serial)

    def _answer(self, serial: int) -> list[object]:
        while True:
            message = self._receive()
            if message.kind == SIGNAL:
                self._signals.append(message)
            elif message.fields.get(REPLY_SERIAL) == serial:
                if message.kind == ERROR:
                    text = str(message.values[0]) if message.values else ""
                    raise Refusal(str(message.fields.get(ERROR_NAME, "")), text)
                return message.values

    def wait_for_job(self, job: object) -> object:
        """Wait until systemd has done a job, also if it was during a call; return how that went."""
        while True:
            message = self._signals.pop(0) if self._signals else self._receive()
            if message.fields.get(MEMBER) == "JobRemoved" and message.values[1] == job:
                return message.values[3]
