"""berthd's end of a packet socket to a process that the zygote forked, or to the zygote itself."""

from __future__ import annotations

import _socket
import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from berth.errors import Unavailable, from_record
from berth.kernel import sockets
from berth.runtime import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.errors import BerthError

Message = dict[str, object]
Take = Callable[[tuple[Message, list[int]] | None], object]


def told_error(message: Message) -> BerthError:
    """Return the kind that a message says was raised."""
    record = message["error"]
    assert isinstance(record, dict)
    return from_record({str(key): shown(str(text)) for key, text in record.items()})


def shown(text: str) -> str:
    """Return a text in which names of files may be, for clients and records: they are UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


class Channel:
    """A packet socket on the event loop: messages in order, then the end."""

    def __init__(self, sock: sockets.Socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[tuple[Message, list[int]] | None] = asyncio.Queue()
        self._loop.add_reader(sock.fileno(), self._read)
        self._unsent: deque[tuple[bytes, list[int]]] = deque()  # the descriptors are ours
        self._open = True
        self._take: Take = self._messages.put_nowait

    def _read(self) -> bool:
        """Take a message; False when there is none now."""
        try:
            data, fds = sockets.receive(self._sock)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # once: it left something unread; what it said is still there
            return True
        except OSError:
            data, fds = b"", []
        if data:
            self._take((codec.decode(data), fds))
        else:
            self.close()
        return bool(data)

    def collect(self) -> None:
        """Keep messages for :meth:`receive` from now on."""
        self._take = self._messages.put_nowait

    def deliver_to(self, take: Take) -> None:
        """Call ``take`` with each message from now on, with None at the end."""
        while not self._messages.empty():
            take(self._messages.get_nowait())
        if self._open:
            self._take = take

    def drain(self) -> None:
        """Take what has arrived but was not read yet."""
        while self._open and self._read():
            pass

    async def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message with its descriptors, None at the end."""
        item = await self._messages.get()
        if item is None:
            self._messages.put_nowait(None)
        return item

    def send(
        self, message: Message, fds: Sequence[int] = (), second: Message | None = None
    ) -> None:
        """Send a message, or keep it while the other side is busy (the kernel queues ten packets).

        ``second`` follows on a line of its own, for a reader after the first. Unavailable when the other side
        is gone.
        """
        if not self._open:
            raise Unavailable("the monitor is gone")
        data = codec.encode(message)
        if second is not None:
            data += b"\n" + codec.encode(second)
        try:
            if self._unsent:
                raise BlockingIOError
            sockets.send(self._sock, data, list(fds))
        except BlockingIOError:
            self._unsent.append((data, [os.dup(fd) for fd in fds]))
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        except OSError as error:
            raise Unavailable(f"cannot reach the monitor: {error.strerror}") from error

    def _on_writable(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                sockets.send(self._sock, data, fds)
            except BlockingIOError:
                return
            except OSError:  # it is gone; reading says so
                pass
            self._drop_first()
        self._loop.remove_writer(self._sock.fileno())

    def _drop_first(self) -> None:
        for fd in self._unsent.popleft()[1]:
            os.close(fd)

    def finish(self) -> None:
        """Send nothing more: the other side sees the end, and its answers still arrive."""
        if self._open:
            while self._unsent:
                self._drop_first()
            self._sock.shutdown(_socket.SHUT_WR)

    def pass_on(self) -> Channel:
        """Return a channel of the same socket for somebody else: whoever has this one sends nothing more."""
        self._leave()
        self.collect()
        return Channel(self._sock)

    def _leave(self) -> None:
        self._open = False
        while self._unsent:
            self._drop_first()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """Close the socket; receivers see the end."""
        if self._open:
            self._leave()
            self._sock.close()
            self._take(None)
            self.collect()  # who takes messages often holds the channel, too: nobody would collect the two
