"""The packed code: used where it is what the sources are, written anew where it is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import berth

USE = "import sys; sys.path.append({!r}); from berth import pack; pack.use(); import berth.errors as e;"


@pytest.fixture
def library(tmp_path):
    """Return a folder with a copy of berth that has been run once."""
    home = Path(berth.__file__).parent
    shutil.copytree(home, tmp_path / "berth", ignore=shutil.ignore_patterns("__pycache__"))
    run(tmp_path)
    return tmp_path


def run(library: Path) -> None:
    """Run a command of a copy, which packs what it misses."""
    words = [sys.executable, "-I", "-S", library / "berth/oci_cli/__main__.py", "--version"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def pack(library: Path) -> Path:
    """Return the path of a copy's pack."""
    (found,) = (library / "berth/__pycache__").glob("*.pack")
    return found


def say(library: Path, expression: str) -> str:
    """Return what an expression is with the pack in use; ``e`` is a module of it."""
    code = f"{USE.format(str(library))} print({expression})"
    words = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_modules_come_from_the_pack_and_know_their_files(library):
    assert say(library, "type(e.__loader__).__name__") == "Pack"
    assert say(library, "e.__file__") == f"{library}/berth/errors.py"
    assert say(library, "__import__('berth.bundle.plan').bundle.__path__") == (
        f"['{library}/berth/bundle']"
    )


def test_nothing_is_written_when_nothing_was_missing(library):
    before = pack(library).stat()
    run(library)
    assert pack(library).stat().st_ino == before.st_ino


def test_a_source_that_was_changed_is_imported_and_packed_anew(library):
    source = library / "berth/errors.py"
    source.write_text(source.read_text() + "CHANGED = True\n")
    assert say(library, "e.CHANGED, type(e.__loader__).__name__") == "True SourceFileLoader"
    run(library)
    assert say(library, "e.CHANGED, type(e.__loader__).__name__") == "True Pack"


def test_a_source_that_is_gone_is_not_imported(library):
    (library / "berth/errors.py").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        say(library, "e")


@pytest.mark.parametrize("size", [0, 5, 4000, -1])
def test_a_pack_that_is_not_whole_is_written_anew(library, size):
    before = pack(library).read_bytes()
    os.truncate(pack(library), len(before) - 1 if size < 0 else size)
    assert say(library, "type(e.__loader__).__name__") == "Pack"
    assert pack(library).read_bytes() == before


def test_a_pack_of_another_interpreter_is_written_anew(library):
    place = pack(library)
    before = place.read_bytes()
    data = bytearray(before)
    data[data.index(importlib.util.MAGIC_NUMBER)] ^= 1
    place.write_bytes(data)
    assert say(library, "type(e.__loader__).__name__") == "Pack"
    assert place.read_bytes() == before


def test_modules_that_an_entry_imports_are_loaded_in_one_piece(library):
    expression = (
        "pack.preload('berth.bundle.deputy'), 'berth.bundle.deputy' in sys.modules,"
        " __import__('berth.bundle.deputy').bundle.deputy.birth.child.__file__, pack.complete()"
    )
    place = f"{library}/berth/bundle/child.py"
    assert say(library, expression) == f"None False {place} None"  # known from then on
    assert say(library, expression) == f"None True {place} None"
    source = library / "berth/bundle/child.py"
    source.write_text(source.read_text() + "CHANGED = True\n")
    changed = expression.replace("__file__", "CHANGED")
    assert say(library, changed) == "None False True None"
    assert say(library, changed) == "None True True None"


def test_what_others_load_before_an_entry_is_not_loaded_with_it(library):
    entry = (
        "pack.preload('berth.bundle.deputy'), __import__('berth.bundle.deputy'), pack.complete()"
    )
    say(library, entry)
    source = library / "berth/bundle/child.py"
    source.write_text(source.read_text() + "CHANGED = True\n")
    other = (
        "__import__('berth.oci_cli.showing'), __import__('berth.bundle.deputy'), pack.complete()"
    )
    say(library, other)
    loaded = "'berth.bundle.deputy' in sys.modules, 'berth.oci_cli.showing' in sys.modules"
    assert say(library, f"pack.preload('berth.bundle.deputy'), {loaded}") == "None True False"


def test_nothing_is_read_by_a_descriptor_that_was_closed(library):
    expression = (
        "__import__('berth.bundle.descriptors').bundle.descriptors.close_all_but([]),"
        " type(__import__('berth.runtime.hooks').runtime.hooks.__loader__).__name__"
    )
    assert say(library, expression) == "None SourceFileLoader"


def test_a_copy_of_a_library_does_not_take_the_other_ones_code(library, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(library / "berth", other / "berth")
    assert say(other, "e.__file__") == f"{other}/berth/errors.py"
    assert say(other, "type(e.__loader__).__name__") == "Pack"
