"""What of the machine itself a container gets: network devices, memory of some nodes, security labels."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from support.programs import find, run


@pytest.fixture
def device():
    """A network device of the host's with addresses."""
    name = f"bt{secrets.token_hex(3)}"
    ip = find("ip")
    for command in (
        f"link add {name} mtu 1400 type veth peer name {name}p",
        f"addr add 198.18.66.1/24 dev {name}",
        f"-6 addr add fd00:77::1/64 dev {name} nodad",
        f"link set {name} up",
        f"link set {name}p up",
    ):
        run(ip, *command.split(), check=True)
    yield name
    run(ip, "link", "delete", f"{name}p")


def with_device(bundle, device, **options):
    """Have the container get the device."""
    return bundle.edit(lambda spec: spec["linux"].update(netDevices={device: options}))


def test_a_network_device_is_moved_with_what_it_has(oci, bundle, device):
    mac = Path(f"/sys/class/net/{device}/address").read_text()
    with_device(bundle, device, name="eth7")
    bundle.shell(
        "cd /sys/class/net/eth7; cat mtu address flags; busybox ip -o addr show dev eth7; ls /sys/class/net"
    )
    done = oci.run(bundle, "a")
    assert done.code == 0, str(done)
    assert done.lines[0] == "1400"
    assert done.lines[1] == mac.strip()
    assert int(done.lines[2], 16) & 1, "it is up"
    assert "198.18.66.1/24" in done.out
    assert "fd00:77::1/64" in done.out
    assert done.out.count("fe80::") <= 1
    assert device not in done.out


def test_it_keeps_its_name_unless_told(oci, bundle, device):
    with_device(bundle, device).shell("ls /sys/class/net")
    assert device in oci.run(bundle, "a").lines
    assert not Path(f"/sys/class/net/{device}").exists()


def test_it_goes_to_a_joined_network_too(oci, bundle, device, other_network):
    with_device(bundle, device, name="eth7")
    entry = {"type": "network", "path": f"/run/netns/{other_network}"}
    bundle.edit(lambda spec: spec["linux"]["namespaces"].remove({"type": "network"}))
    bundle.edit(lambda spec: spec["linux"]["namespaces"].append(entry))
    done = oci.run(bundle.shell("busybox ip -o addr show dev eth7"), "a")
    assert "198.18.66.1/24" in done.out, str(done)


def test_a_device_is_in_a_user_namespaces_network(oci, bundle, device):
    rows = [{"containerID": 0, "hostID": 700_000, "size": 1000}]
    os.chown(bundle.root, 700_000, 700_000)
    with_device(bundle, device, name="eth7")
    bundle.edit(lambda spec: spec["linux"]["namespaces"].append({"type": "user"}))
    bundle.edit(lambda spec: spec["linux"].update(uidMappings=rows, gidMappings=rows))
    os.chmod(bundle.path.parent, 0o755)
    done = oci.run(bundle.shell("busybox ip -o addr show dev eth7"), "a")
    assert "198.18.66.1/24" in done.out, str(done)


def test_a_device_that_is_not_there_is_named_and_nothing_stays(oci, bundle):
    done = oci.run(with_device(bundle, "bt-missing").runs("true"), "a")
    assert done.code == 1
    assert "cannot move network device bt-missing: there is no such device" in done.err
    assert oci("list", "-q").out == ""


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        ({"a/b": {}}, "invalid network device name 'a/b'"),
        ({"a b": {}}, "invalid network device name 'a b'"),
        ({"..": {}}, "invalid network device name '..'"),
        ({"x" * 16: {}}, "invalid network device name"),
        ({"one": {"name": "two"}, "two": {}}, "both become two"),
    ],
)
def test_names_that_cannot_be_are_refused(oci, bundle, devices, why):
    bundle.edit(lambda spec: spec["linux"].update(netDevices=devices))
    done = oci.run(bundle.runs("true"), "a")
    assert (done.code, why in done.err) == (1, True), str(done)


def test_devices_need_a_network_of_its_own(oci, bundle, device):
    with_device(bundle, device).runs("true")
    bundle.edit(lambda spec: spec["linux"]["namespaces"].remove({"type": "network"}))
    done = oci.run(bundle, "a")
    assert (done.code, "without a NET namespace" in done.err) == (1, True), str(done)
    assert Path(f"/sys/class/net/{device}").exists()


