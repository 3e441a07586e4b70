"""What workers can do once they are confined to a root that is not trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from berth.runtime import zygote
from berth.runtime.worker import confine
from support.forks import in_child

if TYPE_CHECKING:
    from collections.abc import Callable


def test_no_module_comes_from_the_root(tmp_path: Path) -> None:
    folder = tmp_path / Path(os.__file__).parent.relative_to("/")
    folder.mkdir(parents=True)
    (folder / "planted.py").touch()

    def work() -> str:
        confine(str(tmp_path))
        try:
            __import__("planted")
        except ImportError:
            return "not found"
        return "imported"

    assert in_child(work) == "not found"


def test_a_bug_is_told_without_a_look_at_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.py"
    os.mkfifo(source)  # whoever opens it waits for ever
    names: dict[str, Callable[[], None]] = {}
    text = (
        "def fail():\n    try:\n        {}['key']\n    except KeyError:\n        int('\\udc80')\n"
    )
    exec(compile(text, str(source), "exec"), names)
    with pytest.raises(ValueError, match="invalid literal") as caught:
        names["fail"]()
    zygote._tell_bug(caught.value)
    told = capfd.readouterr().err.splitlines()
    assert told[-2] == f'  File "{source}", line 5, in fail'
    assert told[-1] == "ValueError: invalid literal for int() with base 10: '\\udc80'"
    assert f'  File "{source}", line 3, in fail' in told
    assert told.count("Traceback (most recent call last):") == 2
