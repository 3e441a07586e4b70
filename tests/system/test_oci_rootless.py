"""`berth-oci` as an ordinary user, without subordinate ids and without rights to cgroups."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support.bundles import Bundle, Runtime
from support.programs import find, run
from support.waiting import wait_for

USER = 61_234


class Ordinary(Runtime):
    """berth-oci as another user."""

    def command(self, *args: str) -> list[str]:
        """Return the whole command line."""
        identity = ("--reuid", str(USER), "--regid", str(USER), "--clear-groups")
        return [find("setpriv"), *identity, *super().command(*args)]


@pytest.fixture
def place():
    """A directory of the user's."""
    with tempfile.TemporaryDirectory(prefix="berth-test-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def ordinary(place, berth_oci):
    """The runtime as that user."""
    runtime = Ordinary(
        str(
            shutil.copytree(Path(berth_oci).parents[1], place / "env", symlinks=True)
            / "bin/berth-oci"
        ),
        place / "state",
    )
    (place / "state").mkdir()
    os.chown(place / "state", USER, USER)
    if runtime("--version").code:
        pytest.skip("needs an interpreter and a source tree that other users can read")
    yield runtime
    runtime.clear()


@pytest.fixture
def rootless(place, ordinary):
    """A bundle of the user's, as `spec --rootless` begins it."""
    (place / "bundle").mkdir()
    os.chown(place / "bundle", USER, USER)
    bundle = Bundle(place / "bundle/inner", Runtime(ordinary.program, place / "unused"))
    (bundle.path / "config.json").unlink()
    for folder, _, names in os.walk(bundle.path):
        for name in (folder, *(f"{folder}/{name}" for name in names)):
            os.chown(name, USER, USER, follow_symlinks=False)
    run(*ordinary.command("spec", "--rootless"), cwd=str(bundle.path), check=True)
    bundle.edit(lambda spec: spec["linux"].update(cgroupsPath=f"/{ordinary.group}"))
    return bundle.edit(lambda spec: spec["process"].update(terminal=False))


def test_a_container_runs_as_root_of_its_own_only(ordinary, rootless):
    rootless.shell("id -u; cat /proc/self/uid_map; touch /dev/null; echo $$")
    done = ordinary.run(rootless, "a")
    assert done.code == 0, str(done)
    assert done.lines[0] == "0"
    assert done.lines[1].split() == ["0", str(USER), "1"]
    assert done.lines[2] == "1"
    assert "no right to make cgroups" in done.err


def test_it_is_created_joined_and_ended(ordinary, rootless):
    assert ordinary.create(rootless.runs("sleep", "1000"), "a").code == 0
    assert ordinary("start", "a").code == 0
    done = ordinary("exec", "a", "sh", "-c", "id -u; ps | grep -c 'sleep 1000'; exit 4")
    assert (done.code, done.lines[0]) == (4, "0"), str(done)
    assert ordinary("kill", "a", "KILL").code == 0
    wait_for(lambda: ordinary.status("a") == "stopped", "it ended")
    assert ordinary("delete", "a").code == 0


def test_what_it_may_not_have_is_said(ordinary, rootless):
    limits = {"pids": {"limit": 5}}
    rootless.edit(lambda spec: spec["linux"].update(resources=limits))
    done = ordinary.run(rootless.runs("true"), "a")
    assert done.code == 1
    assert "permission denied" in done.err.lower()
    rootless.edit(lambda spec: spec["linux"].pop("resources"))
    made = ordinary.create(rootless.runs("sleep", "1000"), "b")
    assert made.code == 0, str(made)
    ordinary("start", "b")
    assert "no cgroup of its own" in ordinary("pause", "b").err


def test_other_peoples_ids_are_refused(ordinary, rootless):
    row = [{"containerID": 0, "hostID": 0, "size": 1}]
    rootless.edit(lambda spec: spec["linux"].update(uidMappings=row))
    done = ordinary.run(rootless.runs("true"), "a")
    assert done.code == 1
    assert json.dumps("map")[1:-1] in done.err
