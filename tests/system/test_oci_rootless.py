"""`berth-oci` as an ordinary user, with and without subordinate ids, with and without rights to cgroups."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support import kernel
from support.bundles import Bundle, Runtime
from support.programs import find, run
from support.waiting import wait_for

USER = 61_234
SUBORDINATE = 720_000
COUNT = 65_536


class Ordinary(Runtime):
    """berth-oci as another user; with ``etc``, on a machine whose files of users are those in that folder."""

    etc: Path | None = None
    hidden = ""  # a program that the machine has not
    session: Path | None = None  # the file of the group that the caller is in

    def command(self, *args: str) -> list[str]:
        """Return the whole command line."""
        identity = ("--reuid", str(USER), "--regid", str(USER), "--clear-groups")
        steps = [f"mount --bind {self.etc}/{name} /etc/{name}" for name in FILES if self.etc]
        if self.hidden:
            steps.append(f"mount --bind /dev/null {self.hidden}")
        if self.session:
            steps.append(f"echo $$ >{self.session}")
        line = [find("setpriv"), *identity, *super().command(*args)]
        return [
            find("unshare"),
            "--mount",
            "sh",
            "-ec",
            "; ".join([*steps, 'exec "$@"']),
            "sh",
            *line,
        ]


FILES = ("passwd", "group", "subuid", "subgid")


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


def test_without_groups_of_its_own_it_is_shown_its_callers(ordinary, rootless):
    """So it is in documents that other runtimes begin."""
    options = ["nosuid", "noexec", "nodev", "relatime", "ro"]
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    rootless.edit(lambda spec: spec["mounts"].append({**mount, "options": options}))
    rootless.shell("cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs | wc -l; echo $$")
    done = ordinary.run(rootless, "a")
    assert (done.code, done.lines[1:]) == (0, ["1"]), str(done)
    assert int(done.lines[0]) > 1


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


@pytest.fixture
def subordinate(place, ordinary, rootless):
    """The user's bundle with many ids, and a machine that knows the user and gives it those."""
    find("newuidmap")
    for name in ("subuid", "subgid"):
        if not Path("/etc", name).exists():
            pytest.skip("needs the program newuidmap")
    etc = place / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nplain:x:{USER}:{USER}::/:/bin/sh\n")
    (etc / "group").write_text(f"root:x:0:\nplain:x:{USER}:\n")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(f"plain:{SUBORDINATE}:{COUNT}\n")
    ordinary.etc = etc
    rows = [
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": SUBORDINATE, "size": COUNT},
    ]
    return rootless.edit(lambda spec: spec["linux"].update(uidMappings=rows, gidMappings=rows))


def test_subordinate_ids_are_mapped_by_the_helpers(ordinary, subordinate):
    subordinate.edit(lambda spec: spec["root"].update(readonly=False))
    subordinate.edit(lambda spec: spec["process"].update(capabilities=all_capabilities()))
    subordinate.shell(
        "cat /proc/self/uid_map /proc/self/gid_map; touch /work/x && chown 1000:1001 /work/x;"
        " stat -c '%u %g' /work/x"
    )
    done = ordinary.run(subordinate, "a")
    assert done.code == 0, str(done)
    table = [line.split() for line in done.lines]
    wanted = [["0", str(USER), "1"], ["1", str(SUBORDINATE), str(COUNT)]]
    assert table == [*wanted, *wanted, ["1000", "1001"]]
    status = (subordinate.root / "work/x").stat()
    assert (status.st_uid, status.st_gid) == (SUBORDINATE + 999, SUBORDINATE + 1000)


def all_capabilities() -> dict[str, list[str]]:
    """Return the capabilities to change owners and become others."""
    names = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_FOWNER"]
    return dict.fromkeys(("bounding", "effective", "permitted"), names)


