"""Bundles and containers that try to get at the machine by what berth-oci does for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.programs import PATH, find, run
from support.waiting import wait_for


@pytest.fixture
def started(oci, bundle):
    """Start a container that sleeps; return its pid."""
    oci.create(bundle.runs("sleep", "1000"), "a")
    assert oci("start", "a").code == 0
    return oci.state("a")["pid"]


def every_capability(spec):
    """Give all capabilities that the container's root can have."""
    names = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT", "CAP_MKNOD"]
    for key in ("bounding", "effective", "permitted"):
        spec["process"]["capabilities"][key] = names


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("how", ["entrypoint", "shebang", "exec"])
def test_the_interpreter_cannot_be_overwritten(oci, bundle, berth_oci, how):
    program = Path(berth_oci).with_name("python3").resolve()
    before = program.stat()
    link = bundle.root / "bin/evil"
    if how == "shebang":
        link.write_text("#!/proc/self/exe\n")
        link.chmod(0o755)
    else:
        link.symlink_to("/proc/self/exe")
    bundle.edit(every_capability)
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    overwrite = "import os; os.open('/proc/self/exe', os.O_WRONLY)"
    if how == "exec":
        oci.create(bundle.runs("sleep", "1000"), "a")
        oci("start", "a")
        done = oci("exec", "a", "/bin/evil", "-I", "-S", "-c", overwrite)
    else:
        done = oci.run(bundle.runs("/bin/evil", "-I", "-S", "-c", overwrite), "a")
    assert done.code != 0
    after = program.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


# In a pid namespace of its own: a process that had the command's pid before has left a socket that listens.
SQUATTER = """
import os, socket, sys
left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
def next_pid(number):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))
next_pid(500)
if os.fork() == 0:
    os.setuid(65534)
    left.bind(f"\\0berth-oci/{os.getpid()}")
    left.listen(5)
    os._exit(0)
assert os.wait() == (500, 0)
next_pid(500)
if os.fork() == 0:
    os.execv(sys.argv[1], sys.argv[1:])
assert os.wait() == (500, 0)
left.setblocking(False)
try:
    left.accept()
except BlockingIOError:
    sys.exit(0)
sys.exit("the deputy came to somebody else")
"""


def test_who_had_the_pid_of_a_command_does_not_get_its_deputy(oci, bundle):
    if not Path("/proc/sys/kernel/ns_last_pid").exists():
        pytest.skip("needs /proc/sys/kernel/ns_last_pid")
    words = oci.command("run", "--bundle", str(bundle.runs("echo", "here").path), "a")
    unshare = (find("unshare"), "--pid", "--fork", "--mount-proc")
    done = run(*unshare, sys.executable, "-c", SQUATTER, *words)
    assert (done.out, done.code) == ("here\n", 0), str(done)


ON_A_READ_ONLY_MOUNT, SEALED = "/", "/memfd:berth (deleted)"


