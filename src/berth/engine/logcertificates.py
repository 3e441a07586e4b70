"""TLS with a syslog server: the files that options name are read here, for a monitor sees none of them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from berth.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping

CA, CERT, KEY, SKIP_VERIFY = (
    f"syslog-tls-{name}" for name in ("ca-cert", "cert", "key", "skip-verify")
)
OPTIONS = (CA, CERT, KEY, SKIP_VERIFY)


def told(options: Mapping[str, str], host: str) -> bytes:
    """Return all that a monitor needs, from files: not for the event loop. Failed as in Docker."""
    verify = SKIP_VERIFY not in options  # whatever it says, as in Docker
    ca, cert, key = (options.get(name, "") for name in (CA, CERT, KEY))
    own = ""
    if cert or key:
        own = _read(cert, "could not load X509 key pair: ") + _read(
            key, "could not load X509 key pair: "
        )
    found = {
        "authorities": _authorities(ca) if verify else "",
        "own": own,
        "verify": verify,
        "name": host,
    }
    return msgspec.json.encode(found)


def memory_file(content: bytes) -> int:
    """Return a file in memory, to be handed to a monitor; the caller's to close."""
    fd = os.memfd_create("log-certificates", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd


def _authorities(path: str) -> str:
    if path:
        return _read(path, f'could not read CA certificate "{path}": ')
    import ssl

    known = ssl.get_default_verify_paths()
    if known.cafile:
        return _read(known.cafile, "")
    hashed = Path(known.capath).glob("*.[0-9]") if known.capath else ()
    return "".join([_read(str(found), "") for found in sorted(hashed)])


def _read(path: str, intent: str) -> str:
    try:
        # Nobody may ever write to a FIFO.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return file.read().decode("ascii", errors="replace")
    except OSError as error:
        why = f"open {path}: {(error.strerror or str(error)).lower()}"
        raise Failed(f"failed to initialize logging driver: {intent}{why}") from error