def test_a_process_may_be_another_of_those_users_with_groups(ordinary, subordinate):
    user = {"uid": 1000, "gid": 1001, "additionalGids": [1002, 1003]}
    subordinate.edit(lambda spec: spec["process"].update(user=user))
    done = ordinary.run(subordinate.shell("id -u; id -g; id -G"), "a")
    assert done.code == 0, str(done)
    assert done.lines[:2] == ["1000", "1001"]
    assert sorted(done.lines[2].split()) == ["1001", "1002", "1003"]


def test_such_a_container_is_created_joined_and_ended(ordinary, subordinate):
    made = ordinary.create(subordinate.runs("sleep", "1000"), "a")
    assert made.code == 0, str(made)
    assert ordinary("start", "a").code == 0
    done = ordinary("exec", "--user", "5:6", "a", "sh", "-c", "id -u; id -g")
    assert (done.code, done.lines) == (0, ["5", "6"]), str(done)
    assert ordinary("delete", "--force", "a").code == 0


def test_ids_of_others_are_refused_by_the_helper(ordinary, subordinate):
    (ordinary.etc / "subuid").write_text(f"other:{SUBORDINATE}:{COUNT}\n")
    done = ordinary.run(subordinate.runs("true"), "a")
    assert done.code == 1
    assert "newuidmap refused to map ids" in done.err
    assert ordinary("list", "-q").out == ""


def test_without_the_helper_it_is_said(ordinary, subordinate):
    """Where no program of that name is found; the folder that it is in is covered."""
    (ordinary.etc / "subuid").write_text("")
    ordinary.hidden = find("newuidmap")
    done = ordinary.run(subordinate.runs("true"), "a")
    assert done.code == 1
    assert "newuidmap is needed to map these ids, and is not installed" in done.err


@pytest.fixture
def delegated(ordinary, rootless):
    """The bundle with its groups below one in each hierarchy that is the user's."""
    above = f"{ordinary.group}-user"
    folders = [root / above for root in kernel.hierarchies()]
    unified = [folder for folder in folders if (folder.parent / "cgroup.controllers").exists()]
    if not unified:
        pytest.skip("needs cgroup v2")
    session = unified[0] / "session"
    for folder in (*folders, session):
        folder.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder / name).exists():
                (folder / name).write_text((folder.parent / name).read_text())
        for path in (folder, *(folder / name for name in ("tasks", "cgroup.procs"))):
            if path.exists():
                os.chown(path, USER, USER)
    ordinary.session = session / "cgroup.procs"
    yield rootless.edit(lambda spec: spec["linux"].update(cgroupsPath=f"/{above}/{ordinary.group}"))
    ordinary.clear()
    for folder in (session, *(folder / ordinary.group for folder in folders), *folders):
        if folder.exists():
            folder.rmdir()


def test_with_rights_to_cgroups_it_has_limits_and_is_paused(ordinary, delegated):
    limits = {"pids": {"limit": 21}}
    delegated.edit(lambda spec: spec["linux"].update(resources=limits))
    made = ordinary.create(delegated.runs("sleep", "1000"), "a")
    assert made.code == 0, str(made)
    assert "no right to make cgroups" not in made.err
    ordinary("start", "a")
    stats = json.loads(ordinary("events", "--stats", "a").out)["data"]
    assert stats["pids"]["limit"] == 21
    assert ordinary("pause", "a").code == 0
    assert ordinary.status("a") == "paused"
    assert ordinary("resume", "a").code == 0
    assert ordinary("update", "--pids-limit", "33", "a").code == 0
    stats = json.loads(ordinary("events", "--stats", "a").out)["data"]
    assert stats["pids"]["limit"] == 33
    assert ordinary("delete", "--force", "a").code == 0


def test_a_caller_in_a_group_of_others_is_told_what_is_missing(ordinary, delegated):
    ordinary.session = None
    done = ordinary.run(delegated.runs("true"), "a")
    assert done.code == 1
    assert "no right to make a process in cgroup" in done.err
    assert ordinary("list", "-q").out == ""
