"""What a container gets from the host: its hosts, hostname and resolv.conf, and its binds and volumes."""

from __future__ import annotations

import os
import shutil
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from berth.engine import spec
from berth.errors import InvalidArgument
from berth.kernel import mounts
from berth.runtime.requests import Tree

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord, MountPoint

HOSTS = """127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
"""
RESOLV_CONF = "resolv.conf"
FILES = ("hostname", "hosts", RESOLV_CONF)
SHARED_IPC = ("/dev/shm", "/dev/mqueue")  # noqa: S108 - the host's, for --ipc=host


def write(folder: Path, record: ContainerRecord) -> None:
    """Write the container's own files into its folder."""
    host = record.host_config
    (folder / "hostname").write_text(spec.hostname(record) + "\n")
    extra = (_extra_host(entry) for entry in host.extra_hosts or [])
    (folder / "hosts").write_text(HOSTS + "".join(extra))
    (folder / RESOLV_CONF).write_text(_resolv_conf(record))


def _extra_host(entry: str) -> str:
    name, separator, address = entry.replace("=", ":", 1).partition(":")
    if not separator or not address:
        raise InvalidArgument(f"bad format for add-host: {entry!r}")
    return f"{address.strip('[]')}\t{name}\n"


def _resolv_conf(record: ContainerRecord) -> str:
    """Return the host's file with what the client replaces in it."""
    host = record.host_config
    source = Path("/etc") / RESOLV_CONF
    lines = source.read_text(errors="replace").splitlines() if source.exists() else []
    replaced = {
        "nameserver": [f"nameserver {server}" for server in host.dns or []],
        "search": [f"search {' '.join(host.dns_search)}"] if host.dns_search else [],
        "options": [f"options {' '.join(host.dns_options)}"] if host.dns_options else [],
    }
    words = (line.split(None, 1) for line in lines)
    kept = [" ".join(pair) for pair in words if pair and not replaced.get(pair[0])]
    return "".join(f"{line}\n" for line in [*kept, *chain.from_iterable(replaced.values())])


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours; nothing when it is not there."""
    shutil.rmtree(folder, ignore_errors=True)


def check_sources(points: list[MountPoint]) -> None:
    """Refuse binds whose source is missing and is not to be made."""
    for point in points:
        missing = point.kind == "bind" and not point.make_source
        if missing and not Path(point.source).exists():
            raise InvalidArgument(
                'invalid mount config for type "bind": bind source path does not exist:'
                f" {point.source}"
            )


def open_trees(folder: Path, record: ContainerRecord) -> tuple[Tree, ...]:
    """Open everything that comes from the host as detached mounts, owned by the caller."""
    trees: list[Tree] = []
    try:
        taken = {point.target for point in record.mount_points}
        for name in FILES:
            if f"/etc/{name}" not in taken:
                fd = mounts.open_tree(str(folder / name), recursive=False)
                trees.append(Tree(fd=fd, target=f"/etc/{name}"))
        if record.host_config.ipc_mode == "host":
            trees += [
                Tree(fd=mounts.open_tree(p), target=p) for p in SHARED_IPC if Path(p).exists()
            ]
        trees += [_open(point) for point in record.mount_points]
    except BaseException:
        for tree in trees:
            os.close(tree.fd)
        raise
    return tuple(trees)


def _open(point: MountPoint) -> Tree:
    if point.make_source:
        _make_source(Path(point.source))
    try:
        fd = mounts.open_tree(point.source, recursive=point.recursive)
    except FileNotFoundError as error:
        raise InvalidArgument(
            f'invalid mount config for type "{point.kind}": bind source path does not exist: {point.source}'
        ) from error
    return Tree(
        fd=fd,
        target=point.target,
        read_only=point.read_only,
        propagation=point.propagation or "rprivate",
    )


def _make_source(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        return
    except OSError as error:
        raise InvalidArgument(
            f"error while creating mount source path '{path}': {(error.strerror or '').lower()}"
        ) from error
