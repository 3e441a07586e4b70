"""Which certificates count for a registry: Docker's ``certs.d/HOST[:PORT]/`` convention.

``*.crt`` there are authorities besides the system's, ``NAME.cert`` with ``NAME.key`` what the client shows.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDERS = (
    Path("/etc/berth/certs.d"),
    Path("/etc/docker/certs.d"),
    Path("/etc/containers/certs.d"),
)


def folder_of(netloc: str, folders: Sequence[Path]) -> Path | None:
    """Return the directory of a registry's certificates, None when there is none."""
    host = netloc.rpartition("@")[2]
    if not host or "/" in host or host.startswith("."):
        return None
    return next((found for folder in folders if (found := folder / host).is_dir()), None)


def tls_context(*, verify: bool, folder: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and the folder's, or anybody."""
    context = ssl.create_default_context()
    # Python 3.13 turns strictness on, and authorities made after Docker's documentation then fail.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if folder is not None:
        _add(context, folder)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _add(context: ssl.SSLContext, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if not key.exists():
                    raise InvalidArgument(
                        f"missing key {key.name} for client certificate {path.name}."
                        " CA certificates must use the extension .crt"
                    )
                context.load_cert_chain(path, key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"read certificate {path}: {error}") from error
