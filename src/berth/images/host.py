"""The built-in image ``host``: this machine's own root file system, seen copy-on-write.

A layer of whiteouts hides what no container should read: keys, password hashes, other engines' data. The
zygote builds it (:mod:`berth.runtime.template`) from :func:`hidden_paths`.
"""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import msgspec

from berth.images.records import Image
from berth.oci.digest import Digest
from berth.oci.image import ImageConfig, ImageDocument
from berth.oci.platform import this_machine
from berth.runtime.template import HIDING, HOST_ROOT, MACHINE

__all__ = ["MACHINE", "NAME", "hidden_paths", "image", "lower"]

NAME = "host:latest"
CREATED = "1970-01-01T00:00:00Z"  # in what its id is made of
# Files that are written when a machine is set up, and where the engines are told to keep their data.
SET_UP = ("/etc/machine-id", "/etc/hostname", "/")
SETTINGS = (
    ("/etc/docker/daemon.json", ("data-root", "exec-root")),
    ("/etc/containerd/config.toml", ("root", "state")),
    ("/etc/containers/storage.conf", ("storage.graphroot", "storage.runroot")),
    ("/etc/crio/crio.conf", ("crio.root", "crio.runroot")),
)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PERSONAL = (
    ".ssh",
    ".docker",
    ".aws",
    ".azure",
    ".gnupg",
    ".netrc",
    ".kube",
    ".pypirc",
    ".npmrc",
    ".git-credentials",
    ".password-store",
    ".vault-token",
    ".config/gcloud",
    ".config/gh",
    ".config/containers/auth.json",
    ".config/git/credentials",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".terraform.d/credentials.tfrc.json",
    ".local/share/containers",
    ".local/share/docker",
    ".local/share/keyrings",
    ".bash_history",
    ".python_history",
)
HIDDEN = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/docker/key.json",
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/letsencrypt/archive",
    "/etc/letsencrypt/live",
    "/etc/NetworkManager/system-connections",
    "/var/lib/docker",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/lib/etcd",
    "/var/lib/berth",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/berth",
    "/run/secrets",
    *(f"/root/{name}" for name in PERSONAL),
    *(f"/home/*/{name}" for name in PERSONAL),
)


def lower() -> list[str]:
    """Return the lower directories of a container of this image, topmost first."""
    return [HIDING, HOST_ROOT]


def hidden_paths(*roots: Path) -> list[str]:
    """Return what is hidden on this machine, the engine's own ``roots`` included.

    What could still come is hidden already when the directory that it would come into is there.
    """
    found = {str(root.resolve()): None for root in (*roots, *other_engines())}
    for pattern in HIDDEN:
        folder, _, name = pattern.rpartition("/")
        if "*" in name:
            found.update(dict.fromkeys(glob.glob(pattern)))
        else:
            found.update((f"{there}/{name}", None) for there in glob.glob(folder or "/"))
    return [path for path in found if not any(path.startswith(f"{above}/") for above in found)]


def _read_toml(text: str) -> object:
    import tomllib

    return tomllib.loads(text)


def other_engines() -> list[Path]:
    """Return where other engines were told to keep their data, when that is not their default place."""
    found = []
    for path, names in SETTINGS:
        try:
            text = Path(path).read_text()
            settings = msgspec.json.decode(text) if path.endswith(".json") else _read_toml(text)
        except (OSError, ValueError):
            continue
        for name in names:
            value = settings
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if isinstance(value, str) and value.startswith("/") and value != "/":
                found.append(Path(value))
    return found


def set_up() -> str:
    """Return when this machine was set up, as far as its files say: the image is as old as that."""
    for path in SET_UP:
        if os.path.exists(path):
            moment = time.gmtime(os.stat(path).st_mtime)
            return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
    return CREATED


def image() -> Image:
    """Return the image's record. Its id depends on what it runs by default only."""
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    platform = this_machine()
    document = ImageDocument(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=CREATED,
        comment="this machine's root file system, copy-on-write",
        config=ImageConfig(env=[PATH], cmd=[shell]),
    )
    return Image(
        id=str(Digest.of(msgspec.json.encode(document))),
        config=document.config or ImageConfig(),
        chain_id="",
        diff_ids=[],
        size_bytes=0,
        created=set_up(),
        names=[NAME],
        architecture=platform.architecture,
        variant=platform.variant,
        comment=document.comment,
        builtin=True,
    )
