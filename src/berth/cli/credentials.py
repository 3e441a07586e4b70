"""Credentials for registries, where the docker CLI keeps them: config.json in $DOCKER_CONFIG or ~/.docker.

So a login of either command line counts for both. Where the file names a credential helper for a server
(``credHelpers``) or for all (``credsStore``), ``docker-credential-NAME`` keeps the secrets.
"""

from __future__ import annotations

import binascii
import os

from berth.client import documents
from berth.errors import BerthError, Failed, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.client.documents import Document

NOT_FOUND = b"credentials not found in native keychain"
TOKEN_USER = "<token>"  # noqa: S105 - the name under which a helper keeps an identity token
HUB = "https://index.docker.io/v1/"
HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io", HUB)


def path() -> str:
    """Return where the file is, whether it exists or not."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(folder, "config.json")


def server_key(server: str) -> str:
    """Return the name under which a server's credentials are kept."""
    if server in HUB_NAMES:
        return HUB
    return server.removeprefix("https://").removeprefix("http://").rstrip("/").partition("/")[0]


def server_of(reference: str) -> str:
    """Return the server of an image's name."""
    first, slash, _ = reference.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return server_key(first if is_host else "")


def _read() -> Document:
    try:
        with open(path(), "rb") as file:
            return documents.mapping(documents.decode(file.read()))
    except FileNotFoundError:
        return {}
    except (OSError, BerthError) as error:
        raise InvalidArgument(f"read {path()}: {error}") from None


def _write(config: Document) -> None:
    """Replace the file as a whole; it is for its owner only."""
    import json

    target = path()
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    partial = f"{target}.{os.getpid()}.part"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(config, indent="\t"))
            file.flush()
            os.fsync(fd)
        os.rename(partial, target)
    except OSError as error:
        raise Failed(f"write {target}: {(error.strerror or '').lower()}") from error


def helper_of(server: str) -> str:
    """Return the program that keeps a server's secrets, "" when the file does."""
    config = _read()
    known = documents.mapping(config.get("credHelpers"))
    name = (
        documents.text(known, server) if server in known else documents.text(config, "credsStore")
    )
    if name and ("/" in name or name.startswith(".")):
        raise InvalidArgument(f"read {path()}: {name!r} is no credential helper")
    return f"docker-credential-{name}" if name else ""


def _ask(helper: str, verb: str, text: bytes) -> Document:
    """Let a helper do something; {} when it knows nothing of the server."""
    import subprocess  # noqa: TID251 - helpers are programs by their nature, and the user's choice

    try:
        done = subprocess.run([helper, verb], input=text, capture_output=True, check=False)
    except OSError as error:
        raise Failed(f"error getting credentials - run {helper}: {error.strerror}") from None
    out = done.stdout.strip()
    if done.returncode == 0:
        return documents.mapping(documents.decode(out)) if verb == "get" else {}
    if NOT_FOUND in out:
        return {}
    raise Failed(f"error getting credentials - {helper} {verb}: {out.decode(errors='replace')}")


def stored(server: str) -> Document:
    """Return what is kept for a server: ``username`` and ``password``, or ``identitytoken``."""
    if helper := helper_of(server):
        entry = _ask(helper, "get", server.encode())
        secret, username = documents.text(entry, "Secret"), documents.text(entry, "Username")
        if not secret:
            return {}
        if username == TOKEN_USER:
            return {"serveraddress": server, "identitytoken": secret}
        return {"serveraddress": server, "username": username, "password": secret}
    return _stored_in_file(server)


def everything() -> Document:
    """Return what is kept, by server."""
    config = _read()
    servers = {
        **documents.mapping(config.get("auths")),
        **documents.mapping(config.get("credHelpers")),
    }
    found = {server: stored(server) for server in servers}
    return {server: entry for server, entry in found.items() if entry}


def _stored_in_file(server: str) -> Document:
    entry = documents.field(_read(), "auths", server)
    found: Document = {"serveraddress": server}
    if text := documents.text(entry, "auth"):
        try:
            pair = binascii.a2b_base64(text).decode("utf-8")
        except ValueError:
            raise InvalidArgument(f"read {path()}: the entry of {server} is damaged") from None
        found["username"], _, found["password"] = pair.rstrip("\0").partition(":")
    if token := documents.text(entry, "identitytoken"):
        found["identitytoken"] = token
    return found if len(found) > 1 else {}


def store(server: str, username: str, password: str, token: str) -> None:
    """Keep credentials; a token in place of the password when the registry gave one."""
    if helper := helper_of(server):
        user, kept = (TOKEN_USER, token) if token else (username, password)
        secret = documents.encode({"ServerURL": server, "Username": user, "Secret": kept})
        _ask(helper, "store", secret)
        _note(server, {})
        return
    pair = f"{username}:{'' if token else password}".encode()
    entry: Document = {"auth": binascii.b2a_base64(pair, newline=False).decode()}
    if token:
        entry["identitytoken"] = token
    _note(server, entry)


def _note(server: str, entry: Document) -> None:
    config = _read()
    config["auths"] = {**documents.mapping(config.get("auths")), server: entry}
    _write(config)


def erase(server: str) -> None:
    """Forget credentials; nothing when there are none."""
    if helper := helper_of(server):
        _ask(helper, "erase", server.encode())
    config = _read()
    known = documents.mapping(config.get("auths"))
    if server in known:
        config["auths"] = {key: entry for key, entry in known.items() if key != server}
        _write(config)


def headers(reference: str) -> dict[str, str]:
    """Return the header that gives an engine the credentials for an image's registry."""
    found = stored(server_of(reference))
    if not found:
        return {}
    data = binascii.b2a_base64(documents.encode(found), newline=False)
    return {"X-Registry-Auth": data.translate(bytes.maketrans(b"+/", b"-_")).decode()}
