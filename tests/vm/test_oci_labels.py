"""`berth-oci` and AppArmor, where the kernel has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.programs import find, run

NAME = "berth-test"
PROFILE = f"""
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  signal,
  ptrace,
  deny /work/forbidden w,
}}
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """The profile, loaded."""
    run("mount", "-t", "securityfs", "securityfs", "/sys/kernel/security")
    path = tmp_path_factory.mktemp("apparmor") / "profile"
    path.write_text(PROFILE)
    run(find("apparmor_parser"), "--replace", "--skip-cache", str(path), check=True)
    yield NAME
    run(find("apparmor_parser"), "--remove", str(path))


@pytest.fixture
def confined(bundle, profile):
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    return bundle.edit(lambda spec: spec["process"].update(apparmorProfile=profile))


def test_the_program_is_confined_and_its_maker_is_not(oci, confined):
    confined.shell("cat /proc/self/attr/current; echo x >/work/fine; echo x >/work/forbidden")
    done = oci.run(confined, "a")
    assert done.lines[0] == f"{NAME} (enforce)", str(done)
    assert "can't create /work/forbidden: Permission denied" in done.err
    assert (confined.root / "work/fine").exists()
    assert not (confined.root / "work/forbidden").exists()


def test_a_joining_process_is_confined_too(oci, confined):
    oci.create(confined.runs("sleep", "1000"), "a")
    oci("start", "a")
    pid = oci.state("a")["pid"]
    assert Path(f"/proc/{pid}/attr/current").read_text().strip() == f"{NAME} (enforce)"
    assert oci("exec", "a", "cat", "/proc/self/attr/current").lines == [f"{NAME} (enforce)"]
    done = oci("exec", "--apparmor", "unconfined", "a", "cat", "/proc/self/attr/current")
    assert done.lines == ["unconfined"], str(done)


def test_a_profile_that_is_not_loaded_is_named(oci, confined):
    confined.edit(lambda spec: spec["process"].update(apparmorProfile="berth-missing"))
    oci.create(confined.runs("true"), "a")
    done = oci("start", "a")
    assert done.code == 1
    assert "unable to apply apparmor profile berth-missing: No such file or directory" in done.err


def test_features_tell_of_it(oci):
    assert json.loads(oci("features").out)["linux"]["apparmor"]["enabled"] is True
