"""A repository of git in a worker, confined to a directory of its own: fetched, and written as an archive.

    berthd → worker    what is wanted · an empty directory · a pipe
    worker → berthd    {"name": hash of the commit}, then the archive through the pipe

All that servers send is hostile. The worker has no privileges and sees no files but what it fetches; its
memory, what it stores and how long it waits for a server are bounded.
"""

from __future__ import annotations

import os
import pkgutil
import queue
import resource
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth.errors import Unsupported
from berth.images.layer import write_all
from berth.registry.certificates import whole_context
from berth.registry.transport import Transport
from berth.runtime.worker import confine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[Mapping[str, object]], None]

RESOLVER = ("resolv.conf", "hosts", "nsswitch.conf", "gai.conf", "host.conf")  # of /etc
OWN_LOOKUPS = (2, 34)  # since then a C library looks names up without files of its own
# Of Python's own, what is imported when it is needed, and cannot be any more by then.
MODULES = ("encodings.idna", "glob", "multiprocessing", "pwd", "shlex", "shutil", "tempfile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker may take."""

    memory_bytes: int
    disk_bytes: int
    files: int
    silence_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What berthd asks for; see :class:`berth.builds.repositories.Repository`."""

    url: str
    ref: str
    folder: str
    checksum: str
    keeps_git: bool
    submodules: bool
    authorization: str
    environment: Mapping[str, str]
    limits: Limits


def serve(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Fetch into the empty directory ``fds[0]``, and write the files to the pipe ``fds[1]``."""
    limits = Limits(**argument.pop("limits"))  # type: ignore[arg-type]
    task = Task(limits=limits, **argument)  # type: ignore[arg-type]
    directory, output = fds
    os.environ.update(task.environment, HOME="/")
    transport = _prepared(task)
    _bring_resolver(directory)
    confine(directory)
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    socket.setdefaulttimeout(limits.silence_s)
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            _deliver(task, transport, output, report)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.put(error)
        else:
            outcome.put(None)

    # A thread of its own waits for names to be found, which nothing interrupts: this one can leave.
    threading.Thread(target=work, daemon=True).start()
    error = outcome.get()
    if error is not None:
        raise error
    return {}


def _prepared(task: Task) -> Transport:
    """Load all that is read from this machine's files."""
    try:
        import dulwich
    except ModuleNotFoundError as error:
        raise Unsupported(
            "repositories need the package dulwich", hint="pip install 'berth[git]'"
        ) from error
    own = [f"dulwich.{one.name}" for one in pkgutil.iter_modules(dulwich.__path__) if not one.ispkg]
    for name in (*MODULES, *own):
        with suppress(ImportError):  # of what some of them need and these here do not
            __import__(name)
    __import__("berth.builds.gitarchive")
    "".encode("idna")
    library = os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" else None
    version = tuple(int(part) for part in (library or "glibc 9.9").split()[1].split("."))
    if version < OWN_LOOKUPS:
        with suppress(OSError):
            socket.getaddrinfo("berth.invalid", None)
    return Transport(
        task.environment,
        certificate_folders=(),  # those are for registries
        context=whole_context(),
        silence_s=task.limits.silence_s,
    )


def _bring_resolver(directory: int) -> None:
    """Copy what says how names are found to where it will be looked for."""
    os.mkdir("etc", 0o755, dir_fd=directory)
    for name in RESOLVER:
        with suppress(FileNotFoundError), open(f"/etc/{name}", "rb") as file:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            copy = os.open(f"etc/{name}", flags, 0o644, dir_fd=directory)
            try:
                write_all(copy, file.read())
            finally:
                os.close(copy)


def _deliver(task: Task, transport: Transport, output: int, report: Report) -> None:
    from berth.builds.gitarchive import Archive
    from berth.builds.gitclient import Client, Server

    server = Server(task.url, task.authorization)
    client = Client(transport, server, task.limits)
    found = client.fetch(task.url, task.ref)
    found.verify(task.checksum)
    archive = Archive(client, task, output)
    archive.check(found)
    report({"name": found.name})
    archive.write(found)
