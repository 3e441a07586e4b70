"""An engine on another machine, through the ssh program: `ssh HOST berth system dial-stdio`."""

from __future__ import annotations

import _socket
import os

from berth import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.client.address import Address

CONNECT_TIMEOUT_S = 30


def command(address: Address) -> list[str]:
    """Return the command line."""
    words = ["ssh", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "-T"]
    if address.user:
        words += ["-l", address.user]
    if address.port:
        words += ["-p", str(address.port)]
    host = [] if not address.path else ["--host", f"unix://{address.path}"]
    return [*words, "--", address.host, "berth", *host, "system", "dial-stdio"]


def connect(address: Address) -> _socket.socket:
    """Start ssh; return a socket that is its standard input and output."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    fd = theirs.fileno()
    words = command(address)
    try:
        # A session of its own: Ctrl-C is for the container, not for the way to it.
        os.posix_spawnp(
            words[0],
            words,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, fd, 1)],
            setsid=True,
        )
    except OSError as error:
        ours.close()
        raise errors.Unavailable(f"connect to {address.url}: run ssh: {error.strerror}") from error
    finally:
        theirs.close()
    return ours
