"""RUN --mount: from the text of a flag to a mount, in BuildKit's words. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from berth.dockerfile.sharings import SHARINGS
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BIND, CACHE, TMPFS, SECRET, SSH = KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
WITH_OWNER = (SECRET, SSH, CACHE)
WITH_REQUIRED = (SECRET, SSH)
ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE)
UNITS = "kmgtp"
MAX_NUMBER = 1 << 32
MAX_SIZE = 1 << 63
SECRETS = "/run/secrets"
AGENTS = "/run/buildkit/ssh_agent"
AGENT_VARIABLE = "SSH_AUTH_SOCK"
DEFAULT_AGENT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount; ``mode``, ``uid`` and ``gid`` are None where nothing was said."""

    kind: str = BIND
    origin: str = ""  # a stage, an image or a named context; "" is the build's context
    source: str = ""
    target: str = ""
    id: str = ""
    sharing: str = ""
    read_only: bool | None = None
    required: bool = False
    size_bytes: int = 0
    env: str | None = None  # "": named like the secret
    mode: int | None = field(default=None)
    uid: int | None = None
    gid: int | None = None


TEXTS: dict[str, Callable[[Mount, str], Mount]] = {
    "from": lambda mount, text: replace(mount, origin=text),
    "source": lambda mount, text: replace(mount, source=text),
    "target": lambda mount, text: replace(mount, target=text),
    "id": lambda mount, text: replace(mount, id=text),
    "env": lambda mount, text: replace(mount, env=text),
    "mode": lambda mount, text: replace(mount, mode=_number(text, 8, "mode")),
    "uid": lambda mount, text: replace(mount, uid=_number(text, 10, "uid")),
    "gid": lambda mount, text: replace(mount, gid=_number(text, 10, "gid")),
}
KEYS = (*TEXTS, "type", "readonly", "readwrite", "sharing", "required", "size")


def origin_of(text: str) -> str:
    """Return what ``from=`` names; InvalidArgument for variables, which it does not take."""
    for row in _fields(text):
        key, _, value = row.partition("=")
        if key.lower() == "from":
            if "$" in value[:-1]:
                raise InvalidArgument(
                    "'from' doesn't support variable expansion, define alias stage instead"
                )
            return value
    return ""


def read(text: str, expand: Callable[[str], str]) -> Mount:
    """Read the value of a flag; ``expand`` puts in variables."""
    mount = Mount()
    for row in _fields(text):
        key, equals, value = row.partition("=")
        name = ALIASES.get(key.lower(), key.lower())
        if not equals:
            mount = _switched(mount, name, row)
        elif name not in KEYS:
            raise InvalidArgument(f"unexpected key '{key.lower()}' in '{row}'")
        else:
            mount = _with(mount, name, key.lower(), expand(value))
    return _checked(mount)


def _fields(text: str) -> list[str]:
    import csv  # berthd without builds has no use for it

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidArgument(f"failed to parse csv mounts: {error}") from error
    return rows[0] if rows else []


def _switched(mount: Mount, name: str, row: str) -> Mount:
    """Apply a word without a value."""
    if name in ("readonly", "readwrite"):
        return replace(mount, read_only=name == "readonly")
    if name != "required":
        raise InvalidArgument(f"invalid field '{row}' must be a key=value pair")
    _only_for(mount, name, WITH_REQUIRED)
    return replace(mount, required=True)


def _only_for(mount: Mount, name: str, kinds: Sequence[str]) -> None:
    if mount.kind not in kinds:
        raise InvalidArgument(f"unexpected key '{name}' for mount type '{mount.kind}'")


def _with(mount: Mount, name: str, said: str, value: str) -> Mount:
    """Apply a word with a value."""
    if name in TEXTS:
        return TEXTS[name](mount, value)
    match name:
        case "type":
            return replace(mount, kind=_one_of(KINDS, value, "mount type"))
        case "sharing":
            return replace(mount, sharing=_one_of(SHARINGS, value, "sharing value"))
        case "size":
            _only_for(mount, name, (TMPFS,))
            return replace(mount, size_bytes=_size(value))
        case "required":
            _only_for(mount, name, WITH_REQUIRED)
            return replace(mount, required=_flag(said, value))
        case _:
            return replace(mount, read_only=_flag(said, value) == (name == "readonly"))


def _one_of(known: Sequence[str], value: str, what: str) -> str:
    if value.lower() not in known:
        raise InvalidArgument(f'unsupported {what} "{value}"')
    return value.lower()


def _flag(name: str, value: str) -> bool:
    if value not in (*TRUE, *FALSE):
        raise InvalidArgument(f"invalid value for {name}: {value}")
    return value in TRUE


def _size(value: str) -> int:
    found = SIZE.fullmatch(value)
    power = UNITS.find(found[2].lower()) + 1 if found and found[2] else 0
    size = float(found[1]) * 1024**power if found else MAX_SIZE
    if size >= MAX_SIZE:
        raise InvalidArgument(f"invalid value for size: {value}")
    return int(size)


def _number(value: str, base: int, name: str) -> int:
    try:
        number = int(value, base) if value.isascii() and value.isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number < MAX_NUMBER:
        raise InvalidArgument(f"invalid value {value} for {name}")
    return number


def _checked(mount: Mount) -> Mount:
    for name in ("mode", "uid", "gid"):
        if mount.kind not in WITH_OWNER and getattr(mount, name) is not None:
            raise InvalidArgument(f'{name} not allowed for "{mount.kind}" type mounts')
    if mount.kind == SECRET:
        _check_secret(mount)
    if mount.kind == SSH and mount.source:
        raise InvalidArgument("ssh does not support source")
    if mount.sharing and mount.kind != CACHE:
        raise InvalidArgument(f"invalid cache sharing set for {mount.kind} mount")
    if mount.read_only is None:
        return replace(mount, read_only=mount.kind not in (CACHE, TMPFS))
    return mount


def _check_secret(mount: Mount) -> None:
    if mount.origin:
        raise InvalidArgument("secret mount should not have a from")
    if mount.sharing:
        raise InvalidArgument("secret mount should not define sharing")
    if not (mount.source or mount.target or mount.id):
        raise InvalidArgument("invalid secret mount. one of source, target required")
    if mount.source and mount.id:
        raise InvalidArgument("both source and id can't be set")


def settled(mounts: Sequence[Mount], directory: str) -> list[Mount]:
    """Return the mounts with ids and absolute targets; one that is in the environment alone has none."""
    found, agents = [], 0
    for mount in mounts:
        match mount.kind:
            case "secret":
                found.append(_settled_secret(mount, directory))
            case "ssh":
                target = mount.target or f"{AGENTS}.{agents}"
                agents += 1
                id_ = mount.id or DEFAULT_AGENT
                found.append(replace(mount, id=id_, target=_absolute(directory, target)))
            case _:
                id_ = mount.id or posixpath.normpath(mount.target or ".")
                found.append(replace(mount, id=id_, target=_absolute(directory, mount.target)))
    return found


def _settled_secret(mount: Mount, directory: str) -> Mount:
    id_ = mount.source or mount.id or posixpath.basename(mount.target)
    target = mount.target
    if mount.env is None and not target:
        target = f"{SECRETS}/{posixpath.basename(id_)}"
    return replace(
        mount,
        id=id_,
        env=(mount.env or id_) if mount.env is not None else None,
        target=_absolute(directory, target) if target else "",
    )


def _absolute(directory: str, target: str) -> str:
    path = "/" + posixpath.normpath(posixpath.join("/", directory, target)).lstrip("/")
    if path == "/":
        raise InvalidArgument(f'invalid mount target "{target or path}"')
    return path
