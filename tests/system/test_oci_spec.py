"""What config.json says and the process then has: namespaces, mounts, devices, limits, hooks, privileges."""

from __future__ import annotations

import json
import os
import platform
import socket
import stat
import threading
from pathlib import Path

import pytest

from support import kernel
from support.programs import find, run
from support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("each_door")


def output(oci, bundle, script, id_="a"):
    """Run a script in the bundle; return its lines."""
    done = oci.run(bundle.shell(script), id_)
    assert done.code == 0, str(done)
    return done.lines


def refusal(oci, bundle, change):
    """Return why the changed bundle is refused, which must leave nothing."""
    done = oci.create(bundle.runs("true").edit(change), "refused")
    assert done.code == 1, str(done)
    assert oci("list", "-q").out == ""
    return done.err


def mounts(*entries):
    """Return a change that adds mounts."""
    return lambda spec: spec["mounts"].extend(entries)


def namespace(kind, **more):
    """Return a change that sets a namespace."""

    def change(spec):
        spaces = spec["linux"]["namespaces"]
        spaces[:] = [entry for entry in spaces if entry["type"] != kind] + [{"type": kind, **more}]

    return change


def without(kind):
    """Return a change that leaves a namespace out."""

    def change(spec):
        spaces = spec["linux"]["namespaces"]
        spaces[:] = [entry for entry in spaces if entry["type"] != kind]

    return change


def user_namespace(spec):
    """Map ids 0 to 65535 to 100000 and on."""
    namespace("user")(spec)
    row = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    spec["linux"].update(uidMappings=row, gidMappings=row)


# Namespaces


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "mount", "cgroup", "time"])
def test_a_namespace_is_the_containers_own_when_asked_for(oci, bundle, kind):
    name = {"network": "net", "mount": "mnt"}.get(kind, kind)
    bundle.edit(namespace(kind))
    (link,) = output(oci, bundle, f"readlink /proc/self/ns/{name}")
    assert link != os.readlink(f"/proc/self/ns/{name}")


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_a_namespace_is_joined_by_its_path(oci, bundle, kind):
    name = {"network": "net", "mount": "mnt"}.get(kind, kind)
    oci.create(bundle.runs("sleep", "1000"), "first")
    path = f"/proc/{oci.state('first')['pid']}/ns/{name}"
    wanted = os.readlink(path)
    bundle.edit(namespace(kind, path=path))
    bundle.edit(lambda spec: spec.pop("hostname", None))
    assert output(oci, bundle, f"readlink /proc/self/ns/{name}") == [wanted]


def test_the_hosts_namespace_is_kept_when_none_is_asked_for(oci, bundle):
    bundle.edit(without("network")).edit(without("ipc"))
    lines = output(oci, bundle, "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc")
    assert lines == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/ipc")]


def test_a_path_that_is_another_kind_of_namespace_is_refused(oci, bundle):
    why = refusal(oci, bundle, namespace("network", path="/proc/self/ns/uts"))
    assert "is not a net namespace" in why or "is not a network namespace" in why


def test_a_user_namespace_maps_ids(oci, bundle):
    os.chown(bundle.root, 100_000, 100_000)
    bundle.edit(user_namespace)
    script = "id -u; cat /proc/self/uid_map; stat -c %u /; test -w /dev/null && echo writable"
    lines = output(oci, bundle, script)
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "100000", "65536"]
    assert lines[2:] == ["0", "writable"]


