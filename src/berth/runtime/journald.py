"""Entries for systemd's journal in its native protocol, with the fields of Docker's driver."""

from __future__ import annotations

from berth.runtime.jsonlog import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.runtime.messages import RemoteLogMessage

PRIORITIES = {"stdout": b"6", "stderr": b"3"}


def composer(message: RemoteLogMessage) -> Callable[[str, bytes, int], bytes]:
    """Return what makes an entry of a line."""
    fixed = b"".join([field(name, text.encode()) for name, text in message["fields"].items()])

    def compose(stream: str, line: bytes, time_ns: int) -> bytes:
        whole = line.endswith(b"\n")
        return b"".join(
            (
                field("MESSAGE", line[:-1] if whole else line),
                field("PRIORITY", PRIORITIES[stream]),
                field("SYSLOG_TIMESTAMP", timestamp(time_ns).encode()),
                b"" if whole else field("CONTAINER_PARTIAL_MESSAGE", b"true"),
                fixed,
            )
        )

    return compose


def field(name: str, value: bytes) -> bytes:
    """Return one field; one with line ends says its size first."""
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
