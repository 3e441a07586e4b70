"""Messages for a syslog server, as Docker's driver writes them."""

from __future__ import annotations

import os
import time

from berth.runtime.logconnection import SECURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.runtime.messages import RemoteLogMessage

SEVERITIES = {"stdout": 6, "stderr": 3}  # informational, error
VERSION = 1
CONTROLS = {*range(0x20), *range(0x7F, 0xA0)}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


time.localtime()  # reads this machine's time zone, which is out of sight later


def composer(message: RemoteLogMessage) -> Callable[[str, bytes, int], bytes]:
    """Return what makes a message of a line."""
    tag = printable(message["tag"])
    hostname, facility = message["hostname"], message["facility"]
    pid, format_ = os.getpid(), message["format"]
    counted = message["network"] == SECURE and format_.startswith("rfc5424")  # RFC 5425

    def head(priority: int, time_ns: int) -> str:
        if format_.startswith("rfc5424"):
            stamp = rfc3339(time_ns, micro=format_ == "rfc5424micro")
            return f"<{priority}>{VERSION} {stamp} {hostname} {tag} {pid} {tag} - "
        stamp = stamped(time_ns)
        if format_ == "rfc3164":
            return f"<{priority}>{stamp} {hostname} {tag}[{pid}]: "
        return f"<{priority}>{stamp} {tag}[{pid}]: "

    def compose(stream: str, line: bytes, time_ns: int) -> bytes:
        priority = facility << 3 | SEVERITIES[stream]
        end = b"" if line.endswith(b"\n") else b"\n"
        data = head(priority, time_ns).encode() + line + end
        return b"%d %s" % (len(data), data) if counted else data

    return compose


def printable(tag: str) -> str:
    """Return a tag without control characters: an image's label in it would begin messages of its own."""
    return "".join(["_" if ord(each) in CONTROLS else each for each in tag])


def stamped(time_ns: int) -> str:
    """Return a time as RFC 3164 has it, in this machine's zone."""
    now = time.localtime(time_ns // 1_000_000_000)
    return f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)}"


def rfc3339(time_ns: int, *, micro: bool) -> str:
    """Return a time as RFC 5424 has it, with microseconds or without."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    now = time.localtime(seconds)
    fraction = f".{rest // 1000:06d}" if micro else ""
    offset = now.tm_gmtoff // 60
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", now) + fraction + (zone if offset else "Z")
