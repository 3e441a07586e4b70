"""The options of the local driver: what is mounted at a volume's directory while containers use it."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import TYPE_CHECKING

from berth.configuration.checks import size_bytes
from berth.errors import Failed, InvalidArgument
from berth.kernel import mounts
from berth.runtime.mountoptions import parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KNOWN = ("type", "o", "device", "size")
NEEDS = (("device", "type"), ("type", "device"), ("o", "device"), ("o", "type"))
REMOTE = ("nfs", "nfs4", "cifs")
ADDRESS = re.compile(r"(?:^|,)addr=([^,]*)")
PASSWORD = re.compile(r"(password=)[^,:]*")
NO_QUOTAS = "quota size requested but no quota support"
MOUNTINFO = "/proc/self/mountinfo"


def check(options: Mapping[str, str], *, has_quotas: bool) -> None:
    """Refuse options that make no sense, in Docker's words."""
    for name in options:
        if name not in KNOWN:
            raise InvalidArgument(f'invalid option: "{name}"')
    size = limit_bytes(options)
    if size and not has_quotas:
        raise InvalidArgument(NO_QUOTAS)
    for name, other in NEEDS:
        if name in options and other not in options:
            raise InvalidArgument(f'missing required option: "{other}"')
    if size and needs_mount(options):  # no directory of ours
        raise InvalidArgument(NO_QUOTAS)


def limit_bytes(options: Mapping[str, str]) -> int:
    """Return how much may be written, 0 for any amount."""
    return size_bytes(options["size"]) if "size" in options else 0


def needs_mount(options: Mapping[str, str] | None) -> bool:
    """Say whether something is to be mounted."""
    return bool(options and (options.get("device") or options.get("type")))


def mount(options: Mapping[str, str], path: Path) -> None:
    """Mount what the options say at ``path``. It may take as long as a server takes to answer."""
    fstype, device = options.get("type", ""), options.get("device", "")
    text = options.get("o", "")
    if fstype in REMOTE:
        text = _with_address(text)
    flags, data, propagation = parse_options([word for word in text.split(",") if word])
    try:
        mounts.mount(device, str(path), fstype, flags, data)
        if flags & mounts.MS_BIND and flags & mounts.MS_RDONLY:
            mounts.mount("", str(path), flags=flags | mounts.MS_REMOUNT)
        if propagation:
            mounts.mount("", str(path), flags=propagation)
    except OSError as error:
        unmount(path)
        what = f"mount {device}:{path}"
        if flags:
            what += f", flags: {flags:#x}"
        if data:
            what += ", data: " + PASSWORD.sub(r"\1********", data)
        why = os.strerror(error.errno or 0).lower()
        raise Failed(
            f"error while mounting volume '{path}': failed to mount local volume: {what}: {why}"
        ) from error


def _with_address(text: str) -> str:
    """Return options in which the server's name is its address: the kernel asks no name server."""
    found = ADDRESS.search(text)
    if found is None:
        return text
    name = found[1]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        try:
            address = socket.getaddrinfo(name, None)[0][4][0]
        except OSError as error:
            raise Failed(
                f"error resolving passed in network volume address: lookup {name}: no such host"
            ) from error
        return text.replace(f"addr={name}", f"addr={address}", 1)
    return text


def is_mounted(path: Path) -> bool:
    """Say whether something is mounted at ``path``."""
    wanted = re.sub(r"[ \t\n\\]", lambda match: f"\\{ord(match[0]):03o}", str(path.resolve()))
    with open(MOUNTINFO, errors="surrogateescape", newline="\n") as lines:  # noqa: PTH123
        return any(line.split(" ", 5)[4] == wanted for line in lines)


def unmount(path: Path) -> None:
    """Unmount whatever is mounted at ``path``; containers that have it keep it."""
    while is_mounted(path):
        mounts.umount2(str(path), mounts.MNT_DETACH)
