"""`berth build`: the context is packed here, the image made by the engine."""

from __future__ import annotations

import binascii
import os
import sys
import zlib

from berth.cli import credentials
from berth.cli.container_request import ulimit
from berth.cli.localfiles import pieces, piped
from berth.client import documents
from berth.dockerfile import ignore
from berth.errors import InvalidArgument
from berth.images.compressions import HEAD_BYTES, is_archive
from berth.images.pack import FileSink, Packer
from berth.images.tar import BLOCK, REGULAR, Member
from berth.images.tar_writer import TarWriter, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from berth.cli.call import Call
    from berth.cli.commands import Verb
    from berth.cli.options import Flag, Options

FLAGS: tuple[Flag, ...] = (
    ("add-host", "", "list", 'Add a custom host-to-IP mapping ("host:ip")'),
    ("build-arg", "", "list", "Set build-time variables"),
    ("cache-from", "", "strings", "Images to consider as cache sources"),
    (
        *("cgroup-parent", "", "string"),
        'Set the parent cgroup for the "RUN" instructions during build',
    ),
    ("compress", "", "bool", "Compress the build context using gzip"),
    ("cpu-period", "", "int", "Limit the CPU CFS (Completely Fair Scheduler) period"),
    ("cpu-quota", "", "int", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
    ("cpu-shares", "c", "int", "CPU shares (relative weight)"),
    ("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    ("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    ("disable-content-trust", "", "true", "Skip image verification"),
    ("file", "f", "string", 'Name of the Dockerfile (Default is "PATH/Dockerfile")'),
    ("force-rm", "", "bool", "Always remove intermediate containers"),
    ("iidfile", "", "string", "Write the image ID to the file"),
    ("isolation", "", "string", "Container isolation technology"),
    ("label", "", "list", "Set metadata for an image"),
    ("memory", "m", "bytes", "Memory limit"),
    (
        "memory-swap",
        "",
        "bytes",
        "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
    ),
    ("network", "", "string", "Set the networking mode for the RUN instructions during build"),
    ("no-cache", "", "bool", "Do not use cache when building the image"),
    ("platform", "", "string", "Set the platform of the image"),
    ("pull", "", "bool", "Always attempt to pull a newer version of the image"),
    ("quiet", "q", "bool", "Suppress the build output and print image ID on success"),
    ("rm", "", "true", "Remove intermediate containers after a successful build"),
    ("security-opt", "", "strings", "Security options"),
    ("shm-size", "", "bytes", 'Size of "/dev/shm"'),
    ("squash", "", "bool", "Squash newly built layers into a single new layer"),
    ("tag", "t", "list", 'Name and optionally a tag in the "name:tag" format'),
    ("target", "", "string", "Set the target build stage to build."),
    ("ulimit", "", "list", "Ulimit options"),
)
TEXTS = (
    ("cgroup-parent", "cgroupparent"),
    ("cpuset-cpus", "cpusetcpus"),
    ("cpuset-mems", "cpusetmems"),
    ("isolation", "isolation"),
    ("network", "networkmode"),
    ("platform", "platform"),
    ("target", "target"),
)
NUMBERS = (
    ("cpu-period", "cpuperiod"),
    ("cpu-quota", "cpuquota"),
    ("cpu-shares", "cpushares"),
    ("memory", "memory"),
    ("memory-swap", "memswap"),
    ("shm-size", "shmsize"),
)
SWITCHES = (
    ("no-cache", "nocache"),
    ("pull", "pull"),
    ("quiet", "q"),
    ("force-rm", "forcerm"),
    ("squash", "squash"),
)
URLS = ("http://", "https://", "git://", "git@", "github.com/")
DOCKERFILE = "Dockerfile"
SENT_DOCKERFILE = ".dockerfile."  # of one that is not in the context


def build(call: Call) -> int:
    """Build an image; return the code of a command that failed."""
    options, source = call.options, call.arguments[0]
    query = _query(options)
    data: Iterator[bytes] | None = None
    if source == "-":
        data = _from_stdin(query, options)
    elif source.startswith(URLS):
        query.append(("remote", source))
        query.append(("dockerfile", options.text("file")))
    else:
        data = _from_directory(source, query, options)
    if data is not None and options.on("compress"):
        data = _compressed(data)
    more = _registries()
    answer = call.engine.request("POST", "/build", query, data=data, headers=more)
    return _show(answer.lines(), options)


def _query(options: Options) -> list[tuple[str, str]]:
    arguments: dict[str, object] = {}
    for text in options.all("build-arg"):
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else os.environ.get(name)
    query = [("t", tag) for tag in options.all("tag")]
    query += [("extrahosts", host) for host in options.all("add-host")]
    query += [(name, options.text(flag)) for flag, name in TEXTS]
    query += [(name, str(options.number(flag) or "")) for flag, name in NUMBERS]
    query += [(name, "1" if options.on(flag) else "") for flag, name in SWITCHES]
    query.append(("rm", "1" if options.on("rm", default=True) else "0"))
    lists: tuple[tuple[str, object], ...] = (
        ("buildargs", arguments),
        ("labels", options.pairs("label")),
        ("cachefrom", [name for text in options.all("cache-from") for name in text.split(",")]),
        ("ulimits", [ulimit(text) for text in options.all("ulimit")]),
        ("securityopt", options.all("security-opt")),
    )
    query += [(name, documents.encode(value).decode()) for name, value in lists if value]
    return query


def _registries() -> dict[str, str]:
    """Return the header with the credentials of all registries."""
    found = credentials.everything()
    if not found:
        return {}
    data = binascii.b2a_base64(documents.encode(found), newline=False)
    return {"X-Registry-Config": data.translate(bytes.maketrans(b"+/", b"-_")).decode()}


# Where the context comes from


def _from_stdin(query: list[tuple[str, str]], options: Options) -> Iterator[bytes]:
    """Return what comes from stdin: an archive, or a Dockerfile to be put into one."""
    head = b""
    while len(head) < HEAD_BYTES and (piece := os.read(0, HEAD_BYTES - len(head))):
        head += piece
    if is_archive(head):
        query.append(("dockerfile", options.text("file")))
        return _after(head)
    if options.given("file"):
        raise InvalidArgument(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"
        )
    data = b"".join(_after(head))
    return piped(lambda fd: _write_archive(fd, DOCKERFILE, data))


def _compressed(data: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for piece in data:
        yield packer.compress(piece)
    yield packer.flush()


def _after(head: bytes) -> Iterator[bytes]:
    yield head
    yield from pieces(0)


def _write_archive(fd: int, name: str, data: bytes) -> None:
    writer = TarWriter(FileSink(fd))
    _add(writer, FileSink(fd), name, data)
    writer.end()


def _add(writer: TarWriter, sink: FileSink, name: str, data: bytes) -> None:
    member = Member(bytes(BLOCK))
    member.name, member.kind, member.mode, member.size = name, REGULAR, 0o644, len(data)
    writer.add(member)
    sink.write(data + padding(len(data)))


def _from_directory(path: str, query: list[tuple[str, str]], options: Options) -> Iterator[bytes]:
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise InvalidArgument(f"unable to prepare context: path {path!r}: {why}") from None
    name, extra = _dockerfile(path, options.text("file"))
    patterns = _ignored(path)
    if extra is not None:
        name = SENT_DOCKERFILE + os.urandom(8).hex()
    query.append(("dockerfile", name))
    return piped(lambda fd: _pack(fd, root, patterns, name, extra))


def _dockerfile(path: str, asked: str) -> tuple[str, bytes | None]:
    """Return the Dockerfile's path in the context; its contents when it is not in there."""
    if asked == "-":
        return "", b"".join(pieces(0))
    found = asked or os.path.join(path, DOCKERFILE)
    if not asked and not os.path.exists(found) and os.path.exists(os.path.join(path, "dockerfile")):
        found = os.path.join(path, "dockerfile")
    context, real = os.path.realpath(path), os.path.realpath(found)
    if not os.path.exists(real):
        raise InvalidArgument(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {real}:"
            " no such file or directory"
        )
    if real.startswith(context.rstrip("/") + "/"):
        return os.path.relpath(real, context), None
    with open(real, "rb") as file:
        return "", file.read()


def _ignored(path: str) -> list[str]:
    try:
        with open(os.path.join(path, ignore.NAME), encoding="utf-8") as file:
            return ignore.read(file.read())
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"error reading {ignore.NAME}: {error}") from None


def _pack(fd: int, root: int, patterns: list[str], name: str, extra: bytes | None) -> None:
    """Write the archive of a directory, without what is to be left out."""
    excludes, sent = ignore.Patterns(patterns), (name, ignore.NAME)
    deep = excludes.has_exceptions

    def left_out(path: str) -> bool:
        return bool(path) and path not in sent and excludes.excludes(path)

    def skips(path: str, status: os.stat_result) -> bool:
        is_folder = status.st_mode & 0o170000 == 0o040000
        wanted = is_folder and (deep or any(one.startswith(f"{path}/") for one in sent))
        return left_out(path) and not wanted

    writer = TarWriter(FileSink(fd))
    Packer(root, writer, skips=skips, passes=left_out).tree("", "")
    if extra is not None:
        _add(writer, FileSink(fd), name, extra)
    writer.end()


# What the engine says


def _show(messages: Iterator[object], options: Options) -> int:
    """Show a build as it goes; return the code to end with."""
    quiet, image = options.on("quiet"), ""
    for message in messages:
        if error := documents.text(message, "error"):
            sys.stdout.flush()
            print(error, file=sys.stderr)
            return documents.number(message, "errorDetail", "code") or 1
        image = documents.text(message, "aux", "ID") or image
        text = documents.text(message, "stream")
        if quiet:
            image = text.strip() or image
            continue
        status, item = documents.text(message, "status"), documents.text(message, "id")
        if status and not documents.text(message, "progress"):
            text = f"{item}: {status}\n" if item else f"{status}\n"
        sys.stdout.write(text)
        sys.stdout.flush()
    if quiet:
        print(image)
    if path := options.text("iidfile"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(image)
    return 0


VERBS: dict[str, Verb] = {
    "build": (FLAGS, build),
}
