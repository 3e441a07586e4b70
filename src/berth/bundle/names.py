"""Names in a spec: of namespaces, and of kernel parameters."""

from __future__ import annotations

import os

from berth.errors import InvalidArgument
from berth.kernel import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Linux


def namespace_paths(linux: Linux) -> dict[str, str]:
    """Return the namespaces asked for, by type, with the paths to join; "" is a new one."""
    found: dict[str, str] = {}
    for entry in linux.get("namespaces") or ():
        kind = entry.get("type", "")
        if kind not in namespaces.NAMESPACES:
            raise InvalidArgument(f"namespace {kind!r} does not exist")
        if kind in found:
            raise InvalidArgument(f"malformed spec file: duplicated ns {entry}")
        path = entry.get("path") or ""
        if path and not os.path.isabs(path):
            raise InvalidArgument(f"namespace path {path!r} is not absolute")
        found[kind] = path
    return found


def sysctl_path(name: str) -> str:
    """Return the path of a kernel parameter below /proc/sys; one that leads elsewhere is refused."""
    # Without slashes every dot separates; with them dots are part of names (sysctl.d(5)).
    path = name if "/" in name else name.replace(".", "/")
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise InvalidArgument(f'sysctl "{name}" is not the name of a kernel parameter')
    return path
