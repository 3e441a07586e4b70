"""What a container gets from the host: its hosts, hostname and resolv.conf, beside its binds and volumes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from berth.engine import additions, sharing, sources, spec
from berth.errors import InvalidArgument
from berth.kernel import mounts
from berth.network import files
from berth.network.names import GATEWAY_NAMES
from berth.network.networks import HOST
from berth.network.records import hosts
from berth.network.wiring import RESOLVER
from berth.runtime.requests import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from berth.engine.cdifiles import Edits
    from berth.engine.models import ContainerRecord
    from berth.network.records import EndpointRecord, Sandbox

log = logging.getLogger("berth")

RESOLV_CONF = "resolv.conf"
FILES = ("hostname", "hosts", RESOLV_CONF)
SHARED_IPC = ("/dev/shm", "/dev/mqueue")  # noqa: S108 - the host's, for --ipc=host
LARGE_BLOCKS = 1 << 15  # of 512 bytes
MOVES = 3  # of a log from name to name, while it is removed
MAX_BYTES = 1 << 20  # of a file that a container may write what it likes to


async def apart(folder: Path, work: Callable[[], None]) -> None:
    """Do ``work`` on the files of ours in a folder, but in a thread where one is large.

    To cut off or remove what a container has made of a file, of a million pieces maybe, can take a minute.
    """
    if _has_large(folder):
        await asyncio.to_thread(work)
    else:
        work()


def _has_large(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(e.stat(follow_symlinks=False).st_blocks > LARGE_BLOCKS for e in entries)
    except OSError:
        return False


def write(
    folder: Path,
    record: ContainerRecord,
    sandbox: Sandbox | None = None,
    *,
    linked: Iterable[tuple[str, str]] = (),
    host_gateways: Sequence[str],
) -> None:
    """Write the container's own files into its folder, with the addresses that it has in its sandbox.

    ``host_gateways`` is what the engine's settings say that ``host-gateway`` is, if they do.
    """
    host, name = record.host_config, spec.hostname(record)
    endpoints = sandbox.endpoints if sandbox is not None else ()
    gateways = hosts(endpoints)
    entries = [_extra_host(entry) for entry in host.extra_hosts or []]
    host_gateways = host_gateways or gateways[:1] or ("127.0.0.1",)
    extra = files.extra_hosts(entries, host_gateways=host_gateways)
    resolves = sandbox is not None and sandbox.resolves
    if not resolves and host.network_mode != HOST:  # else its resolver knows
        names = " ".join(GATEWAY_NAMES)
        extra = [*((gateway, names) for gateway in gateways), *extra]
    table = files.hosts(
        hostname=name,
        domainname=record.config.domainname,
        addresses=[text for e in endpoints for text in (e.address, e.address6) if text],
        extra=[*extra, *linked],
        base=files.host_hosts() if host.network_mode == HOST else None,
    )
    resolv_conf = _resolv_conf(record, resolves=resolves)
    texts = (files.hostname(name), table, resolv_conf)
    for file, text in zip(FILES, texts, strict=True):
        path = f"{folder}/{file}"
        try:
            _write(path, text)
        except BlockingIOError:  # one that shares the network holds it: that has the old one, then
            os.unlink(path)  # noqa: PTH108
            _write(path, text)


def relink(folder: Path, lines: Iterable[tuple[str, str]]) -> None:
    """Give the names of linked containers other addresses in a running container's hosts."""

    def change(text: str) -> str:
        for address, names in lines:
            text = files.with_address(files.without_names(text, names), address, names)
        return text

    _edit(folder / "hosts", change)


def _resolv_conf(record: ContainerRecord, *, resolves: bool) -> str:
    host = record.host_config
    return files.resolv_conf(
        files.host_resolv_conf(),
        servers=host.dns or (),
        search=host.dns_search or (),
        options=host.dns_options or (),
        own_namespace=host.network_mode != HOST,
        resolver=RESOLVER if resolves else "",
    )


