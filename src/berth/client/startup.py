"""Start the default engine when nobody serves its socket, and wait until it does.

The engine becomes a process of its own (double fork, setsid), logs to ``<exec-root>/berthd.log``, writes a
byte to a pipe when clients can connect, and leaves by itself when it was idle for a while.
"""

from __future__ import annotations

import fcntl
import os
import sys

from berth.client.address import Address, Roots, default_roots
from berth.client.connection import Connection
from berth.errors import Unavailable

IDLE_EXIT_S = 300


def connect(address: Address | None) -> Connection:
    """Return a connection to the address; None means the default engine, started if need be."""
    if address is not None:
        connection = Connection(address)
        connection.open()
        return connection
    roots = default_roots()
    connection = Connection(Address(f"unix://{roots.socket}", path=roots.socket))
    try:
        connection.open()
    except Unavailable:
        start(roots, connection)
    return connection


def start(roots: Roots, connection: Connection) -> None:
    """Start an engine and connect. Callers that come at the same time wait for the first one's."""
    if os.geteuid() != 0:
        raise Unavailable(
            f"no engine answers at unix://{roots.socket}, and only root may start one",
            hint="use sudo, or name an engine that runs with -H or BERTH_HOST",
        )
    os.makedirs(roots.exec, mode=0o711, exist_ok=True)
    lock = os.open(f"{roots.exec}/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.open()
        except Unavailable:
            _launch(roots)
            connection.open()
    finally:
        os.close(lock)


def _launch(roots: Roots) -> None:
    log = f"{roots.exec}/berthd.log"
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                _become_engine(roots, log, told)
        finally:
            os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    try:
        answer = os.read(ready, 1)
    finally:
        os.close(ready)
    if not answer:
        raise Unavailable(f"start engine: {_last_line(log)}", hint=f"its log is {log}")


def _become_engine(roots: Roots, log: str, told: int) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    source = os.open("/dev/null", os.O_RDONLY)
    for fd, target in ((source, 0), (output, 1), (output, 2)):
        os.dup2(fd, target)
    os.set_inheritable(told, True)
    search = os.pathsep.join(os.path.abspath(part) for part in sys.path if part)
    os.chdir("/")
    places = ("--data-root", roots.data, "--exec-root", roots.exec)  # else as the settings say
    os.execve(
        sys.executable,
        [
            *(sys.executable, "-m", "berth", "serve", "--socket", roots.socket),
            *(places if roots != default_roots() else ()),
            *("--idle-exit", str(IDLE_EXIT_S), "--ready-fd", str(told)),
        ],
        {**os.environ, "PYTHONPATH": search},
    )


def _last_line(log: str) -> str:
    """Return the last line the engine wrote, for the person at the terminal."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = [line for line in file.read().splitlines() if line.strip()]
            lines = [line for line in lines if not line.startswith(b"hint: ")]
    except OSError as error:
        return str(error)
    return lines[-1].decode("utf-8", "replace") if lines else "it ended without a word"
