"""`berth import`, `load`, `save` and `pull`: images in and out."""

from __future__ import annotations

import os
import sys

from berth.cli import credentials, pulling, session
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag

PLATFORM: Flag = ("platform", "", "string", "Platform, formatted as os[/arch[/variant]]")
IMPORT_FLAGS: tuple[Flag, ...] = (
    ("change", "c", "list", "Apply Dockerfile instruction to the created image"),
    ("message", "m", "string", "Set commit message for imported image"),
    PLATFORM,
)
LOAD_FLAGS: tuple[Flag, ...] = (
    ("input", "i", "string", "Read from tar archive file, instead of STDIN"),
    PLATFORM,
    ("quiet", "q", "bool", "Suppress the load output"),
)
SAVE_FLAGS: tuple[Flag, ...] = (
    ("output", "o", "string", "Write to a file, instead of STDOUT"),
    PLATFORM,
    ("referrers", "", "bool", "With what is kept of what refers to the images"),
)
PULL_FLAGS: tuple[Flag, ...] = (
    ("all-tags", "a", "bool", "Download all tagged images in the repository"),
    ("disable-content-trust", "", "true", "Skip image verification"),
    PLATFORM,
    ("quiet", "q", "bool", "Suppress verbose output"),
    ("referrers", "", "bool", "Keep what refers to the image, too: signatures, bills of materials"),
)
READ_BYTES = 1 << 18


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from error


def _pieces(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, READ_BYTES):
        yield data


def import_(call: Call) -> int:
    """Make an image of a root file system's tar archive and print its id."""
    source = call.arguments[0]
    repository, tag = pulling.split(call.arguments[1]) if len(call.arguments) > 1 else ("", "")
    options = call.options
    from_web = "://" in source  # the engine fetches it
    query = {"fromSrc": source if from_web else "-", "repo": repository, "tag": tag}
    query |= {"message": options.text("message"), "platform": options.text("platform")}
    query["changes"] = "\n".join(options.all("change"))
    pieces = None if from_web else _pieces(0 if source == "-" else _open(source))
    answer = call.engine.request("POST", "/images/create", query, data=pieces)
    pulling.progress(answer.lines(), sys.stdout)
    return 0


def load(call: Call) -> int:
    """Load images from an archive."""
    options = call.options
    path = options.text("input")
    if not path and os.isatty(0):
        raise InvalidArgument("requested load from stdin, but stdin is empty")
    fd = _open(path) if path else 0
    query = {"quiet": "1" if options.on("quiet") else "", "platform": options.text("platform")}
    answer = call.engine.request("POST", "/images/load", query, data=_pieces(fd))
    pulling.progress(answer.lines(), sys.stdout)
    return 0


def save(call: Call) -> int:
    """Write images into an archive; the file appears when it is whole."""
    options = call.options
    path = options.text("output")
    if not path and os.isatty(1):
        raise InvalidArgument(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        )
    session.check_output(path, "save image")
    names = [("names", name) for name in call.arguments]
    query = [*names, ("platform", options.text("platform"))]
    query.append(("referrers", "1" if options.on("referrers") else ""))
    answer = call.engine.request("GET", "/images/get", query)
    session.write_out(path, answer.chunks())
    return 0


def pull(call: Call) -> int:
    """Pull an image from a registry."""
    options = call.options
    reference = call.arguments[0]
    quiet, referrers = options.on("quiet"), "1" if options.on("referrers") else ""
    name, tag = pulling.split(reference)
    if options.on("all-tags"):
        if reference != name:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        query = {"fromImage": name, "platform": options.text("platform"), "referrers": referrers}
        more = credentials.headers(name)
        answer = call.engine.request("POST", "/images/create", query, headers=more)
        pulling.progress(answer.lines(), None if quiet else sys.stdout)
        print(pulling.canonical(name))
        return 0
    if tag == "latest" and reference == name and not quiet:
        print("Using default tag: latest", flush=True)
    output = None if quiet else sys.stdout
    more = {"platform": options.text("platform"), "referrers": referrers}
    print(pulling.pull(call.engine, reference, more, output=output))
    return 0


VERBS: dict[str, Verb] = {
    "import": (IMPORT_FLAGS, import_),
    "load": (LOAD_FLAGS, load),
    "save": (SAVE_FLAGS, save),
    "pull": (PULL_FLAGS, pull),
}
