"""`--use-api-socket`: the engine's socket in a container, and the credentials for registries.

As the docker CLI does it, with one difference: it is the socket that this command line itself speaks to. The
credentials are a file in the container's root, at a place that is named by a variable.
"""

from __future__ import annotations

import binascii
import io
import os
import tarfile

from berth.cli import credentials
from berth.client import documents
from berth.client.connection import quote
from berth.errors import BerthError, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.call import Call
    from berth.client.documents import Document

SOCKET = "/var/run/docker.sock"
FOLDER = "/run/secrets/docker"
VARIABLE = "DOCKER_CONFIG"
GIVEN = "DOCKER_AUTH_CONFIG"


def add(call: Call, body: Document) -> bytes:
    """Add the socket to what is asked for; return the file of credentials, empty for none.

    A client that sets the variable itself brings its own.
    """
    address = call.engine.address
    source = SOCKET if address.host else address.path
    host = documents.mapping(body["HostConfig"])
    bind = {"Type": "bind", "Source": source, "Target": SOCKET, "BindOptions": {}}
    mounts = host.setdefault("Mounts", [])
    variables = body["Env"]
    assert isinstance(mounts, list)
    assert isinstance(variables, list)
    mounts.append(bind)
    if any(entry.startswith(f"{VARIABLE}=") for entry in variables):
        return b""
    entries = _given() or _kept()
    if not entries:
        return b""
    variables.append(f"{VARIABLE}={FOLDER}")
    return documents.encode({"auths": entries})


def put(call: Call, container: str, config: bytes) -> str:
    """Put the file into a container; return a warning when that fails, for the container is there."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(f"{FOLDER}/config.json".lstrip("/"))
        entry.size, entry.mode = len(config), 0o600
        tar.addfile(entry, io.BytesIO(config))
    try:
        path = f"/containers/{quote(container)}/archive"
        call.engine.request("PUT", path, {"path": "/"}, data=iter([archive.getvalue()])).read()
    except BerthError as error:
        return (
            "injecting docker config.json into container failed: copying config.json into"
            f" container failed: {error}"
        )
    return ""


def _given() -> Document:
    """Return the entries that a variable has, in the form of the file."""
    text = os.environ.get(GIVEN, "")
    if not text:
        return {}
    try:
        found = documents.mapping(documents.decode(text.encode()))
        entries = documents.mapping(found.get("auths"))
        for entry in entries.values():
            binascii.a2b_base64(documents.text(documents.mapping(entry), "auth")).decode()
    except (BerthError, ValueError) as error:
        raise InvalidArgument(
            f"resolving credentials failed: failed to read credentials from {GIVEN}: {error}"
        ) from None
    return entries


def _kept() -> Document:
    try:
        return {server: _entry(found) for server, found in credentials.everything().items()}
    except BerthError as error:
        raise InvalidArgument(f"resolving credentials failed: {error}") from None


def _entry(found: object) -> Document:
    kept = documents.mapping(found)
    name, password = (documents.text(kept, key) for key in ("username", "password"))
    pair = f"{name}:{password}".encode()
    entry: Document = {"auth": binascii.b2a_base64(pair, newline=False).decode()} if name else {}
    if token := documents.text(kept, "identitytoken"):
        entry["identitytoken"] = token
    return entry
