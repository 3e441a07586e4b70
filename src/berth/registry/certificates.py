"""Which certificates count for a registry: Docker's ``certs.d/HOST[:PORT]/`` convention.

``*.crt`` there are authorities besides the system's, ``NAME.cert`` with ``NAME.key`` what the client shows.
``hosts.toml`` may name others.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument
from berth.registry.places import NO_TLS

if TYPE_CHECKING:
    from berth.registry.places import Tls


def tls_context(tls: Tls, folder: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, the folder's and those named, or anybody."""
    context = ssl.create_default_context()
    # Python 3.13 turns strictness on, and authorities made after Docker's documentation then fail.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if folder is not None:
        _add_folder(context, folder)
    for path in tls.authorities:
        _add(context, path)
    for identity in tls.identities:
        _add(context, *identity, identifies=True)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def whole_context() -> ssl.SSLContext:
    """Return a context that has read all of the system's authorities, for who is to see no files any more.

    Others read those of a directory one by one, when a server names them.
    """
    context = tls_context(NO_TLS)
    folder = ssl.get_default_verify_paths().capath
    files = {path.resolve() for path in Path(folder).iterdir()} if folder else set()
    for path in sorted(files):
        with suppress(OSError, ssl.SSLError):
            context.load_verify_locations(path)
    return context


def _add_folder(context: ssl.SSLContext, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".crt":
            _add(context, path)
        elif path.suffix == ".cert":
            key = path.with_suffix(".key")
            if not key.exists():
                raise InvalidArgument(
                    f"missing key {key.name} for client certificate {path.name}."
                    " CA certificates must use the extension .crt"
                )
            _add(context, path, key, identifies=True)


def _add(
    context: ssl.SSLContext, path: Path, key: Path | None = None, *, identifies: bool = False
) -> None:
    try:
        if identifies:
            context.load_cert_chain(path, key)
        else:
            context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"read certificate {path}: {error}") from error
