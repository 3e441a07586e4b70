"""cgroups on the real trees of this machine, in groups of the test's own."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from berth.engine import defaults
from berth.errors import Failed, InvalidArgument, Unsupported
from berth.kernel import cgroup_limits, cgroup_stats, cgroups, device_programs, namespaces
from support.forks import Waiting, ending_signal, in_child
from support.waiting import wait_for

MIB = 1 << 20
PARENT = f"berth-kernel-test-{os.getpid()}"


@pytest.fixture(scope="module")
def hierarchies():
    return cgroups.detect()


@pytest.fixture
def parent(hierarchies):
    hierarchies.prepare_parent(f"{PARENT}/std", [])
    yield f"{PARENT}/std"
    hierarchies.open_group(PARENT).kill()
    hierarchies.open_group(PARENT).remove()
    assert not [h.name for h in hierarchies.found if PARENT in os.listdir(h.fd)]


@pytest.fixture
def group(hierarchies, parent):
    group = hierarchies.open_group(f"{parent}/one")
    group.create()
    return group


@pytest.fixture
def v1(hierarchies):
    tree = hierarchies.of("memory")
    if tree is None or tree.unified:
        pytest.skip("needs cgroup v1 for the memory controller")
    return hierarchies


def memory_limits(group):
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    return [int(group.read("memory", name)) // MIB for name in names]


def membership():
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return {line.split(":")[1]: line.split(":", 2)[2] for line in lines}


def test_every_mounted_hierarchy_is_found(hierarchies):
    mounted = {
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.partition(" - ")[2].startswith("cgroup")
    }
    assert {os.readlink(f"/proc/self/fd/{h.fd}") for h in hierarchies.found} <= mounted
    assert len({h.options for h in hierarchies.found if not h.unified}) == len(
        [h for h in hierarchies.found if not h.unified]
    )


def test_a_process_enters_every_hierarchy(group):
    def enter():
        group.enter()
        return membership()

    found = in_child(enter)
    assert found
    assert set(found.values()) == {f"/{group.path}"}


def test_another_process_is_added(group):
    with Waiting() as child:
        group.add(child.pid)
        assert group.pids() == [child.pid]


def test_a_process_of_another_pid_namespace_has_no_id_to_signal(hierarchies, parent):
    """Version 2 lists it as 0, which to signal is to signal one's own process group (kill(2))."""
    if hierarchies.unified is None:
        pytest.skip("needs cgroup v2")
    group = cgroups.Cgroup(cgroups.Hierarchies([hierarchies.unified]), f"{parent}/foreign")
    group.create()

    def look():
        os.setsid()
        namespaces.unshare(namespaces.CLONE_NEWPID)
        return in_child(lambda: (group.pids(), group._kill_each()))

    with Waiting() as child:
        group.add(child.pid)
        assert group.pids() == [child.pid]
        assert in_child(look) == ([], True)


def test_groups_work_without_a_mounted_cgroupfs(group):
    def enter():
        os.chroot("/proc/self/fdinfo")
        group.enter()
        return group.pids() == [os.getpid()]

    assert in_child(enter)


def test_a_group_is_made_with_the_parents_it_lacks(hierarchies, parent):
    group = hierarchies.open_group(f"{parent}/a/b/c")
    group.create()
    in_child(group.enter)
    group.create()
    hierarchies.open_group(f"{parent}/a").remove()
    assert not group.pids()


def test_a_cpuset_that_nobody_filled_is_filled_on_entering(v1, parent):
    tree = v1.of("cpuset")
    os.mkdir(f"{parent}/foreign", dir_fd=tree.fd)
    cgroups.write(tree.fd, f"{parent}/foreign/cgroup.clone_children", "0")
    group = v1.open_group(f"{parent}/foreign/inner")
    group.create()
    assert group.read("cpuset", "cpuset.cpus").strip() == ""
    in_child(group.enter)
    filled = cgroups.read(tree.fd, f"{parent}/foreign/cpuset.cpus")
    assert group.read("cpuset", "cpuset.cpus") == filled
    assert filled.strip()


def test_limits_are_written(group):
    group.apply(
        {
            "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": 32 * MIB},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 17},
        }
    )
    stats = cgroup_stats.collect(group)
    assert stats["memory"]["limit"] == 64 * MIB
    assert stats["pids"]["limit"] == 17
    assert group.read("cpuset", "cpuset.cpus").strip() == "0"


def test_memory_grows_and_shrinks_with_its_swap(v1, group):
    for memory, swap in ((64, 128), (256, 512), (32, 64), (32, 32), (48, 96)):
        group.apply({"memory": {"limit": memory * MIB, "swap": swap * MIB}})
        assert memory_limits(group) == [memory, swap]
    group.apply({"memory": {"limit": -1}})
    assert cgroup_stats.collect(group)["memory"]["limit"] is None


