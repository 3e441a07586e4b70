"""Run a program and keep what it said."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Outcome:
    """How a program ended. ``out`` and ``err`` are text; ``raw`` is stdout as it came."""

    args: tuple[str, ...]
    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __str__(self) -> str:
        return f"{' '.join(self.args)}\nexit {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def find(name: str) -> str:
    """Return a program's path; skip the test when the machine has none."""
    path = shutil.which(name, path=PATH)
    if path is None:
        pytest.skip(f"needs the program {name}")
    return path


def run(
    *args: str,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120.0,
    check: bool = False,
    cwd: str | None = None,
) -> Outcome:
    """Run to the end. With ``check``, an exit code other than 0 fails the test."""
    done = subprocess.run(
        args,
        input=stdin or b"",
        capture_output=True,
        env={**os.environ, "PATH": PATH, **(env or {})},
        timeout=timeout_s,
        cwd=cwd,
        check=False,
    )
    outcome = Outcome(args, done.returncode, done.stdout, done.stderr.decode(errors="replace"))
    assert not check or outcome.code == 0, str(outcome)
    return outcome
