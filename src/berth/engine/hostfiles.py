"""What a container gets from the host: its hosts, hostname and resolv.conf, and bind mounts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from berth.engine import spec
from berth.errors import InvalidArgument
from berth.kernel import mounts
from berth.runtime.requests import Tree

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord, HostConfig

HOSTS = """127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
"""
FILES = ("hostname", "hosts", "resolv.conf")
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


def write(folder: Path, record: ContainerRecord) -> None:
    """Write the container's own files into its folder."""
    host = record.host_config
    (folder / "hostname").write_text(spec.hostname(record) + "\n")
    extra = (entry.partition(":") for entry in host.extra_hosts or [])
    lines = "".join(f"{address}\t{name}\n" for name, _, address in extra)
    (folder / "hosts").write_text(HOSTS + lines)
    if host.dns:
        text = "".join(f"nameserver {server}\n" for server in host.dns)
    else:
        source = Path("/etc/resolv.conf")
        text = source.read_text(errors="replace") if source.exists() else ""
    (folder / "resolv.conf").write_text(text)


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours; nothing when it is not there."""
    shutil.rmtree(folder, ignore_errors=True)


def binds(host: HostConfig) -> list[tuple[str, str, list[str], bool]]:
    """Return (source, target, options, made when missing) of every bind mount."""
    found = []
    for text in host.binds or []:
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(parts):
            raise InvalidArgument(f"invalid volume specification: '{text}'")
        options = parts[2].split(",") if len(parts) == 3 else []
        found.append((parts[0], parts[1], options, True))
    for request in host.mounts or []:
        if request.type == "bind":
            options = ["ro"] if request.read_only else []
            found.append((request.source, request.target, options, False))
        elif request.type != "tmpfs":
            raise InvalidArgument(f'invalid mount config for type "{request.type}": not supported')
    return found


def check_binds(host: HostConfig) -> None:
    """Refuse what cannot be mounted."""
    for source, target, _, create in binds(host):
        if not target.startswith("/"):
            raise InvalidArgument(
                'invalid mount config for type "bind": invalid mount path:'
                f" '{target}' mount path must be absolute"
            )
        if not source.startswith("/"):
            raise InvalidArgument(
                f"invalid volume name {source!r}: this engine has bind mounts only; give an absolute path"
            )
        if not create and not Path(source).exists():
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {source}'
            )


def open_trees(folder: Path, record: ContainerRecord) -> tuple[Tree, ...]:
    """Open everything that comes from the host as detached mounts, owned by the caller."""
    trees: list[Tree] = []
    try:
        for name in FILES:
            fd = mounts.open_tree(str(folder / name), recursive=False)
            trees.append(Tree(fd=fd, target=f"/etc/{name}"))
        for source, target, options, create in binds(record.host_config):
            if create:
                _make_source(Path(source))
            propagation = next((o for o in options if o in PROPAGATIONS), "rprivate")
            fd = mounts.open_tree(source)
            read_only = "ro" in options
            trees.append(Tree(fd=fd, target=target, read_only=read_only, propagation=propagation))
    except BaseException:
        for tree in trees:
            os.close(tree.fd)
        raise
    return tuple(trees)


def _make_source(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        return
