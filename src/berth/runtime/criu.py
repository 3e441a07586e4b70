"""criu's RPC: one request to a `criu swrk` process, what it notifies of meanwhile, and its answer.

The messages are protocol buffers (criu's images/rpc.proto). The few that are needed are encoded and read
here: numbers and lengths as varints are all that they are made of.
"""

from __future__ import annotations

import _signal
import fcntl
import os
import select
import time

from berth.errors import Failed, Unsupported
from berth.kernel import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Value = bool | int | str | Mapping[str, "Value"] | Sequence["Value"]
    Fields = Mapping[str, "Value"]

PROGRAM = "criu"
DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK = 1, 2, 4, 6, 9
NAMES = {DUMP: "DUMP", RESTORE: "RESTORE", PRE_DUMP: "PRE_DUMP", FEATURE_CHECK: "FEATURE_CHECK"}
CGROUP_MODES = {"soft": 3, "full": 4, "strict": 5}
FEATURES = {"mem_track": 1, "lazy_pages": 2}

# What it says where it may not all that it would like to, and nothing follows from.
HARMLESS = ("rlimit: Can't setup RLIMIT_NOFILE for self", "tun: Unable to create tun")

SOCKET_FD = 3
ARGUMENTS = (PROGRAM, "swrk", str(SOCKET_FD))
FIRST_INHERITED = 4
SILENCE_S = 120.0  # that it may take without any work, until it hangs
LOOK_S = 5.0
_ABOVE = 64  # where descriptors are kept until they get their numbers
_MOST_ERRORS = 4
_VARINT, _EIGHT_BYTES, _BYTES = 0, 1, 2

# Field numbers of criu_req, criu_opts and what is in them.
_REQUEST = {"type": 1, "opts": 2, "notify_success": 3, "features": 5}
_OPTIONS = {
    "images_dir_fd": 1,
    "pid": 2,
    "leave_running": 3,
    "ext_unix_sk": 4,
    "tcp_established": 5,
    "evasive_devices": 6,
    "shell_job": 7,
    "file_locks": 8,
    "log_level": 9,
    "log_file": 10,
    "ps": 11,
    "notify_scripts": 12,
    "root": 13,
    "parent_img": 14,
    "track_mem": 15,
    "auto_dedup": 16,
    "work_dir_fd": 17,
    "ext_mnt": 23,
    "manage_cgroups": 24,
    "cg_root": 25,
    "rst_sibling": 26,
    "inherit_fd": 27,
    "manage_cgroups_mode": 34,
    "external": 37,
    "empty_ns": 38,
    "join_ns": 39,
    "freeze_cgroup": 44,
    "lazy_pages": 48,
    "orphan_pts_master": 50,
    "config_file": 51,
    "lsm_profile": 53,
    "lsm_mount_context": 63,
}
_INNER = {
    "opts": _OPTIONS,
    "features": FEATURES,
    "ps": {"address": 1, "port": 2},
    "ext_mnt": {"key": 1, "val": 2},
    "cg_root": {"ctrl": 1, "path": 2},
    "inherit_fd": {"key": 1, "fd": 2},
    "join_ns": {"ns": 1, "ns_file": 2},
}
# Field numbers of criu_resp, criu_restore_resp and criu_notify.
_TYPE, _SUCCESS, _RESTORED, _NOTIFIED, _ERRNO, _FOUND, _MESSAGE = 1, 2, 4, 5, 7, 8, 9
_RESTORED_PID, _SCRIPT, _NOTIFIED_PID = 1, 1, 2


class Notice:
    """What criu tells while it works: a step, the process that it is about, descriptors."""

    __slots__ = ("fds", "pid", "script")

    def __init__(self, script: str, pid: int, fds: list[int]) -> None:
        self.script = script
        self.pid = pid
        self.fds = fds


def find(search: str) -> str:
    """Return the path of criu, which is in a folder of a PATH; Unsupported where it is not installed."""
    for folder in search.split(":"):
        path = f"{folder}/{PROGRAM}"
        if folder and os.access(path, os.X_OK):
            return path
    raise Unsupported("criu is not installed: checkpoints are made and restored by it")


def start(inherited: Sequence[int] = (), environment: Mapping[str, str] = os.environ) -> Criu:
    """Start criu with this process's streams, and ``inherited`` as descriptors 4 and on."""
    program = find(environment.get("PATH", ""))
    ours, theirs = sockets.pair()
    kept = [keep(theirs.fileno()), *(keep(fd) for fd in inherited)]
    actions = [(os.POSIX_SPAWN_DUP2, fd, SOCKET_FD + i) for i, fd in enumerate(kept)]
    try:
        pid = os.posix_spawn(program, ARGUMENTS, environment, file_actions=actions)
    finally:
        theirs.close()
        for fd in kept:
            os.close(fd)
    return Criu(ours, pid)