def test_exec_enters_a_user_namespace(oci, bundle):
    os.chown(bundle.root, 100_000, 100_000)
    oci.create(bundle.edit(user_namespace).runs("sleep", "1000"), "a")
    oci("start", "a")
    done = oci("exec", "--user", "5", "a", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert done.lines[0] == "5", str(done)
    assert done.lines[1].split() == ["0", "100000", "65536"]


def test_a_user_namespace_is_joined_by_its_path(oci, bundle):
    os.chown(bundle.root, 100_000, 100_000)
    oci.create(bundle.edit(user_namespace).runs("sleep", "1000"), "first")
    path = f"/proc/{oci.state('first')['pid']}/ns/user"
    wanted = os.readlink(path)
    bundle.edit(namespace("user", path=path))
    bundle.edit(lambda spec: [spec["linux"].pop(key) for key in ("uidMappings", "gidMappings")])
    lines = output(oci, bundle, "readlink /proc/self/ns/user; id -u")
    assert lines == [wanted, "0"]


def test_all_namespaces_of_another_container_are_joined(oci, bundle):
    os.chown(bundle.root, 100_000, 100_000)
    oci.create(bundle.edit(user_namespace).runs("sleep", "1000"), "first")
    oci("start", "first")
    folder = f"/proc/{oci.state('first')['pid']}/ns"

    def change(spec):
        for entry in spec["linux"]["namespaces"]:
            if entry["type"] != "mount":
                entry["path"] = f"{folder}/{entry['type'].replace('network', 'net')}"
        del spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]

    oci.create(bundle.edit(change), "second")
    oci("start", "second")
    theirs = f"/proc/{oci.state('second')['pid']}/ns"
    for name in ("user", "pid", "net", "ipc", "uts"):
        assert os.readlink(f"{theirs}/{name}") == os.readlink(f"{folder}/{name}"), name
    shown = oci("exec", "second", "ps").out
    assert shown.count("sleep 1000") == 2, shown


def test_a_mount_namespace_is_joined_and_left_as_it_is(oci, bundle):
    oci.create(bundle.runs("sleep", "1000"), "first")
    oci("start", "first")
    folder = f"/proc/{oci.state('first')['pid']}/ns"
    before = oci("exec", "first", "cat", "/proc/mounts").out
    bundle.edit(namespace("mount", path=f"{folder}/mnt"))
    bundle.edit(namespace("pid", path=f"{folder}/pid"))
    bundle.edit(lambda spec: spec["root"].update(path="/"))
    # Its end ends whatever is in its groups, for its namespace of processes is another's.
    bundle.edit(lambda spec: spec["linux"].update(cgroupsPath=f"/{oci.group}/second"))
    done = oci.run(bundle.shell("readlink /proc/self/ns/mnt; ls -d /work"), "second")
    assert done.lines == [os.readlink(f"{folder}/mnt"), "/work"], str(done)
    assert "mounts are passed over" in done.err
    assert oci("exec", "first", "cat", "/proc/mounts").out == before


def test_clocks_have_the_offsets_of_a_time_namespace(oci, bundle):
    bundle.edit(namespace("time"))
    bundle.edit(lambda spec: spec["linux"].update(timeOffsets={"boottime": {"secs": 1_000_000}}))
    (line,) = output(oci, bundle, "cat /proc/uptime")
    assert float(line.split()[0]) > 1_000_000


def test_names_are_set(oci, bundle):
    bundle.edit(lambda spec: spec.update(hostname="one", domainname="two"))
    lines = output(oci, bundle, "hostname; cat /proc/sys/kernel/domainname")
    assert lines == ["one", "two"]


def test_loopback_is_up_in_a_new_network(oci, bundle):
    (line,) = output(oci, bundle, "cat /sys/class/net/lo/carrier")
    assert line == "1"


# Mounts


