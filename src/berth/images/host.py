"""The built-in image ``host``: this machine's own root file system, seen copy-on-write.

A layer of whiteouts hides what no container should read: keys, password hashes, other engines' data.
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

from berth.runtime.template import HIDING, HOST_ROOT

if TYPE_CHECKING:
    from pathlib import Path

NAME = "host:latest"

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
    """Return the lower directories of a container of this image, topmost first."""
    return [HIDING, HOST_ROOT]


def hidden_paths(*roots: Path) -> list[str]:
    """Return what this machine has of the hidden, and the engine's own ``roots``."""
    patterns = (*HIDDEN, *(str(root) for root in roots))
    return [path for pattern in patterns for path in glob.glob(pattern)]


def config() -> dict[str, object]:
    """Return the image's configuration."""
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"Env": [path], "Cmd": [shell]}