class Criu:
    """A `criu swrk` process, which serves one request. Close it, or use it in a ``with``.

    Descriptors in a request are those of whoever made the socket.
    """

    def __init__(self, sock: sockets.Socket, pid: int) -> None:
        self.pid = pid  # of a child
        self._socket = sock
        self._awaited = False

    def __enter__(self) -> Criu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it go and wait for its end. Idempotent."""
        self._socket.close()
        if not self._awaited:
            self._awaited = True
            os.waitpid(self.pid, 0)

    def ask(
        self,
        kind: int,
        options: Fields,
        notice: Callable[[Notice], None],
        *,
        log: str,
        works_alone: bool = False,
    ) -> int:
        """Have a request done; return the pid that a restore made. Failed with what ``log`` says.

        ``works_alone``: it waits for nobody else, so it hangs when it does nothing at all; it is killed then.
        """
        self._send({"type": kind, "opts": options})
        while True:
            if works_alone:
                self._watch(kind)
            answer, fds = self._receive()
            if not answer.get(_SUCCESS, [0])[0]:
                raise Failed(_failure(kind, answer, log))
            if answer[_TYPE] != [NOTIFY]:
                break
            told = fields(_bytes(answer, _NOTIFIED))
            script = _bytes(told, _SCRIPT).decode(errors="replace")
            notice(Notice(script, _number(told, _NOTIFIED_PID), fds))
            self._send({"type": NOTIFY, "notify_success": True})
        return _number(fields(_bytes(answer, _RESTORED)), _RESTORED_PID)

    def _watch(self, kind: int) -> None:
        """Wait until there is something to receive."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        work, since = self._work(), time.monotonic()
        while not poll.poll(LOOK_S * 1000):
            now = self._work()
            if now != work:
                work, since = now, time.monotonic()
            elif time.monotonic() - since > SILENCE_S:
                os.kill(self.pid, _signal.SIGKILL)
                text = f"criu failed: type {NAMES[kind]}"
                raise Failed(f"{text}: it has done nothing for {SILENCE_S:g} seconds")

    def _work(self) -> tuple[list[str], str]:
        """Return the processor time that it has used, and what it has read and written."""
        with open(f"/proc/{self.pid}/stat") as stat, open(f"/proc/{self.pid}/io") as io:
            return stat.read().rpartition(")")[2].split()[11:15], io.read()

    def has(self, feature: str) -> bool:
        """Say whether criu and this kernel have a feature, by its name in FEATURES."""
        self._send({"type": FEATURE_CHECK, "features": {feature: True}})
        answer, _ = self._receive()
        if not answer.get(_SUCCESS, [0])[0]:
            raise Failed(_failure(FEATURE_CHECK, answer, ""))
        return bool(_number(fields(_bytes(answer, _FOUND)), FEATURES[feature]))

    def _send(self, request: Fields) -> None:
        try:
            sockets.send_packet(self._socket, message(request, _REQUEST), [])
        except BrokenPipeError:  # it has ended; that is found out next
            return

    def _receive(self) -> tuple[dict[int, list[int | bytes]], list[int]]:
        try:
            data, fds = sockets.receive(self._socket)
        except ConnectionResetError:
            data, fds = b"", []
        return fields(data), fds


def keep(fd: int) -> int:
    """Return a copy of a descriptor whose number none of the child's will be."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE)


def _failure(kind: int, answer: dict[int, list[int | bytes]], log: str) -> str:
    why = _errors(log) or _bytes(answer, _MESSAGE).decode(errors="replace").strip()
    text = f"criu failed: type {NAMES[kind]} errno {_number(answer, _ERRNO)}"
    return f"{text}: {why or 'it ended without an answer'}"


def _errors(path: str) -> str:
    """Return the last few errors in a log of criu's, "" when there are none."""
    found = []
    try:
        with open(path, errors="replace") as file:
            for line in file:
                _, _, text = line.partition("Error (")
                if text and not any(words in text for words in HARMLESS):
                    said = text.partition("): ")[2].strip()
                    found.append("".join(c if c.isprintable() else "?" for c in said))
    except OSError:
        pass
    return "; ".join(found[-_MOST_ERRORS:])


def roots_of(pid: int) -> list[dict[str, str]]:
    """Return the groups that a process is in as those below which criu restores others."""
    found = []
    with open(f"/proc/{pid}/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            found.append({"ctrl": controllers, "path": path})
    return found


def message(values: Fields, numbers: Mapping[str, int]) -> bytes:
    """Encode a message; a list is a repeated field, a mapping a message within."""
    found = bytearray()
    for name, value in values.items():
        number = numbers[name]
        items = value if isinstance(value, (list, tuple)) else (value,)
        for item in items:
            found += _field(number, item, _INNER.get(name, {}))
    return bytes(found)


def _field(number: int, value: Value, inner: Mapping[str, int]) -> bytes:
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(int(value))
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
    else:
        assert isinstance(value, dict)
        data = message(value, inner)
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """Encode a number: seven bits a byte, the least first; negative ones as of 64 bits."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def fields(data: bytes) -> dict[int, list[int | bytes]]:
    """Decode a message into the values of each field number."""
    found: dict[int, list[int | bytes]] = {}
    place = 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, place = _read_varint(data, place)
        else:
            length = {_EIGHT_BYTES: 8, _BYTES: -1}.get(kind, 4)
            if length < 0:
                length, place = _read_varint(data, place)
            value, place = data[place : place + length], place + length
        found.setdefault(number, []).append(value)
    return found


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise Failed("criu failed: its answer is cut off")


def _bytes(message_: dict[int, list[int | bytes]], number: int) -> bytes:
    value = message_.get(number, [b""])[0]
    return value if isinstance(value, bytes) else b""


def _number(message_: dict[int, list[int | bytes]], number: int) -> int:
    value = message_.get(number, [0])[0]
    return value if isinstance(value, int) else 0