def test_memory_comes_from_the_nodes_that_are_said(oci, bundle):
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with NUMA")
    policy = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    bundle.edit(lambda spec: spec["linux"].update(memoryPolicy=policy))
    oci.create(bundle.runs("sleep", "1000"), "a")
    oci("start", "a")
    maps = Path(f"/proc/{oci.state('a')['pid']}/numa_maps").read_text()
    assert "bind=static:0" in maps
    joined = oci("exec", "a", "cat", "/proc/self/numa_maps")
    assert "bind=static:0" in joined.out


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"mode": "MPOL_BEST"}, "invalid memoryPolicy.mode: 'MPOL_BEST'"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"]}, "invalid memoryPolicy flag"),
        ({"mode": "MPOL_BIND", "nodes": "a"}, "invalid list of numbers 'a'"),
        ({"mode": "MPOL_BIND", "nodes": "0-99999999"}, "no machine has so many"),
        ({"mode": "MPOL_BIND", "nodes": ""}, "set_mempolicy 0x2: Invalid argument"),
        ({"nodes": "0"}, "memoryPolicy.mode is missing"),
    ],
)
def test_policies_that_cannot_be_are_refused(oci, bundle, policy, why):
    bundle.edit(lambda spec: spec["linux"].update(memoryPolicy=policy))
    done = oci.run(bundle.runs("true"), "a")
    assert (done.code, why in done.err) == (1, True), str(done)


def test_root_binds_for_a_user_namespace_what_that_may_not_look_at(oci, bundle, tmp_path):
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner/file").write_text("seen")
    closed.chmod(0)
    rows = [{"containerID": 0, "hostID": 700_000, "size": 1000}]
    bind = {"destination": "/work", "type": "bind", "options": ["bind", "ro"]}
    relative = {**bind, "destination": "/tmp", "source": "rootfs/etc"}
    bundle.edit(lambda spec: spec["linux"]["namespaces"].append({"type": "user"}))
    bundle.edit(lambda spec: spec["linux"].update(uidMappings=rows, gidMappings=rows))
    bundle.edit(
        lambda spec: spec["mounts"].extend([{**bind, "source": str(closed / "inner")}, relative])
    )
    os.chown(bundle.root, 700_000, 700_000)
    os.chmod(bundle.path.parent, 0o755)
    (bundle.root / "etc/mark").touch()
    done = oci.run(bundle.shell("cat /work/file; ls /tmp"), "a")
    assert (done.code, done.out) == (0, "seenmark\n"), str(done)
    closed.chmod(0o700)
    (closed / "inner/file").unlink()
    (closed / "inner").rmdir()
    done = oci.run(bundle, "b")
    assert done.code == 1
    assert f"stat {closed}/inner: no such file or directory" in done.err
    assert oci("list", "-q").out == ""


def test_hooks_without_an_environment_have_the_callers(oci, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_THE_CALLER", "apples")
    told = tmp_path / "told"
    line = {"path": "/bin/sh", "args": ["sh", "-c", f"echo $FROM_THE_CALLER >>{told}"]}
    hooks = {"prestart": [line, {**line, "env": ["PATH=/bin"]}]}
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "echo [$FROM_THE_CALLER] >/work/told"]}
    bundle.edit(lambda spec: spec.update(hooks={**hooks, "startContainer": [inside]}))
    bundle.edit(lambda spec: spec["root"].update(readonly=False))
    done = oci.run(bundle.runs("true"), "a")
    assert done.code == 0, str(done)
    assert told.read_text() == "apples\n\n"
    assert (bundle.root / "work/told").read_text() == "[]\n", "programs of the container's own"


@pytest.mark.parametrize("words", [("run", "a"), ("exec", "a", "true"), ("zygote",)])
def test_without_proc_there_is_one_message(oci, words):
    script = 'umount -l /proc && exec "$@"'
    command = ("sh", "-c", script, "sh", *oci.command(*words))
    done = run("unshare", "--mount", "--propagation", "private", *command)
    assert (done.code, done.out) == (1, "")
    assert [line.partition(":")[2][:21] for line in done.err.splitlines()] == [
        " /proc is not mounted"
    ]
