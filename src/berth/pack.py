"""The code of what a command imports, in one file: found without a search, read without opening many.

It lies beside the compiled files that it is made of, so who can write it can write those. A command that
missed something in it writes it anew at its end, where it may. A module whose source has another size or time
than when it was packed is imported as always.

The import system takes longer than the modules do. So two processes load what they begin with ahead of it: an
entry, which is a module, with all that it imports, in one piece, in the order in which one had them before.
"""

from __future__ import annotations

import _imp
import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    # name → (source, where its code begins, how long that is, the source's time and size, it is a package)
    Index = dict[str, tuple[str, int, int, int, int, bool]]
    # entry → (where the codes begin, how long they are, the modules that they are of)
    Preloads = dict[str, tuple[int, int, tuple[str, ...]]]

    from importlib import _bootstrap as bootstrap
    from importlib import _bootstrap_external as external
else:
    import _frozen_importlib as bootstrap
    import _frozen_importlib_external as external

PACKAGES = ("", "/bundle", "/cli", "/kernel", "/oci_cli", "/runtime", "/runtime/seccomp")
STANDARD = ("__future__", "struct")
# Those of them that are not built in.
COMPILED = ("_ctypes", "_json", "_socket", "_struct", "fcntl", "math", "resource", "select")
LENGTH_BYTES = 8
HEADER_BYTES = 16  # of a compiled file: magic number, flags, time and size of the source
WORD = 0xFFFFFFFF
PLACE = 2  # after what is built in or frozen

HOME = __file__.rpartition("/")[0]
STANDARD_HOME = str(sys._stdlib_dir)  # type: ignore[attr-defined]  # typeshed leaves it out
# Whose pack it is.
KNOWN = (external.MAGIC_NUMBER, HOME, STANDARD_HOME)
PATH = f"{HOME}/__pycache__/oci.{sys.implementation.cache_tag}.pack"