def test_binds_have_their_options(oci, bundle, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").write_text("text\n")
    source = str(tmp_path / "host")
    bundle.edit(
        mounts(
            {"destination": "/a", "source": source, "options": ["bind", "ro", "nosuid", "noexec"]},
            {"destination": "/b/file", "source": f"{source}/file", "options": ["bind", "nodev"]},
        )
    )
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    script = "cat /a/file /b/file; grep -E ' /(a|b/file) ' /proc/self/mountinfo | cut -d' ' -f6"
    lines = output(oci, bundle, script)
    assert lines[:2] == ["text", "text"]
    assert lines[2].startswith("ro,nosuid,noexec")
    assert lines[3].startswith("rw,nodev")


def test_recursive_attributes_reach_what_is_mounted_below(oci, bundle, tmp_path):
    below = tmp_path / "host/below"
    below.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "tmpfs", str(below), check=True)
    try:
        source = str(tmp_path / "host")
        bundle.edit(
            mounts(
                {"destination": "/a", "source": source, "options": ["rbind", "rro"]},
                {"destination": "/b", "source": source, "options": ["rbind", "ro"]},
            )
        )
        script = (
            "for d in /a /a/below /b /b/below; do touch $d/x 2>/dev/null && echo $d; done; true"
        )
        assert output(oci, bundle, script) == ["/b/below"]
    finally:
        run("umount", str(below))


def test_a_tmpfs_takes_a_copy_of_what_it_covers(oci, bundle):
    (bundle.root / "work/file").write_text("text\n")
    (bundle.root / "work/link").symlink_to("file")
    (bundle.root / "work/dir").mkdir(mode=0o700)
    os.chown(bundle.root / "work/file", 5, 6)
    options = ["tmpcopyup", "nosuid"]
    bundle.edit(mounts({"destination": "/work", "type": "tmpfs", "options": options}))
    script = "cat /work/link; stat -c '%u %g' /work/file; stat -c %a /work/dir; touch /work/new"
    assert output(oci, bundle, script) == ["text", "5 6", "700"]
    assert not (bundle.root / "work/new").exists()


