"""The built-in image ``host``: this machine's own root file system, seen copy-on-write.

A layer of whiteouts hides what no container should read: keys, password hashes, other engines' data.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
from typing import TYPE_CHECKING

from berth.runtime.template import HOST_ROOT
from berth.snapshots.overlay import copy_attributes

if TYPE_CHECKING:
    from pathlib import Path

NAME = "host:latest"
FOLDER = "host"

PERSONAL = (
    ".ssh",
    ".docker",
    ".aws",
    ".gnupg",
    ".netrc",
    ".kube",
    ".config/gcloud",
    ".azure",
    ".pypirc",
)
HIDDEN = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/run/docker.sock",
    "/run/containerd",
    *(f"/root/{name}" for name in PERSONAL),
    *(f"/home/*/{name}" for name in PERSONAL),
)


def lower() -> list[str]:
    """Return the lower directories of a container of this image, relative to the snapshots."""
    return [f"../{FOLDER}", HOST_ROOT]


def build_hiding_layer(data_root: Path, exec_root: Path) -> None:
    """Make the layer of whiteouts anew from what this machine has now."""
    layer = data_root / FOLDER
    shutil.rmtree(layer, ignore_errors=True)
    layer.mkdir(mode=0o755)
    copy_attributes("/", layer)
    for pattern in (*HIDDEN, str(data_root), str(exec_root)):
        for path in glob.glob(pattern):
            _hide(layer, path)


def _hide(layer: Path, path: str) -> None:
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        source = "/" + "/".join(parts[:depth])
        if os.path.islink(source):
            return  # hidden under its real name, or not on this file system
        target = layer / source[1:]
        if not target.exists():
            target.mkdir()
            copy_attributes(source, target)
    hidden = layer / "/".join(parts)
    if not os.path.lexists(hidden):
        os.mknod(hidden, stat.S_IFCHR, 0)


def config() -> dict[str, object]:
    """Return the image's configuration."""
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"Env": [path], "Cmd": [shell]}