def _open(path: str, flags: int) -> int:
    """Open a file that a container has, too. By a lease on it (fcntl(2)) that would have everybody wait."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)


def _write(path: str, text: str) -> None:
    """Write a file in place, for a container that runs has it mounted.

    At every moment it has the old text or the new one, and a disk that is full leaves it the old one.
    """
    data = text.encode(errors="surrogateescape")
    fd = _open(path, os.O_WRONLY | os.O_CREAT)
    try:
        # A container may have made it as large as it likes, of nothing: what is beyond that is cut off.
        size = min(os.fstat(fd).st_size, MAX_BYTES)
        if 0 < size < len(data):
            _lengthen(fd, size, len(data) - size)
        # One write of what there is room for, and blank lines where it has become shorter.
        if os.pwrite(fd, data.ljust(size, b"\n"), 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _lengthen(fd: int, size: int, more: int) -> None:
    """Add blank lines to a file, all of them or, when the disk is full, none."""
    try:
        done = os.pwrite(fd, b"\n" * more, size)
        if done < more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(fd, size)
        raise


def _edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a running container's file. What it made of that is its own affair, and fails nothing else."""
    try:
        with open(_open(str(path), os.O_RDONLY), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            _edit_head(path, data[: data.rfind(b"\n", 0, MAX_BYTES) + 1], change)
            return
        before = data.decode(errors="surrogateescape")
        after = change(before)
        if after != before:
            _write(str(path), after)
    except (OSError, ValueError) as error:
        log.warning("a container's file stays as it is: %s", error)


def _edit_head(path: Path, head: bytes, change: Callable[[str], str]) -> None:
    """Change the first lines of a large file, in the room that they have; what needs more goes to its end."""
    before = head.decode(errors="surrogateescape")
    after = change(before).encode(errors="surrogateescape")
    if after == head:
        return
    fd = _open(str(path), os.O_RDWR)
    try:
        if len(after) > len(head):
            kept = after.rfind(b"\n", 0, len(head)) + 1
            moved, after = b"\n" + after[kept:], after[:kept]
            size = os.fstat(fd).st_size
            if os.pwrite(fd, moved, size) < len(moved):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.pwrite(fd, after.ljust(len(head), b"\n"), 0)
    finally:
        os.close(fd)


def update(
    folder: Path,
    record: ContainerRecord,
    sandbox: Sandbox | None = None,
    *,
    gone: EndpointRecord | None = None,
) -> None:
    """Tell a running container its new addresses, and take one out that is ``gone``."""
    names = files.own_names(spec.hostname(record), record.config.domainname)

    def change(text: str) -> str:
        for address in (gone.address, gone.address6) if gone is not None else ():
            text = files.without_address(text, address)
        for endpoint in sandbox.endpoints if sandbox is not None else ():
            for address in filter(None, (endpoint.address, endpoint.address6)):
                text = files.with_address(text, address, names)
        return text

    _edit(folder / "hosts", change)
    if sandbox is not None and sandbox.resolves:
        ours = _resolv_conf(record, resolves=True)
        _edit(folder / RESOLV_CONF, lambda text: text if RESOLVER in text else ours)


def unlink(folder: Path, alias: str) -> None:
    """Take the line of a link out of a running container's hosts."""

    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if line.split()[1:2] != [alias])

    _edit(folder / "hosts", change)


def _extra_host(entry: str) -> str:
    """Return "name:address"; clients may write an equals sign."""
    text = entry.replace("=", ":", 1) if ":" not in entry.partition("=")[0] else entry
    name, _, address = text.partition(":")
    if not name or not address:
        raise InvalidArgument(f"bad format for add-host: {entry!r}")
    return text


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours; nothing when it is not there.

    A log in it may be on the way to another name: it is being packed, by a process that nobody waits for.
    """
    try:  # two levels at most, and usually few files: a third of what shutil takes
        for entry in os.scandir(folder):
            os.unlink(entry)  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106
    except OSError:
        for _ in range(MOVES):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                return


def targets(record: ContainerRecord, added: Edits | None) -> list[str]:
    """Return where a container has mounts from outside: :func:`open_trees`, images, others' memory."""
    host = record.host_config
    taken = {point.target for point in record.mount_points}
    found = [f"/etc/{name}" for name in FILES if f"/etc/{name}" not in taken]
    if host.ipc_mode == "host":
        found += [path for path in SHARED_IPC if Path(path).exists()]
    elif spec.shared_container(host.ipc_mode):
        found.append(spec.SHM)
    described = additions.targets(added, spec.taken_places(record)) if added is not None else []
    return [*found, *taken, *described]


def open_trees(folder: Path, record: ContainerRecord, added: Edits | None) -> tuple[Tree, ...]:
    """Open everything that comes from the host as detached mounts, owned by the caller.

    ``added``: what described devices add.
    """
    trees: list[Tree] = []
    try:
        taken = {point.target for point in record.mount_points}
        for name in FILES:
            if f"/etc/{name}" not in taken:
                try:
                    fd = mounts.open_tree(f"{folder}/{name}", recursive=False)
                except FileNotFoundError:  # went with the container whose network is shared
                    if sharing.network_of(record) is None:
                        raise
                    continue
                trees.append(Tree(fd=fd, target=f"/etc/{name}", stored=True))
        if record.host_config.ipc_mode == "host":
            trees += [
                Tree(fd=mounts.open_tree(p), target=p) for p in SHARED_IPC if Path(p).exists()
            ]
        sources.open_all(record.mount_points, trees)
        if added is not None:
            additions.open_binds(added, spec.taken_places(record), trees)
    except BaseException:
        for tree in trees:
            os.close(tree.fd)
        raise
    return tuple(trees)
