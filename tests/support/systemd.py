"""A systemd of the test's own: a user's manager, whom berth-oci takes for the machine's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support import kernel
from support.bundles import Runtime
from support.programs import Outcome, find, run
from support.waiting import wait_for

PROGRAM = "/lib/systemd/systemd"
TARGET = "berth-test.target"
START = """
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
ln -s "$XDG_RUNTIME_DIR/systemd/private" /run/systemd/private
for group in $GROUPS_OF_IT; do echo $$ >$group/cgroup.procs; done
exec "$@"
"""


class Systemd:
    """It, running below the groups ``name``, in a mount namespace with a /run/systemd of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        if not os.access(PROGRAM, os.X_OK):
            pytest.skip(f"needs the program {PROGRAM}")
        Path("/run/systemd").mkdir(exist_ok=True)
        self.name = name
        self.groups = [root / name for root in kernel.hierarchies() if _is_systemds(root)]
        for group in self.groups:
            _offer_controllers(group.parent)
            group.mkdir()
        (folder / "systemd/user").mkdir(parents=True)
        (folder / "systemd/user" / TARGET).write_text("[Unit]\nDefaultDependencies=no\n")
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
        self._process = subprocess.Popen(
            (find("unshare"), "--mount", "sh", "-ec", START, "sh", PROGRAM, "--user", f"--unit={TARGET}"),
            env={**self._environment, "GROUPS_OF_IT": " ".join(map(str, self.groups))},
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for((folder / "systemd/private").exists, "systemd listens", timeout_s=120)
        wait_for(self._is_up, "systemd is up", timeout_s=120)

    def _is_up(self) -> bool:
        return self("is-active", TARGET).out.strip() == "active"

    @property
    def inside(self) -> tuple[str, ...]:
        """The beginning of a command line in its mount namespace; the working directory stays."""
        enter = f"{find('nsenter')} --target {self._process.pid} --mount"
        stay = """sh -c 'cd "$1"; shift; exec "$@"' sh"""
        return ("sh", "-c", f'exec {enter} {stay} "$PWD" "$@"', "sh")

    def __call__(self, *args: str) -> Outcome:
        """Run systemctl."""
        return run(find("systemctl"), "--user", *args, env=self._environment)

    def property(self, unit: str, name: str) -> str:
        """Return what systemd has of a unit."""
        return self("show", "--property", name, "--value", unit).out.strip()

    def close(self) -> None:
        """End it with all that it has."""
        self._process.terminate()
        self._process.wait()
        for root in kernel.hierarchies():
            for folder, _, _ in os.walk(root / self.name, topdown=False):
                wait_for(lambda folder=folder: _is_removed(folder), f"{folder} is empty")


def _is_systemds(root: Path) -> bool:
    """Say whether systemd follows units in a hierarchy: version 2's, or version 1's that is named for it."""
    return (root / "cgroup.subtree_control").exists() or root.name == "systemd"


def _offer_controllers(root: Path) -> None:
    control = root / "cgroup.subtree_control"
    for name in ("memory", "pids", "cpu"):
        if control.exists() and name in (root / "cgroup.controllers").read_text().split():
            control.write_text(f"+{name}")


def _is_removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Inside(Runtime):
    """berth-oci beside that systemd, asked for its groups."""

    systemd: Systemd

    def command(self, *args: str) -> list[str]:
        """Return the whole command line."""
        own = [self.program, "--root", str(self.root), "--systemd-cgroup", *args]
        return [*self.systemd.inside, *own]