def test_an_id_mapped_mount_shows_other_owners(oci, bundle, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").touch()
    row = [{"containerID": 0, "hostID": 5_000, "size": 10}]
    bundle.edit(
        mounts(
            {
                "destination": "/a",
                "source": str(tmp_path / "host"),
                "options": ["bind", "idmap"],
                "uidMappings": row,
                "gidMappings": row,
            }
        )
    )
    assert output(oci, bundle, "stat -c '%u %g' /a/file") == ["5000 5000"]


def test_mountinfo_has_mounts_in_the_specs_order(oci, bundle):
    bundle.edit(
        mounts(
            {"destination": "/work/a", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/work/b", "source": "/etc", "options": ["bind", "shared"]},
            {"destination": "/work/c", "type": "tmpfs", "source": "tmpfs"},
        )
    )
    lines = output(oci, bundle, "grep /work /proc/self/mountinfo")
    assert [line.split()[4] for line in lines] == ["/work/a", "/work/b", "/work/c"]
    assert "shared:" in lines[1]


def test_who_has_changed_its_root_can_have_the_containers_own_groups_mounted(oci, bundle, tmp_path):
    bundle.edit(without("cgroup")).shell("head -1 /sys/fs/cgroup/pids/cgroup.procs")
    (tmp_path / "host").mkdir()
    changed = f'mount --rbind / {tmp_path}/host && exec chroot {tmp_path}/host "$@"'
    words = (find("unshare"), "--mount", "sh", "-c", changed, "sh")
    done = run(*words, *oci.command("run", "--bundle", str(bundle.path), "a"))
    assert (done.out, done.code) == ("1\n", 0), str(done)


def test_the_containers_own_groups_are_mounted_without_a_cgroup_namespace(oci, bundle):
    bundle.edit(without("cgroup"))
    (line,) = output(oci, bundle, "cat /sys/fs/cgroup/pids/cgroup.procs | head -1")
    assert line == "1"


def test_paths_are_hidden_and_protected(oci, bundle):
    (bundle.root / "work/file").write_text("secret")
    (bundle.root / "work/dir").mkdir()
    (bundle.root / "work/dir/x").touch()
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    bundle.edit(lambda spec: spec["linux"]["maskedPaths"].extend(["/work/file", "/work/dir"]))
    bundle.edit(lambda spec: spec["linux"]["readonlyPaths"].append("/tmp"))
    script = (
        "wc -c </work/file; ls /work/dir | wc -l; touch /tmp/x || echo refused; touch /y; ls /y"
    )
    assert output(oci, bundle, script) == ["0", "0", "refused", "/y"]


def test_the_root_is_read_only_when_asked_for(oci, bundle):
    assert output(oci, bundle, "touch /x || echo refused") == ["refused"]


@pytest.mark.parametrize("word", ["shared", "slave", "private", "unbindable"])
def test_the_roots_propagation_is_as_asked_for(oci, bundle, word):
    bundle.edit(lambda spec: spec["linux"].update(rootfsPropagation=word))
    (line,) = output(oci, bundle, "grep ' / / \\| /.*rootfs / ' /proc/self/mountinfo | head -1")
    tag = line.split(" - ")[0].split()[6:]
    wanted = {"shared": "shared:", "unbindable": "unbindable"}.get(word, "")
    assert (
        any(item.startswith(wanted) for item in tag) if wanted else "shared:" not in " ".join(tag)
    )


# Devices


def test_devices_are_made_and_allowed(oci, bundle):
    device = {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "gid": 5}
    bundle.edit(lambda spec: spec["linux"].update(devices=[device]))
    lines = output(oci, bundle, "stat -c '%a %g %t:%T' /dev/mine; head -c 3 /dev/mine | wc -c")
    assert lines == ["640 5 1:5", "3"]
    lines = output(oci, bundle, "echo $(ls /dev); readlink /dev/ptmx")
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd"} <= set(lines[0].split())
    assert lines[1] == "pts/ptmx"


def test_other_devices_are_refused_by_the_group(oci, bundle):
    bundle.edit(lambda spec: spec["process"]["capabilities"]["effective"].append("CAP_MKNOD"))
    bundle.edit(lambda spec: spec["process"]["capabilities"]["permitted"].append("CAP_MKNOD"))
    bundle.edit(lambda spec: spec["process"]["capabilities"]["bounding"].append("CAP_MKNOD"))
    script = "mknod /dev/kmsg c 1 11; cat /dev/kmsg 2>&1 >/dev/null; true"
    assert "Operation not permitted" in output(oci, bundle, script)[0]


# Privileges


def test_capabilities_are_those_of_the_spec(oci, bundle):
    def change(spec):
        spec["process"]["capabilities"] = {
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "permitted": ["CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }

    bundle.edit(change)
    lines = output(oci, bundle, "grep Cap /proc/self/status | cut -f2")
    assert [int(line, 16) for line in lines] == [1 << 5, 1 << 5, 1 << 5, 1 << 5 | 1, 1 << 5]


def test_unknown_capabilities_are_passed_over_with_a_warning(oci, bundle):
    bundle.edit(lambda spec: spec["process"]["capabilities"]["bounding"].append("CAP_NONE"))
    done = oci.run(bundle.runs("true"), "a")
    assert done.code == 0
    assert "CAP_NONE" in done.err


def test_the_user_has_the_groups_of_the_spec_only(oci, bundle):
    (bundle.root / "etc/passwd").write_text("x:x:1000:7::/home/x:/bin/sh\n")
    (bundle.root / "etc/group").write_text("seven:x:7:x\nwheel:x:10:x\n")
    user = {"uid": 1000, "gid": 1, "additionalGids": [3, 4], "umask": 0o077}
    bundle.edit(lambda spec: spec["process"].update(user=user))
    lines = output(oci, bundle, "id -u; id -G; umask; echo $HOME")
    assert lines == ["1000", "1 3 4", "0077", "/home/x"]


def test_attributes_of_the_process(oci, bundle):
    def change(spec):
        spec["process"].update(
            oomScoreAdj=321,
            rlimits=[{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
            scheduler={"policy": "SCHED_BATCH", "nice": 5},
            noNewPrivileges=True,
        )
        spec["linux"]["personality"] = {"domain": "LINUX32"}

    bundle.edit(change)
    script = """
    cat /proc/self/oom_score_adj
    grep core /proc/self/limits | tr -s ' ' | cut -d' ' -f5,6
    cut -d' ' -f19,41 /proc/self/stat
    grep NoNewPrivs /proc/self/status | cut -f2
    uname -m
    """
    lines = output(oci, bundle, script)
    assert lines[:4] == ["321", "1 2", "5 3", "1"]
    assert lines[4] == {"x86_64": "i686", "aarch64": "armv8l"}[platform.machine()]


def test_parameters_of_its_namespaces_are_set(oci, bundle):
    values = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
    bundle.edit(lambda spec: spec["linux"].update(sysctl=values))
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"
    assert output(oci, bundle, script) == ["1", "1"]


def test_other_parameters_are_refused(oci, bundle):
    why = refusal(oci, bundle, lambda s: s["linux"].update(sysctl={"kernel.core_pattern": "x"}))
    assert "is not in a separate kernel namespace" in why
    bundle.edit(without("network"))
    values = {"net.ipv4.ip_forward": "1"}
    why = refusal(oci, bundle, lambda s: s["linux"].update(sysctl=values))
    assert "not allowed in the hosts network namespace" in why
    bundle.edit(namespace("network", path=f"/proc/{os.getpid()}/ns/net"))
    why = refusal(oci, bundle, lambda s: s["linux"].update(sysctl=values))
    assert "not allowed in the hosts network namespace" in why
    bundle.edit(without("network"))
    values = {"user.max_user_namespaces": "1"}
    why = refusal(oci, bundle, lambda s: s["linux"].update(sysctl=values))
    assert "not allowed in the hosts user namespace" in why


@pytest.mark.parametrize(
    "name",
    ["net/../../self/comm", "net/../kernel/domainname", "net/./x", "net//x", "net..x", "net."],
)
def test_parameters_that_lead_elsewhere_are_refused(oci, bundle, name):
    why = refusal(oci, bundle, lambda s: s["linux"].update(sysctl={name: "x"}))
    assert f'"{name}" is not the name of a kernel parameter' in why.replace("\\", "")


def test_seccomp_refuses_what_it_names(oci, bundle):
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    filter_ = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    for own in (True, False):
        bundle.edit(lambda spec: spec["process"].update(noNewPrivileges=own))  # noqa: B023
        bundle.edit(lambda spec: spec["linux"].update(seccomp=filter_))
        done = oci.run(bundle.shell("mkdir /tmp/x; grep Seccomp: /proc/self/status"), "a")
        assert "No space left on device" in done.err
        assert done.lines == ["Seccomp:\t2"]


def test_exec_has_the_filter_too(oci, bundle):
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    filter_ = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.edit(lambda spec: spec["linux"].update(seccomp=filter_))
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    assert "No space left on device" in oci("exec", "a", "mkdir", "/dev/x").err


def test_calls_are_notified_to_an_agent(oci, bundle, tmp_path):
    path = tmp_path / "agent.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    taken = []

    def take():
        connection, _ = listener.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 2)
        taken.append((json.loads(data), fds))
        for fd in fds:
            os.close(fd)  # nobody answers: the call fails with ENOSYS

    agent = threading.Thread(target=take)
    agent.start()
    filter_ = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    bundle.edit(lambda spec: spec["linux"].update(seccomp=filter_))
    bundle.edit(lambda spec: spec["process"].update(noNewPrivileges=False))
    done = oci.run(bundle.runs("mkdir", "/dev/x"), "a")
    agent.join()
    listener.close()
    assert "Function not implemented" in done.err
    ((document, fds),) = taken
    assert document["fds"] == ["seccompFd"]
    assert document["metadata"] == "meta"
    assert document["state"]["id"] == "a"
    assert len(fds) == 1


# Limits


def test_limits_are_in_the_group(oci, bundle):
    resources = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 333, "quota": 20_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 44},
    }
    bundle.edit(lambda spec: spec["linux"]["resources"].update(resources))
    oci.create(bundle.runs("sleep", "1000"), "a")
    groups = {root.name: root / oci.group for root in kernel.hierarchies()}
    read = {
        "memory/memory.limit_in_bytes": 64 << 20,
        "memory/memory.memsw.limit_in_bytes": 64 << 20,
        "memory/memory.soft_limit_in_bytes": 32 << 20,
        "cpu/cpu.shares": 333,
        "cpu/cpu.cfs_quota_us": 20_000,
        "cpuset/cpuset.cpus": 0,
        "pids/pids.max": 44,
    }
    for name, value in read.items():
        hierarchy, _, file = name.partition("/")
        if hierarchy not in groups:
            pytest.skip("needs cgroup v1")
        assert int((groups[hierarchy] / file).read_text()) == value, name


def test_memory_is_limited(oci, bundle):
    limits = {"memory": {"limit": 20 << 20, "swap": 20 << 20}}
    bundle.edit(lambda spec: spec["linux"]["resources"].update(limits))
    bundle.shell("x=a; while true; do x=$x$x; done")
    assert oci.run(bundle, "a").code == 137


def test_a_limit_that_the_kernel_lacks_is_named(oci, bundle):
    limits = {"rdma": {"mlx5_1": {"hcaHandles": 3}}}
    why = refusal(oci, bundle, lambda spec: spec["linux"]["resources"].update(limits))
    assert "rdma" in why


# Hooks


def hook(folder, name, script="cat"):
    """Return a hook that notes its name and the state it is told, as the host's shell does it."""
    text = f"echo {name} >>{folder}/order; {script} >{folder}/{name}.json"
    return {"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/bin:/usr/bin"]}


def test_hooks_run_in_their_order_and_are_told_the_state(oci, bundle, tmp_path):
    folder = tmp_path / "hooks"
    folder.mkdir()
    (bundle.root / "notes").mkdir()
    outside = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {kind: [hook(folder, kind)] for kind in outside}
    hooks["startContainer"] = [hook("/notes", "startContainer")]
    bundle.edit(lambda spec: spec.update(hooks=hooks, annotations={"k": "v"}))
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    oci.create(bundle.runs("sleep", "1000"), "a")
    assert (folder / "order").read_text().split() == [
        "prestart",
        "createRuntime",
        "createContainer",
    ]
    pid = oci.state("a")["pid"]
    assert oci("start", "a").code == 0
    assert (bundle.root / "notes/order").read_text() == "startContainer\n"
    oci("delete", "--force", "a")
    assert (folder / "order").read_text().split()[3:] == ["poststart", "poststop"]
    statuses = {}
    for kind in (*outside, "startContainer"):
        place = folder if kind in outside else bundle.root / "notes"
        state = json.loads((place / f"{kind}.json").read_text())
        assert state["id"] == "a"
        assert state["bundle"] == str(bundle.path)
        assert state["annotations"] == {"k": "v"}
        assert state["pid"] == (0 if kind == "poststop" else pid)
        statuses[kind] = state["status"]
    assert statuses == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_undoes_the_create(oci, bundle, kind):
    bad = {"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}
    why = refusal(oci, bundle, lambda spec: spec.update(hooks={kind: [bad]}))
    assert f"error running hook #0 of {kind}: exit status 3" in why
    assert "why" in why


def test_a_hook_is_killed_after_its_timeout(oci, bundle):
    slow = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    why = refusal(oci, bundle, lambda spec: spec.update(hooks={"prestart": [slow]}))
    assert "hook ran past specified timeout of 1s" in why


def test_hooks_see_the_containers_mounts_before_the_pivot(oci, bundle, tmp_path):
    script = f"ls {bundle.root}/dev | wc -l >{tmp_path}/seen"
    late = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}
    bundle.edit(lambda spec: spec.update(hooks={"createContainer": [late]}))
    oci.create(bundle.runs("true"), "a")
    assert int((tmp_path / "seen").read_text()) > 5


# Refusals


def change_root(spec):
    spec["root"]["path"] = "nothing"


def change_mapping(spec):
    spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.update(ociVersion="2.0.0"), "unsupported ociVersion"),
        (change_root, "invalid rootfs"),
        (change_mapping, "USER namespace isn't enabled"),
        (lambda s: s["process"].update(cwd="work"), "Cwd must be an absolute path"),
        (lambda s: s["process"].update(args=[]), "args must not be empty"),
        (
            lambda s: s["process"].update(apparmorProfile="x"),
            "apparmor is not supported on the host",
        ),
        (lambda s: s["linux"]["namespaces"].append({"type": "pid"}), "duplicated ns"),
        (lambda s: s["linux"]["namespaces"].append({"type": "x"}), "does not exist"),
        (without("mount"), "unable to restrict sys entries without a private MNT namespace"),
        (lambda s: s["linux"].update(intelRdt={"closID": "x"}), "intelRdt"),
        (
            lambda s: s["linux"].update(rootfsPropagation="x"),
            "rootfsPropagation=x is not supported",
        ),
        (lambda s: s.update(hooks={"prestart": [{"path": "x"}]}), "is not absolute"),
        (mounts({"destination": "/x", "source": "/nothing", "options": ["bind"]}), "stat /nothing"),
        (
            lambda s: s["linux"].update(seccomp={"defaultAction": "SCMP_ACT_X"}),
            "invalid seccomp action",
        ),
        (
            lambda s: s["process"].update(rlimits=[{"type": "RLIMIT_X", "soft": 0, "hard": 0}]),
            "invalid rlimit",
        ),
        (
            lambda s: s["linux"].update(devices=[{"path": "/dev/x", "type": "q"}]),
            "invalid device type",
        ),
        (lambda s: s["process"].update(scheduler={"policy": "X"}), "invalid scheduler policy"),
    ],
)
def test_nonsense_is_refused_by_name(oci, bundle, change, why):
    if "apparmor" in why and Path("/sys/module/apparmor").exists():
        pytest.skip("needs a kernel without AppArmor")
    assert why in refusal(oci, bundle, change)


