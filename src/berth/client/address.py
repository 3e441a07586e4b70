"""Where an engine listens: ``unix://PATH`` or ``tcp://HOST:PORT``, and where the default one does."""

from __future__ import annotations

import os

from berth.errors import InvalidArgument

DEFAULT_TCP_PORT = 2375  # as Docker's


class Address:
    """One place to connect to. ``path`` is empty for TCP."""

    __slots__ = ("host", "path", "port", "url")

    def __init__(self, url: str, *, path: str = "", host: str = "", port: int = 0) -> None:
        self.url = url
        self.path = path
        self.host = host
        self.port = port


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
    raise InvalidArgument(f"invalid host {url!r}: use unix://PATH or tcp://HOST:PORT")


def chosen(given: str) -> Address | None:
    """Return the address of ``-H`` or BERTH_HOST; None means the default engine."""
    url = given or os.environ.get("BERTH_HOST", "")
    return parse(url) if url else None
