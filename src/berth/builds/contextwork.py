"""A build's context, in a worker confined to its directory: extracted, then asked about.

    berthd → worker    pipe of the body · pipe of questions, a JSON document a line
    worker → berthd    a report for the extraction, and one for every question

    {"read": path}                          → {"text"}, or nothing when there is no such file
    {"leave_out": dockerfile}               → {}: what .dockerignore says about itself and that file is done
    {"digest": patterns, "excludes", "parents"} → {"digest", "count"}

The end of the questions is the end of the worker.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from berth.builds import selection
from berth.dockerfile import ignore
from berth.errors import BerthError, Failed, InvalidArgument
from berth.images import tar
from berth.images.layer import Extractor
from berth.images.streams import READ_BYTES, ByteStream, plain_chunks
from berth.kernel.mounts import open_in_root
from berth.runtime import codec
from berth.runtime.worker import FILE_CAPABILITIES, confine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Report = Callable[[Mapping[str, object]], None]
    Document = dict[str, object]

MAX_TEXT_BYTES = 4 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def serve(argument: dict[str, object], fds: list[int], report: Report) -> Mapping[str, object]:
    """Extract what the pipe ``fds[0]`` brings into the empty directory ``fds[1]``, then answer ``fds[2]``."""
    del argument
    body, directory, questions = fds
    os.umask(0)
    confine(directory, keep_capabilities=FILE_CAPABILITIES)
    root = os.open("/", _DIRECTORY)
    extract(root, body)
    report({})
    for line in _lines(questions):
        report(_answer(root, codec.decode(line)))
    return {}


def extract(root: int, body: int) -> None:
    """Extract an archive, plain or compressed; nothing when nothing comes."""
    chunks = plain_chunks(_pieces(body))
    reader = tar.TarReader(ByteStream(chunks))
    Extractor(root, lambda: None, layer=False).extract(reader)
    for _ in chunks:  # what follows the end, so that the client is not cut off
        pass


def _pieces(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, READ_BYTES):
        yield data


def _lines(fd: int) -> Iterator[bytes]:
    rest = b""
    for piece in _pieces(fd):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _answer(root: int, question: Document) -> Document:
    try:
        if "read" in question:
            return _read(root, str(question["read"]))
        if "leave_out" in question:
            return _leave_out(root, str(question["leave_out"]))
        return digest(root, question)
    except BerthError as error:
        return {"error": error.record()}
    except OSError as error:
        return {"error": Failed((error.strerror or str(error)).lower()).record()}


def _read(root: int, path: str) -> Document:
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_TEXT_BYTES:
            raise InvalidArgument(f"{path} is no file, or larger than a Dockerfile may be")
        data = b""
        while piece := os.read(fd, READ_BYTES):
            data += piece
    finally:
        os.close(fd)
    return {"text": data.decode("utf-8", "replace")}


def _leave_out(root: int, dockerfile: str) -> Document:
    """Remove .dockerignore and the Dockerfile when the former says so: clients send them regardless."""
    text = _read(root, ignore.NAME).get("text")
    if text is None:
        return {}
    patterns = ignore.Patterns(ignore.read(str(text)))
    for path in (ignore.NAME, ignore.clean(dockerfile)):
        if patterns.excludes(path):
            _remove(root, path)
    return {}


def _remove(root: int, path: str) -> None:
    folder, _, leaf = path.rpartition("/")
    try:
        parent = open_in_root(root, folder, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        os.unlink(leaf, dir_fd=parent)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def digest(root: int, question: Document) -> Document:
    """Return the hash of what patterns select below a root, and how many files and directories they name."""
    patterns, excluded = question["digest"], question["excludes"]
    assert isinstance(patterns, list)
    assert isinstance(excluded, list)
    excludes, parents = ignore.Patterns(excluded), bool(question["parents"])
    selected = selection.select(root, patterns, excludes)
    found = selection.digest(root, selected, excludes, parents=parents)
    return {"digest": found, "count": len(selected)}