@pytest.mark.parametrize(
    ("name", "does", "link"),
    [
        ("nothing", "", ON_A_READ_ONLY_MOUNT),
        ("unshare", "exit 1", SEALED),
        ("unshare", "sleep 0.5; exit 1", SEALED),
        ("mount", "exit 0", SEALED),  # nothing is mounted
    ],
)
def test_the_interpreter_that_a_container_sees_cannot_be_written(
    oci, bundle, berth_oci, tmp_path, name, does, link
):
    prefix, others = tmp_path / "prefix", tmp_path / "others"
    shutil.copytree(Path(berth_oci).parents[1], prefix, symlinks=True)
    real, own = Path(sys.executable).resolve(), prefix / "bin/python3"
    own.unlink()
    shutil.copy(real, own)  # that nobody else runs: a running one cannot be written anyway
    (prefix / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    others.mkdir()
    (others / name).write_text(f"#!/bin/sh\n{does}\n")
    (others / name).chmod(0o755)
    words = oci.command("create", "--bundle", str(bundle.runs("true").path), "a")
    subprocess.run(
        [prefix / "bin/berth-oci", *words[1:]], env={**os.environ, "PATH": f"{others}:{PATH}"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    pid = oci.state("a")["pid"]
    assert os.readlink(f"/proc/{pid}/exe") == link
    seen = os.open(f"/proc/{pid}/exe", os.O_PATH)
    try:
        oci("start", "a")
        wait_for(lambda: oci.status("a") == "stopped", "the end of all that runs it")
        os.close(os.open(own, os.O_WRONLY))
        with (
            pytest.raises(OSError, match=r"not permitted|Read-only"),
            open(f"/proc/self/fd/{seen}", "r+b", buffering=0) as file,
        ):
            file.write(b"X")
    finally:
        os.close(seen)


@pytest.mark.usefixtures("each_door")
def test_nothing_is_inherited(oci, bundle):
    script = "ls -l /proc/self/fd; env"
    reader, writer = os.pipe()
    words = oci.command("run", "--bundle", str(bundle.shell(script).path), "a")
    process = subprocess.run(
        words, pass_fds=[reader, writer], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        env={**os.environ, "SECRET": "x"}, check=False,
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    out = process.stdout.decode()
    assert len([line for line in out.splitlines() if " -> " in line]) == 3
    assert "SECRET" not in out


@pytest.mark.usefixtures("each_door")
def test_signals_have_their_default_actions(oci, bundle):
    bundle.runs("cat", "/proc/self/status")  # a shell ignores some itself
    words = oci.command("run", "--bundle", str(bundle.path), "a")
    done = run("sh", "-c", 'trap "" QUIT INT USR1 PIPE; exec "$@"', "sh", *words)
    assert "SigBlk:\t0000000000000000" in done.out
    assert "SigIgn:\t0000000000000000" in done.out


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("number", range(3, 12))
def test_no_descriptor_is_a_way_out_as_the_working_directory(oci, bundle, number):
    bundle.edit(lambda spec: spec["process"].update(cwd=f"/proc/self/fd/{number}"))
    done = oci.run(bundle.runs("ls", "../../../../"), "a")
    assert done.code == 1
    assert "bin" not in done.out
    bundle.edit(lambda spec: spec["process"].update(cwd="/"))
    oci.create(bundle.runs("sleep", "1000"), "b")
    oci("start", "b")
    done = oci("exec", "--cwd", f"/proc/self/fd/{number}", "b", "ls")
    assert done.code == 255


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("target", ["/proc/self/fd/5", "/proc/self/fd/6", "/proc/1/root", "../.."])
def test_mounts_and_devices_through_links_stay_inside(oci, bundle, tmp_path, target):
    (bundle.root / "link").symlink_to(target)
    before = sorted(os.listdir("/"))
    bundle.edit(
        lambda spec: spec["mounts"].extend(
            [
                {"destination": "/link/tmp/made-by-mount", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/link/made", "source": "/etc/hosts", "options": ["bind"]},
            ]
        )
    )
    device = {"path": "/link/made-device", "type": "c", "major": 1, "minor": 5}
    bundle.edit(lambda spec: spec["linux"].update(devices=[device]))
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    oci.run(bundle.runs("true"), "a")
    assert sorted(os.listdir("/")) == before
    assert not Path("/tmp/made-by-mount").exists()
    assert not (bundle.path / "made").exists()
    assert not (bundle.path / "made-device").exists()
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("path", ["proc", "sys"])
def test_links_in_the_place_of_kernel_file_systems_are_refused(oci, bundle, path):
    (bundle.root / path).rmdir()
    (bundle.root / path).symlink_to("/tmp")
    done = oci.run(bundle.runs("true"), "a")
    assert done.code == 1
    assert "must be mounted on ordinary directory" in done.err


@pytest.mark.usefixtures("each_door")
def test_nothing_but_proc_is_mounted_into_proc(oci, bundle, tmp_path):
    (tmp_path / "x").mkdir()
    for where in ("/proc", "/proc/self", "/proc/sys/kernel"):
        bundle.edit(
            lambda spec: spec["mounts"].append(
                {"destination": where, "source": str(tmp_path / "x"), "options": ["bind"]}  # noqa: B023
            )
        )
        assert oci.run(bundle.runs("true"), "a").code == 1
        bundle.edit(lambda spec: spec["mounts"].pop())


@pytest.mark.usefixtures("each_door")
def test_files_are_not_hidden_by_what_is_no_null_device(oci, bundle, tmp_path):
    """A /dev of the host's that has something else there."""
    fake = tmp_path / "dev"
    fake.mkdir()
    (fake / "null").symlink_to("/proc/kcore")
    (fake / "pts").mkdir()
    bundle.edit(
        lambda spec: spec.update(
            mounts=[
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "source": str(fake), "options": ["bind"]},
            ]
        )
    )
    bundle.edit(lambda spec: spec["linux"].update(maskedPaths=["/proc/kcore"]))
    done = oci.run(bundle.runs("true"), "a")
    assert done.code == 1
    assert "/dev/null" in done.err


def test_capabilities_are_not_inherited_by_programs(oci, started):
    script = "grep -E 'CapInh|CapAmb' /proc/self/status | cut -f2"
    assert set(oci("exec", "a", "sh", "-c", script).lines) == {"0" * 16}


@pytest.mark.usefixtures("each_door")
def test_a_session_keyring_is_the_containers_own(oci, bundle):
    bundle.edit(lambda spec: spec["linux"].update(maskedPaths=[]))
    done = oci.run(bundle.shell("grep -c _ses /proc/keys"), "a")
    own = Path("/proc/keys").read_text() if os.path.exists("/proc/keys") else ""
    assert int(done.out or 0) <= 1 + own.count("_ses")


# Runs a program with a session keyring that has a secret (keyctl(2), add_key(2)).
WITH_A_KEY = """if True:
    import ctypes, os, sys
    call, arm = ctypes.CDLL(None).syscall, os.uname().machine == "aarch64"
    assert call(219 if arm else 250, 1, b"callers", 0, 0, 0) > 0
    assert call(217 if arm else 248, b"user", b"secret", b"top", 3, -3) > 0
    os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(("flags", "found"), [((), False), (("--no-new-keyring",), True)])
def test_an_exec_has_the_callers_keys_only_when_asked_for(oci, bundle, flags, found):
    bundle.edit(lambda spec: spec["linux"].update(maskedPaths=[]))
    oci.create(bundle.runs("sleep", "1000"), "a", *flags)
    oci("start", "a")
    # Another than root sees those only that it has the right to use.
    command = oci.command("exec", "--user", "1000:1000", "a", "cat", "/proc/keys")
    assert ("secret" in run(sys.executable, "-c", WITH_A_KEY, *command).out) == found


@pytest.mark.usefixtures("each_door")
def test_the_release_agent_of_groups_cannot_be_written(oci, bundle):
    bundle.edit(lambda spec: spec["linux"]["namespaces"].append({"type": "cgroup"}))
    script = "echo /evil >/sys/fs/cgroup/memory/release_agent; cat /evil"
    done = oci.run(bundle.shell(script), "a")
    assert done.code != 0


def test_an_exec_is_not_led_astray_by_the_containers_proc(oci, bundle):
    """The container covers its own /proc; what joins it reads nothing there."""
    bundle.edit(every_capability)
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    bundle.edit(lambda spec: spec["linux"].update(readonlyPaths=[], maskedPaths=[]))
    script = (
        "mount -t tmpfs x /proc; mkdir -p /proc/self/fd /proc/self/attr; echo >/proc/x; sleep 1000"
    )
    oci.create(bundle.shell(script), "a")
    oci("start", "a")
    wait_for(lambda: oci("exec", "a", "ls", "/proc/x").code == 0, "/proc is covered")
    done = oci("exec", "a", "sh", "-c", "echo ran; pwd")
    assert done.lines == ["ran", "/"]


@pytest.mark.usefixtures("each_door")
def test_names_with_newlines_and_colons_stay_names(oci, bundle):
    (bundle.root / "etc/passwd").write_text(
        "a\nb:x:notanumber:0:::\n:x:0:0:::\nroot:x:0:0::/r:/b\n"
    )
    done = oci.run(bundle.shell("echo $HOME"), "a")
    assert done.lines == ["/r"]


@pytest.mark.usefixtures("each_door")
def test_a_huge_or_special_passwd_holds_nobody_up(oci, bundle):
    os.mkfifo(bundle.root / "etc/passwd")
    assert oci.run(bundle.runs("true"), "a").code == 0


def test_a_pid_file_is_written_to_no_other_place(oci, bundle, tmp_path):
    (tmp_path / "other").write_text("precious")
    (tmp_path / ".pid").symlink_to("other")
    assert oci.create(bundle.runs("true"), "a", "--pid-file", str(tmp_path / "pid")).code == 0
    assert (tmp_path / "other").read_text() == "precious"
    assert (tmp_path / "pid").read_text() == str(oci.state("a")["pid"])


def test_state_is_closed_to_others(oci, started):
    folder = Path(oci.root)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "a/state.json").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("each_door")
def test_start_container_hooks_have_the_containers_privileges(oci, bundle):
    script = "grep CapEff /proc/self/status >/tmp/caps; id -u >/tmp/uid"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
    bundle.edit(lambda spec: spec.update(hooks={"startContainer": [hook]}))
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    bundle.edit(lambda spec: spec["process"].update(user={"uid": 1000, "gid": 1000}))
    (bundle.root / "tmp").chmod(0o777)
    assert oci.run(bundle.runs("true"), "a").code == 0
    assert (bundle.root / "tmp/caps").read_text().split()[1] == "0" * 16
    assert (bundle.root / "tmp/uid").read_text() == "1000\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(document, prefix=()):
    """Return the path to every value of a document."""
    found = [prefix] if prefix else []
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        if isinstance(value, dict | list):
            found += paths(value, (*prefix, key))
        else:
            found.append((*prefix, key))
    return found


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_document_leads_to_a_traceback(oci, bundle, data):
    """Any value of config.json becomes any JSON: it runs, or is refused by name."""
    original = (bundle.path / "config.json").read_text()
    try:
        spec = json.loads(original)
        spec["process"]["args"] = ["true"]
        *way, last = data.draw(st.sampled_from(paths(spec)))
        place = spec
        for key in way:
            place = place[key]
        place[last] = data.draw(JSON)
        (bundle.path / "config.json").write_text(json.dumps(spec))
        done = oci.run(bundle, "fuzzed")
        assert "Traceback" not in done.err
        assert "internal error" not in done.err, done.err
        assert done.code == 0 or done.err, str(done)
        assert oci("list", "-q").out == ""
    finally:
        (bundle.path / "config.json").write_text(original)


def test_a_create_killed_at_any_moment_leaves_what_force_removes(oci, bundle):
    bundle.runs("sleep", "1000")
    for delay in range(0, 60, 6):
        process = oci.background(
            "create", "--bundle", str(bundle.path), "a", stdin=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=delay / 1000)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert oci("delete", "--force", "a").code == 0
        assert oci("list", "-q").out == ""


def test_ptrace_of_a_joining_process_is_refused(oci, bundle):
    """Without CAP_SYS_PTRACE no process of the container sees into one that just enters."""
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    script = (
        "while true; do for p in /proc/[0-9]*; do "
        "readlink $p/exe; done; done 2>/dev/null | grep -m1 memfd >/tmp/seen"
    )
    oci.create(bundle.shell(script), "a")
    oci("start", "a")
    for _ in range(5):
        assert oci("exec", "a", "true").code == 0
    assert (bundle.root / "tmp/seen").read_text() == ""


def test_a_link_among_the_images_of_a_checkpoint_is_not_followed(oci, bundle, tmp_path):
    """criu is not asked any more: a program that fails stands for it."""
    file, images = tmp_path / "file", tmp_path / "images"
    file.write_text("precious")
    images.mkdir()
    (images / "descriptors.json").symlink_to(file)
    (tmp_path / "criu").symlink_to(find("false"))
    assert oci.create(bundle.runs("sleep", "1000"), "a").code == 0
    assert oci("start", "a").code == 0
    words = oci.command("checkpoint", "--image-path", str(images), "a")
    done = run(find("env"), f"PATH={tmp_path}:{PATH}", *words)
    assert done.code == 1
    assert "descriptors.json: too many levels of symbolic links" in done.err
    assert file.read_text() == "precious"
    assert oci.status("a") == "running"
