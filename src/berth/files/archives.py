"""Files of a container as tar streams, out of it and into it: jobs, each in a worker inside its root."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from berth.errors import Failed, InvalidArgument, NotFound
from berth.files import roots
from berth.images import tar
from berth.images.layer import Extractor, clean
from berth.images.pack import FileSink, Packer
from berth.images.streams import READ_BYTES, ByteStream, plain_chunks
from berth.images.tar_writer import TarWriter
from berth.runtime import accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from berth.images.tar import Member

    Report = Callable[[Mapping[str, object]], None]

# Bits of Go's fs.FileMode, which Docker's clients read, for those of stat(2).
GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def absolute(path: str) -> str:
    """Return a path below "/" as Docker cleans it, with the "/" or "/." that it ends with."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    found = "/" + "/".join(parts)
    if path.endswith("/.") or path == ".":
        return f"{found.rstrip('/')}/."
    return f"{found}/" if path.endswith("/") and parts else found


def base_name(path: str) -> str:
    """Return the last part of a path, "/" for the root."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def look(path: str) -> dict[str, object]:
    """Return what Docker says of ``path``; FileNotFoundError when there is nothing."""
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode) & 0o777 | GO_TYPES.get(stat.S_IFMT(status.st_mode), 0)
    for bit, go in GO_BITS:
        if status.st_mode & bit:
            mode |= go
    is_link = stat.S_ISLNK(status.st_mode)
    target = os.path.realpath(path) if is_link else ""  # noqa: TID251 - shown, never opened
    return {
        "name": base_name(path),
        "size": status.st_size,
        "mode": mode,
        "mtime_ns": status.st_mtime_ns,
        "linkTarget": target,
    }


def found(argument: dict[str, object]) -> tuple[str, dict[str, object]]:
    """Return the path that is asked for and what it is; NotFound in Docker's words."""
    asked, path = str(argument["path"]), absolute(str(argument["path"]))
    try:
        return path, look(path)
    except (FileNotFoundError, NotADirectoryError):
        name = argument["name"]
        raise NotFound(f"Could not find the file {asked} in container {name}") from None


def inspect(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Return what ``path`` is. Argument and descriptors as for :func:`roots.enter`."""
    del report
    roots.enter(argument, fds)
    return found(argument)[1]


def find_user(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Return the ids of ``user``. Argument and descriptors as for :func:`roots.enter`."""
    del report
    roots.enter(argument, fds)
    account = accounts.resolve(str(argument["user"]), [])
    return {"uid": account.uid, "gid": account.gid}


def read(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Report what ``path`` is (``stat``), then write an archive of it to the last descriptor."""
    pipe = fds.pop()
    roots.enter(argument, fds)
    path, status = found(argument)
    report({"stat": status})
    mode = os.lstat(path).st_mode
    name = base_name(path)
    writer = TarWriter(FileSink(pipe))
    if stat.S_ISDIR(
        mode
    ):  # also a link with a slash at its end: what it leads to, by the link's name
        Packer(os.open(path, _DIRECTORY), writer).tree("", name)
    else:
        Packer(os.open(path.rpartition("/")[0] or "/", _DIRECTORY), writer).tree(name, name)
    writer.end()
    return {}


def export(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Write an archive of the root, without what is mounted below it, to the last descriptor."""
    pipe = fds.pop()
    roots.enter_own(argument, fds)
    root = os.open("/", _DIRECTORY)
    report({})
    writer = TarWriter(FileSink(pipe))
    Packer(root, writer).tree("", "")
    writer.end()
    return {}


# Into a container


class Unpacker(Extractor):
    """Extracts what a client sends below a directory of the root, by the rules of `docker cp`.

    Names that begin with ``.wh.`` are plain names, directories that are there are merged, and links
    that lead out of the directory lead where they lead in the container.
    """

    def __init__(
        self, root: int, folder: str, *, owner: tuple[int, int] | None, keeps: bool
    ) -> None:
        super().__init__(root, lambda: None, layer=False)
        self._folder_path = folder.strip("/")
        self._owner = owner
        self._keeps = keeps  # neither files become directories nor directories files

    def path_of(self, name: str) -> str:
        """Return a member's path below the root; "" for the directory itself, which is left as it is."""
        inner = clean(name)
        return f"{self._folder_path}/{inner}".strip("/") if inner else ""

    def prepare(self, member: Member, parent: int, leaf: str) -> None:
        """See Extractor."""
        if self._owner is not None:
            member.uid, member.gid = self._owner
        if not self._keeps:
            return
        try:
            is_folder = stat.S_ISDIR(os.stat(leaf, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        path, folder = f"/{self.path_of(member.name)}", f"/{self._folder_path}"
        if is_folder and member.kind != tar.DIRECTORY:
            raise Failed(f'cannot overwrite directory "{path}" with non-directory "{folder}"')
        if not is_folder and member.kind == tar.DIRECTORY:
            raise Failed(f'cannot overwrite non-directory "{path}" with directory "{folder}"')


def write(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Extract the archive that comes from the last descriptor into the directory ``path``.

    Argument, besides that of :func:`roots.enter`: ``keeps`` (what is a directory stays one), ``user``
    (whose the files become; None: whose they are in the archive), ``volumes`` (pairs of target and
    whether it is read-only) and ``read_only`` (the root is).
    """
    pipe = fds.pop()
    os.umask(0)
    roots.enter(argument, fds)
    try:
        os.chdir(found(argument)[0])
    except NotADirectoryError:
        raise InvalidArgument("extraction point is not a directory") from None
    path = os.getcwd()  # as the kernel has resolved it
    check_writable(path, argument)
    owner = None
    if user := argument["user"]:
        account = accounts.resolve(str(user), [])
        owner = account.uid, account.gid
    report({})
    root = os.open("/", _DIRECTORY)
    unpacker = Unpacker(root, path, owner=owner, keeps=bool(argument["keeps"]))
    chunks = plain_chunks(_pieces(pipe))
    try:
        unpacker.extract(tar.TarReader(ByteStream(chunks)))
        for _ in chunks:
            pass  # what follows the end, so that the client is not cut off
    except InvalidArgument as error:
        raise Failed(error.message) from error  # Docker answers 500 to what it cannot extract
    return {}


def check_writable(path: str, argument: Mapping[str, object]) -> None:
    """Refuse read-only places in Docker's words."""
    volumes = argument["volumes"]
    assert isinstance(volumes, list)
    inside = [only for target, only in volumes if f"{path}/".startswith(f"{target.rstrip('/')}/")]
    if inside and all(inside):
        raise InvalidArgument("mounted volume is marked read-only")
    if not inside and argument["read_only"]:
        raise InvalidArgument("container rootfs is marked read-only")


def _pieces(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, READ_BYTES):
        yield data