class Pack:
    """The packed modules, as a finder and loader of the import system."""

    def __init__(self, fd: int) -> None:
        head = int.from_bytes(posix.pread(fd, LENGTH_BYTES, 0), "little")
        known, length, self._index, self._compiled, self._preloads = marshal.loads(
            posix.pread(fd, head, LENGTH_BYTES)
        )
        self._fd = fd
        self._base = LENGTH_BYTES + head
        if known != KNOWN or posix.fstat(fd).st_size != self._base + length:
            raise ValueError("of another interpreter, from elsewhere, or not whole")

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module, if it is here and its source is what it was."""
        entry = self._index.get(name)
        if entry is None:
            if name in self._compiled:
                path = self._compiled[name]
                return external.spec_from_file_location(
                    name, path, loader=external.ExtensionFileLoader(name, path)
                )
            _note_missing(name)
            return None
        if not self._is_fresh(name):
            _note_missing(name)
            return None
        return self._spec(name)

    def _is_fresh(self, name: str) -> bool:
        """Say whether a module's source is what it was."""
        source, _, _, time, size, _ = self._index[name]
        try:
            status = posix.stat(source)
        except OSError:
            return False
        return (status.st_size & WORD, int(status.st_mtime) & WORD) == (size, time)

    def _spec(self, name: str) -> ModuleSpec:
        source, *_, is_package = self._index[name]
        loader: Loader = self  # type: ignore[assignment]  # no subclass: that would load importlib.abc
        spec = bootstrap.ModuleSpec(name, loader, origin=source, is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [source.rpartition("/")[0]]
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave that to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        _, start, length, *_ = self._index[module.__name__]
        self._run(module, marshal.loads(self._read(start, length)))

    def preload(self, entry: str) -> bool:
        """Load ``entry`` with all that it imports; False when it is not known what that is."""
        start, length, names = self._preloads.get(entry, (0, 0, ()))
        if not names or not all(map(self._is_fresh, names)):
            return False
        codes: list[CodeType] = marshal.loads(self._read(start, length))
        for name, code in zip(names, codes, strict=True):
            if name not in sys.modules:
                module = sys.modules[name] = bootstrap.module_from_spec(self._spec(name))
                try:
                    self._run(module, code)
                except BaseException:
                    del sys.modules[name]
                    raise
                package, _, own = name.rpartition(".")
                if package:
                    setattr(sys.modules[package], own, module)
        return True

    def preloads(self) -> dict[str, tuple[str, ...]]:
        """Return the entries, and what they import."""
        return {entry: names for entry, (_, _, names) in self._preloads.items()}

    def _read(self, start: int, length: int) -> bytes:
        return posix.pread(self._fd, length, self._base + start)

    def _run(self, module: ModuleType, code: CodeType) -> None:
        exec(code, module.__dict__)
        _loaded.append(module.__name__)
        if module.__name__ in _wanted:
            _found[module.__name__] = tuple(_loaded)


_is_complete = False
_pack: Pack | None = None
_wanted: set[str] = (
    set()
)  # entries that this process begins with: what it had before, others need not
_loaded: list[str] = []  # in the order in which they had all that they import
_found: dict[str, tuple[str, ...]] = {}  # what the entries import


def _note_missing(name: str) -> None:
    global _is_complete
    if (
        name.startswith("berth.")
        and f"/{name.rpartition('.')[0]}".replace(".", "/")[6:] in PACKAGES
    ):
        _is_complete = False


def use() -> None:
    """Import from it from now on. Where there is none it is made, if it can be."""
    global _is_complete, _pack
    _pack = _opened()
    if _pack is None:
        _rewrite()
        _pack = _opened()
    if _pack is not None:
        sys.meta_path.insert(PLACE, _pack)
        _is_complete = True


def _opened() -> Pack | None:
    try:
        return Pack(posix.open(PATH, posix.O_RDONLY | posix.O_CLOEXEC))
    except (OSError, ValueError, EOFError, TypeError):
        return None


def preload(entry: str) -> None:
    """Import a module, which this process begins with. That may take a third less time by this."""
    global _is_complete
    if _pack is not None and not _pack.preload(entry):
        _wanted.add(entry)
        _is_complete = False


def stop() -> None:
    """Import from it no more: its descriptor is about to be closed, and its number may be another's then."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _pack]


def complete() -> None:
    """Write it anew if something was missing, and can be written."""
    if not _is_complete:
        _rewrite()


def _rewrite() -> None:
    if sys.flags.optimize or not posix.access(PATH.rpartition("/")[0], posix.W_OK):
        return
    current = _opened()  # another process may have written it meanwhile
    try:
        _write(_packed({**(current.preloads() if current else {}), **_found}))
    except OSError:  # somebody else writes it, or the disk is full, or something has just gone
        return


def _packed(found: dict[str, tuple[str, ...]]) -> bytes:
    index: Index = {}
    preloads: Preloads = {}
    codes: list[bytes] = []
    start = 0
    for name, source in _sources():
        time, size, code = _code(source)
        index[name] = (source, start, len(code), time, size, source.endswith("/__init__.py"))
        codes.append(code)
        start += len(code)
    places = {name: place for place, name in enumerate(index)}
    for entry, names in found.items():
        if places.keys() >= set(names):
            code = marshal.dumps([marshal.loads(codes[places[name]]) for name in names])
            preloads[entry] = (start, len(code), names)
            codes.append(code)
            start += len(code)
    head = marshal.dumps((KNOWN, start, index, _extensions(), preloads))
    return b"".join((len(head).to_bytes(LENGTH_BYTES, "little"), head, *codes))


def _sources() -> list[tuple[str, str]]:
    found = [(name, f"{STANDARD_HOME}/{name}.py") for name in STANDARD]
    for package in PACKAGES:
        prefix = f"berth{package.replace('/', '.')}"
        for file in sorted(posix.listdir(f"{HOME}{package}")):
            stem, dot, _ = file.rpartition(".py")
            if dot and file.endswith(".py"):
                name = prefix if stem == "__init__" else f"{prefix}.{stem}"
                found.append((name, f"{HOME}{package}/{file}"))
    return found


def _code(source: str) -> tuple[int, int, bytes]:
    """Return the time and size of a source, and its code: that of its compiled file, if there is one."""
    status = posix.stat(source)
    time, size = int(status.st_mtime) & WORD, status.st_size & WORD
    try:
        data = _read(external.cache_from_source(source))
    except FileNotFoundError:
        data = b""
    known = b"".join(word.to_bytes(4, "little") for word in (0, time, size))
    if data[:HEADER_BYTES] != external.MAGIC_NUMBER + known:
        code = compile(_read(source), source, "exec", dont_inherit=True)
        return time, size, marshal.dumps(code)
    return time, size, data[HEADER_BYTES:]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _extensions() -> dict[str, str]:
    folder, suffix = f"{STANDARD_HOME}/lib-dynload", _imp.extension_suffixes()[0]
    names = {f"{name}{suffix}": name for name in COMPILED}
    return {names[file]: f"{folder}/{file}" for file in posix.listdir(folder) if file in names}


def _write(data: bytes) -> None:
    temporary = f"{PATH}.{posix.getpid()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
    with open(posix.open(temporary, flags, 0o644), "wb") as file:
        file.write(data)
    posix.rename(temporary, PATH)