def test_a_start_without_a_program_is_refused_by_name(oci, bundle):
    assert oci.create(bundle.edit(lambda spec: spec.pop("process")), "a").code == 0
    done = oci("start", "a")
    assert (done.code, "process property must not be empty" in done.err) == (1, True)


def test_an_unreadable_document_is_refused(oci, bundle):
    (bundle.path / "config.json").write_text("{")
    done = oci.run(bundle, "a")
    assert done.code == 1
    assert "is not valid" in done.err
    (bundle.path / "config.json").unlink()
    assert "JSON specification file config.json not found" in oci.run(bundle, "a").err


def test_a_working_directory_is_made(oci, bundle):
    bundle.edit(lambda spec: spec["process"].update(cwd="/made/here"))
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    assert output(oci, bundle, "pwd") == ["/made/here"]
    assert stat.S_ISDIR((bundle.root / "made/here").stat().st_mode)


def test_no_pivot_leaves_the_machine_out_of_reach(oci, bundle):
    done = oci.run(bundle.shell("ls / | tr '\\n' ' '"), "a", "--no-pivot")
    assert done.code == 0, str(done)
    assert "rootfs" not in done.out
    assert "bin" in done.out.split()


def test_nothing_waits_when_the_maker_is_killed(oci, bundle):
    slow = {"path": "/bin/sleep", "args": ["sleep", "1000"]}
    bundle.edit(lambda spec: spec.update(hooks={"prestart": [slow]}))
    process = oci.background("create", "--bundle", str(bundle.path), "a", stdin=-3)
    pid = wait_for(lambda: oci("state", "a").code == 0 and oci.state("a")["pid"], "a process")
    hook_pids = kernel.descendants(process.pid) - {pid}
    process.kill()
    process.wait()
    wait_for(lambda: not Path(f"/proc/{pid}/root/bin").exists(), "it saw its maker's end")
    for other in hook_pids:
        if Path(f"/proc/{other}").exists():
            os.kill(other, 9)
    assert oci("delete", "--force", "a").code == 0