def test_bandwidth_changes_in_any_order(v1, group):
    for quota, period in ((200_000, 100_000), (2_000, 1_000), (1_000_000, 1_000_000)):
        group.apply({"cpu": {"quota": quota, "period": period}})
        assert int(group.read("cpu", "cpu.cfs_quota_us")) == quota
        assert int(group.read("cpu", "cpu.cfs_period_us")) == period


def test_pids_without_limit(group):
    group.apply({"pids": {"limit": 5}})
    group.apply({"pids": {"limit": -1}})
    assert cgroup_stats.collect(group)["pids"]["limit"] is None


def test_a_value_that_the_kernel_refuses_is_named(group):
    with pytest.raises(InvalidArgument, match=r"set cpuset\.cpus to 4095: "):
        group.apply({"cpu": {"cpus": "4095"}})


def test_a_file_that_is_not_there_is_named(v1, group):
    tree = v1.of("memory")
    with pytest.raises(Unsupported, match=r"set memory\.nothing: this kernel has no such limit"):
        cgroup_limits._write(tree, group.path, [("memory.nothing", "1")])
    with pytest.raises(Failed, match="does not exist"):
        v1.open_group(f"{PARENT}/nowhere").apply({"memory": {"limit": MIB}})


def test_a_unified_limit_of_a_controller_of_version_1_is_refused(v1, group):
    if v1.unified is None:
        pytest.skip("needs cgroup v2")
    with pytest.raises(Unsupported, match=r"invalid configuration: unified limit memory\.min"):
        group.apply({"unified": {"memory.min": "131072"}})


def test_a_missing_controller_is_an_error_only_when_it_is_asked_for(hierarchies, group):
    without = cgroups.Hierarchies([_without_memory(h) for h in hierarchies.found])
    poor = without.open_group(group.path)
    poor.apply({"pids": {"limit": 5}})
    with pytest.raises(Unsupported, match="set memory limits: no cgroup hierarchy"):
        poor.apply({"memory": {"limit": 64 * MIB}})


def _without_memory(hierarchy):
    controllers = tuple(name for name in hierarchy.controllers if name != "memory")
    return cgroups.Hierarchy(hierarchy.fd, hierarchy.name, controllers, unified=hierarchy.unified)


def test_block_devices_are_throttled(group):
    group.apply({"blockIO": {"throttleReadBpsDevice": [{"major": 7, "minor": 0, "rate": MIB}]}})
    if group.has("blkio", "blkio.throttle.read_bps_device"):
        assert group.read("blkio", "blkio.throttle.read_bps_device") == f"7:0 {MIB}\n"


def test_what_is_used_is_counted(group):
    def work():
        group.enter()
        held = bytearray(16 * MIB)
        sum(range(200_000))
        return len(held), cgroup_stats.collect(group)

    _, stats = in_child(work)
    assert stats["memory"]["usage"] > 8 * MIB
    assert stats["memory"]["max_usage"] > 8 * MIB
    assert stats["cpu"]["total_ns"] > 0
    assert stats["pids"]["current"] == 1
    assert stats["memory"]["detail"]


