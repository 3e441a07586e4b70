"""Users and groups by the container's own /etc/passwd and /etc/group (passwd(5), group(5)).

Called inside the root. The files are the image's, so hostile: they are read bounded, and a line that
is not as it should be is passed over.
"""

from __future__ import annotations

import os
import stat

from berth.errors import InvalidArgument

MAX_FILE_BYTES = 4 << 20
MAX_ID = 0xFFFF_FFFE
MAX_USER_ID = 0x7FFF_FFFF  # what Docker takes
MAX_DIGITS = 20  # leading zeros among them; int() itself refuses thousands


class Account:
    """The resolved credentials: numbers only."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def read_entries(path: str, fields: int) -> list[list[str]]:
    """Return the lines of a colon-separated file that have at least ``fields`` fields."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        text = os.read(fd, MAX_FILE_BYTES).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)
    rows = (line.split(":") for line in text.split("\n") if line and not line.startswith("#"))
    return [row for row in rows if len(row) >= fields]


def _check_range(text: str) -> None:
    """Refuse a number that is no id."""
    digits = text.removeprefix("-")
    if digits.isdecimal() and not (len(text) <= MAX_DIGITS and 0 <= int(text) <= MAX_USER_ID):
        raise InvalidArgument(f"uids and gids must be in range 0-{MAX_USER_ID}")


def number(text: str) -> int | None:
    """Return the id that ``text`` is, None when it is a name."""
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        return None
    value = int(text)
    return value if value <= MAX_ID else None


def resolve(user: str, extra_groups: list[str]) -> Account:
    """Resolve ``user`` ("", "name", "1000", "name:group", "1000:1000") and additional groups."""
    name, _, group = user.partition(":")
    name = name or "0"
    _check_range(name)
    passwd = read_entries("/etc/passwd", 4)
    wanted = number(name)
    row = next((r for r in passwd if r[0] == name), None)
    if row is None and wanted is not None:
        row = next((r for r in passwd if number(r[2]) == wanted), None)
    uid = number(row[2]) if row else wanted
    if uid is None:
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    gid = (number(row[3]) if row else None) or 0
    home = (row[5] if row and len(row) > 5 else "") or "/"
    groups_file = read_entries("/etc/group", 3)
    groups: list[int] = []
    if group:
        gid = _group(group, groups_file)
    elif row:
        members = (r for r in groups_file if len(r) > 3 and row[0] in r[3].split(","))
        groups = [g for g in (number(r[2]) for r in members) if g is not None]
    groups += [_group(extra, groups_file) for extra in extra_groups]
    # The main one as well: what a file denies to it, it denies then (CVE-2022-36109).
    groups.insert(0, gid)
    return Account(uid, gid, list(dict.fromkeys(groups)), home)


def _group(text: str, rows: list[list[str]]) -> int:
    row = next((r for r in rows if r[0] == text), None)
    gid = number(row[2]) if row else number(text)
    if gid is None:
        raise InvalidArgument(f"unable to find group {text}: no matching entries in group file")
    return gid
