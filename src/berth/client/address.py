"""Where an engine is: ``unix://PATH``, ``tcp://HOST:PORT``, ``ssh://[USER@]HOST[:PORT]``, or the default."""

from __future__ import annotations

import os

from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.client.tls import TlsFiles

DEFAULT_TCP_PORT, DEFAULT_TLS_PORT = 2375, 2376  # as Docker's
FORMS = "use unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]"


class Address:
    """One place to connect to.

    With a ``host`` it is another machine's: by ``ssh``, else by TCP, in TLS when there is ``tls``. ``path``
    is a unix socket's, with ssh one on the other machine.
    """

    __slots__ = ("host", "path", "port", "ssh", "tls", "url", "user")

    def __init__(
        self, url: str, *, path: str = "", host: str = "", port: int = 0, user: str = ""
    ) -> None:
        self.url = url
        self.path = path
        self.host = host
        self.port = port
        self.user = user
        self.ssh = url.startswith("ssh://")
        self.tls: TlsFiles | None = None


class Roots:
    """Where the default engine of this user keeps its things."""

    __slots__ = ("data", "exec", "socket")

    def __init__(self, data: str, exec_: str) -> None:
        self.data = data
        self.exec = exec_
        self.socket = f"{exec_}/berth.sock"


def default_roots() -> Roots:
    """Return root's directories, or the XDG ones of any other user."""
    user = os.geteuid()
    if user == 0:
        return Roots("/var/lib/berth", "/run/berth")
    environment = os.environ
    home = environment.get("HOME", "/")
    data = environment.get("XDG_DATA_HOME") or f"{home}/.local/share"
    run = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    return Roots(f"{data}/berth", f"{run}/berth")


def parse(url: str) -> Address:
    """Take an address apart; InvalidArgument when it is none."""
    kind, separator, rest = url.partition("://")
    if separator and kind == "unix" and rest.startswith("/"):
        return Address(url, path=rest)
    if separator and kind == "tcp":
        host, colon, port = rest.rstrip("/").rpartition(":")
        if not colon:
            host, port = port, str(DEFAULT_TCP_PORT)
        if port.isdecimal() and int(port) < 65536:
            return Address(url, host=host.strip("[]") or "127.0.0.1", port=int(port))
    if separator and kind == "ssh":
        where, slash, path = rest.partition("/")
        user, _, machine = where.rpartition("@")
        host, colon, port = machine.rpartition(":")
        if not colon:
            host, port = port, "0"
        # A host that looks like an option would be one to ssh.
        if host and not host.startswith("-") and port.isdecimal() and int(port) < 65536:
            address = Address(url, host=host.strip("[]"), port=int(port), user=user)
            address.path = f"/{path}" if slash and path else ""
            return address
    raise InvalidArgument(f"invalid host {url!r}: {FORMS}")


def chosen(given: str) -> Address | None:
    """Return the address of ``-H`` or BERTH_HOST; None means the default engine."""
    url = given or os.environ.get("BERTH_HOST", "")
    return parse(url) if url else None
