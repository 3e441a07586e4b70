"""Whose ids containers have on the host: `userns-remap`, by subuid(5) and subgid(5)."""

from __future__ import annotations

import grp
import logging
import pwd
from pathlib import Path

import msgspec

from berth.errors import InvalidArgument, NotFound

log = logging.getLogger("berth")

DEFAULT, DEFAULT_USER = "default", "dockremap"
MAX_NUMBER = 0xFFFF_FFFF
FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
MAKE = (
    f"useradd --system --shell /usr/sbin/nologin {DEFAULT_USER}"
    f" && usermod --add-subuids 231072-296607 --add-subgids 231072-296607 {DEFAULT_USER}"
)


class IdMaps(msgspec.Struct, frozen=True, kw_only=True):
    """Spans of ids: the first one in containers, the first one on the host, how many."""

    uids: list[tuple[int, int, int]]
    gids: list[tuple[int, int, int]]


def resolve(text: str) -> IdMaps | None:
    """Return the maps that ``USER[:GROUP]`` stands for; None without one, and for root."""
    if not text:
        return None
    user, colon, group = text.partition(":")
    if not user or (colon and not group) or ":" in group:
        raise InvalidArgument(
            f"Invalid user/group specification in --userns-remap: {msgspec.json.encode(text).decode()}"
        )
    account = _user(user)
    _check_group(group if colon else account.pw_name if not user.isdecimal() else user)
    if account.pw_name == "root":
        log.warning("root cannot be remapped with itself: user namespaces are off")
        return None
    uids, gids = (_spans(path, account) for path in FILES)
    return IdMaps(uids=uids, gids=gids)


def _user(text: str) -> pwd.struct_passwd:
    name = DEFAULT_USER if text == DEFAULT else text
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        if name.isdecimal():
            raise NotFound(f"Uid {name} has no entry in /etc/passwd") from None
        if text == DEFAULT:
            raise NotFound(
                f"userns-remap default: there is no user {DEFAULT_USER}", hint=f"make it: {MAKE}"
            ) from None
        raise NotFound(f'Error during uid lookup for "{name}": no such user') from None


def _check_group(text: str) -> None:
    try:
        if text.isdecimal():
            grp.getgrgid(int(text))
        else:
            grp.getgrnam(text)
    except (KeyError, OverflowError):
        if text.isdecimal():
            raise NotFound(f"Gid {text} has no entry in /etc/group") from None
        raise NotFound(f'Error during gid lookup for "{text}": no such group') from None


def _spans(path: Path, account: pwd.struct_passwd) -> list[tuple[int, int, int]]:
    """Return what a file gives to an account, by its number or else by its name, one span after the other."""
    lines = _lines(path)
    for name in (str(account.pw_uid), account.pw_name):
        found: list[tuple[int, int, int]] = []
        inside = 0
        for owner, first, size in lines:
            if owner == name:
                found.append((inside, first, size))
                inside += size
        if found:
            return found
    kind = path.name
    raise NotFound(
        f'Can\'t create ID mappings: no {kind} ranges found for user "{account.pw_name}"',
        hint=f"give it some: usermod --add-{kind}s 231072-296607 {account.pw_name}",
    )


def _lines(path: Path) -> list[tuple[str, int, int]]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        fields = line.split("#")[0].strip().split(":")
        if len(fields) < 3:
            continue
        owner, *numbers = fields[:3]
        if not all(number.isdecimal() for number in numbers):
            raise InvalidArgument(f"{path}: {line}: these are no ids")
        first, size = map(int, numbers)
        if not first or not size or first + size > MAX_NUMBER:
            raise InvalidArgument(f"{path}: {line}: these are no ids")
        found.append((owner, first, size))
    return found