def test_an_oom_kill_is_counted(group):
    group.apply({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    assert group.oom_kills() == 0

    def eat():
        group.enter()
        bytearray(64 * MIB)

    assert ending_signal(eat) == signal.SIGKILL
    assert group.oom_kills() == 1


def test_freezing_stops_and_thawing_lets_go(group):
    with Waiting(group.enter) as child:
        group.freeze()
        os.kill(child.pid, signal.SIGTERM)
        assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)
        group.thaw()
        assert os.WTERMSIG(child.reap()) == signal.SIGTERM


def test_killing_ends_frozen_processes_and_those_in_groups_below(hierarchies, group):
    below = hierarchies.open_group(f"{group.path}/below")
    below.create()
    with Waiting(group.enter) as one, Waiting(below.enter) as two:
        assert sorted(group.pids()) == sorted([one.pid, two.pid])
        group.freeze()
        group.kill()
        assert os.WTERMSIG(one.reap()) == os.WTERMSIG(two.reap()) == signal.SIGKILL
    group.remove()
    assert group.pids() == []


def test_killing_works_without_cgroup_kill(hierarchies, group):
    old = cgroups.Hierarchies([h for h in hierarchies.found if not h.unified])
    if not old.found:
        pytest.skip("needs cgroup v1")
    with Waiting(group.enter) as child:
        wait_for(lambda: group.pids() == [child.pid], "the child is in its group")
        # A zombie stays in its group's list no longer, so the loop ends before it is reaped.
        old.open_group(group.path).freeze()
        old.open_group(group.path).kill()
        assert os.WTERMSIG(child.reap()) == signal.SIGKILL


def test_removing_is_idempotent_and_refuses_the_living(group):
    with Waiting(group.enter), pytest.raises(OSError) as caught:
        group.remove()
    assert caught.value.errno == errno.EBUSY
    group.remove()
    group.remove()


def test_the_default_device_rules_keep_devices_away(hierarchies, parent):
    for _ in range(2):  # a second time with children
        hierarchies.prepare_parent(parent, defaults.device_rules())
        group = hierarchies.open_group(f"{parent}/guarded")
        group.create()
        assert in_child(lambda group=group: device_access(group)) == EXPECTED_ACCESS


EXPECTED_ACCESS = {"null": "ok", "kmsg": "EPERM", "mknod": "ok"}


def device_access(group):
    group.enter()
    folder = Path(f"/tmp/berth-kernel-test-{os.getpid()}")
    folder.mkdir()
    found = {}
    try:
        for name, number in (("null", os.makedev(1, 3)), ("kmsg", os.makedev(1, 11))):
            os.mknod(folder / name, 0o20600, number)
            try:
                os.close(os.open(folder / name, os.O_RDONLY))
                found[name] = "ok"
            except OSError as error:
                found[name] = errno.errorcode[error.errno]
            os.unlink(folder / name)
        found["mknod"] = "ok"
    finally:
        folder.rmdir()
    return found


def test_version_2_device_rules_are_a_program(hierarchies, group):
    tree = hierarchies.unified
    if tree is None:
        pytest.skip("needs cgroup v2, hybrid at least")
    for _ in range(2):  # the second takes the place of the first
        device_programs.attach(tree.fd, group.path, defaults.device_rules())
        assert in_child(lambda: device_access(group)) == EXPECTED_ACCESS
    device_programs.attach(tree.fd, group.path, [{"allow": True, "type": "a", "access": "rwm"}])
    assert in_child(lambda: device_access(group))["kmsg"] == "ok"


def test_version_2_device_rules_know_access(hierarchies, group):
    tree = hierarchies.unified
    if tree is None:
        pytest.skip("needs cgroup v2, hybrid at least")
    null = {"type": "c", "major": 1, "minor": 3}
    rules = [
        {"allow": True, "type": "c", "access": "rwm"},
        {"allow": False, **null, "access": "w"},
    ]
    device_programs.attach(tree.fd, group.path, rules)

    def opened():
        group.enter()
        found = []
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                os.close(os.open("/dev/null", flags))
                found.append(True)
            except PermissionError:
                found.append(False)
        return found

    assert in_child(opened) == [True, False, False]
    rules[1:] = [{"allow": False, "type": "c"}, {"allow": True, **null, "access": "rw"}]
    device_programs.attach(tree.fd, group.path, rules)
    assert in_child(opened) == [True, True, True]
    rules[2]["access"] = "r"
    device_programs.attach(tree.fd, group.path, rules)
    assert in_child(opened) == [True, False, False]


@pytest.mark.parametrize("path", ["", "/", "a/../b"])
def test_a_path_that_leaves_the_tree_is_refused(hierarchies, path):
    with pytest.raises(InvalidArgument):
        hierarchies.open_group(path)


LEAVES = [{"leafWeight": 300}, {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 300}]}]


@pytest.mark.parametrize("block", LEAVES)
def test_a_weight_against_groups_below_is_set_or_refused(hierarchies, group, block):
    blkio = hierarchies.of("blkio")
    if blkio is not None and group.has("blkio", "blkio.leaf_weight"):
        pytest.skip("needs a kernel without CFQ")
    with pytest.raises(Unsupported, match=r"leaf_?[wW]eight"):
        group.apply({"blockIO": block})


def test_weights_of_version_2_are_those_that_are_asked_for():
    devices = [{"major": 8, "minor": 0, "weight": 1000}, {"major": 8, "minor": 16}]
    found = cgroup_limits.block_files_v2({"weightDevice": devices}, bfq=False)
    assert found == [("io.weight", "8:0 10000")]
    for block in LEAVES:
        with pytest.raises(Unsupported, match="leafWeight"):
            cgroup_limits.block_files_v2(block, bfq=False)


def test_weights_of_version_1_are_those_that_are_asked_for():
    device = {"major": 8, "minor": 0, "weight": 20, "leafWeight": 30}
    found = cgroup_limits.block_files_v1({"leafWeight": 40, "weightDevice": [device]}, bfq=False)
    assert found == [
        ("blkio.leaf_weight", "40"),
        ("blkio.weight_device", "8:0 20"),
        ("blkio.leaf_weight_device", "8:0 30"),
    ]


def test_a_limit_below_what_is_used_is_refused_where_that_is_asked_for():
    for key, name in (("limit", "memory"), ("swap", r"memory\+swap")):
        with pytest.raises(InvalidArgument, match=f"rejecting {name} limit 7 <= usage 7"):
            cgroup_limits.check_usage({key: 7}, 7)
    cgroup_limits.check_usage({"limit": 8, "swap": -1}, 7)
    cgroup_limits.check_usage({}, 7)
