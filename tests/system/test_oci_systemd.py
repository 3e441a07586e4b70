"""`berth-oci --systemd-cgroup`: each container is a transient scope of a real systemd."""

from __future__ import annotations

import json
import secrets

import pytest

from support import kernel
from support.systemd import Inside, Systemd
from support.waiting import wait_for

UNIT = "berth-one.scope"
SLICE = "berth.slice/berth-test.slice"
MIB = 1 << 20


@pytest.fixture(scope="module")
def systemd(tmp_path_factory):
    found = Systemd(f"berth-test-{secrets.token_hex(4)}", tmp_path_factory.mktemp("runtime"))
    yield found
    found.close()


@pytest.fixture
def oci(oci, systemd):
    runtime = Inside(oci.program, oci.root)
    runtime.systemd = systemd
    yield runtime
    runtime.clear()
    wait_for(lambda: not groups(systemd), "the unit's groups are gone")


@pytest.fixture
def bundle(bundle):
    return bundle.edit(lambda spec: spec["linux"].update(cgroupsPath="berth-test.slice:berth:one"))


def groups(systemd):
    """Return the unit's groups that are there, in each hierarchy."""
    found = [root / systemd.name / SLICE / UNIT for root in kernel.hierarchies()]
    return [group for group in found if group.exists()]


def limit(systemd, *names: str) -> str:
    """Return a limit by the first of the names of its file that is there."""
    found = [group / name for group in groups(systemd) for name in names]
    return next(path.read_text().strip() for path in found if path.exists())


def memory_limit(systemd) -> tuple[str, str]:
    """Return the limit of memory that systemd knows, and the kernel's."""
    known = [systemd.property(UNIT, name) for name in ("MemoryMax", "MemoryLimit")]
    kernels = limit(systemd, "memory.max", "memory.limit_in_bytes")
    return next((text for text in known if text.isdigit()), ""), kernels


def start(oci, bundle) -> None:
    """Have a container run."""
    done = oci.create(bundle.runs("sleep", "1000"), "a")
    assert done.code == 0, str(done)
    done = oci("start", "a")
    assert done.code == 0, str(done)


def test_a_container_is_a_scope_in_its_slice(oci, bundle, systemd):
    limits = {
        "memory": {"limit": 64 * MIB},
        "cpu": {"shares": 512, "quota": 25_000, "period": 100_000},
        "pids": {"limit": 55},
    }
    bundle.edit(lambda spec: spec["linux"].update(resources=limits))
    start(oci, bundle)
    assert systemd.property(UNIT, "ActiveState") == "active"
    assert systemd.property(UNIT, "Slice") == "berth-test.slice"
    assert systemd.property(UNIT, "ControlGroup") == f"/{systemd.name}/{SLICE}/{UNIT}"
    assert systemd.property(UNIT, "Delegate") == "yes"
    assert systemd.property(UNIT, "TasksMax") == "55"
    assert systemd.property(UNIT, "CPUQuotaPerSecUSec") == "250ms"
    assert memory_limit(systemd) == (str(64 * MIB), str(64 * MIB))
    assert limit(systemd, "pids.max") == "55"
    for group in groups(systemd):
        assert len((group / "cgroup.procs").read_text().split()) == 1, "nothing else is in there"
    assert oci.state("a")["status"] == "running"
    assert oci("delete", "--force", "a").code == 0
    assert systemd.property(UNIT, "LoadState") == "not-found"
    assert not groups(systemd)


def test_new_limits_are_systemds_too(oci, bundle, systemd):
    start(oci, bundle)
    done = oci("update", "--memory", "96m", "--pids-limit", "44", "a")
    assert done.code == 0, str(done)
    assert systemd.property(UNIT, "TasksMax") == "44"
    assert systemd("daemon-reload").code == 0
    assert memory_limit(systemd) == (str(96 * MIB), str(96 * MIB))
    assert limit(systemd, "pids.max") == "44"


def test_annotations_set_properties(oci, bundle, systemd):
    wanted = {
        "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    bundle.edit(lambda spec: spec.update(annotations=wanted))
    start(oci, bundle)
    assert systemd.property(UNIT, "TimeoutStopUSec") == "2min 3s"
    assert systemd.property(UNIT, "CollectMode") == "inactive-or-failed"


def test_systemd_stops_a_container_as_any_scope(oci, bundle, systemd):
    start(oci, bundle)
    assert systemd("kill", "--signal=KILL", UNIT).code == 0
    wait_for(lambda: oci.status("a") == "stopped", "it ended")
    assert oci("delete", "a").code == 0
    start(oci, bundle)  # under the same name
    assert oci.status("a") == "running"


def test_a_failed_create_leaves_no_unit(oci, bundle, systemd):
    done = oci.create(bundle.runs("/not-there"), "a")
    assert done.code == 1
    assert systemd.property(UNIT, "LoadState") == "not-found"
    assert not groups(systemd)


def test_a_property_that_systemd_does_not_know_is_told(oci, bundle):
    bundle.edit(lambda spec: spec.update(annotations={"org.systemd.property.Nonsense": "true"}))
    done = oci.create(bundle.runs("true"), "a")
    assert done.code == 1
    assert f"unable to start unit '{UNIT}'" in done.err
    assert "Nonsense" in done.err
    assert oci("list", "-q").out == ""


def test_features_tell_of_it(oci):
    assert json.loads(oci("features").out)["linux"]["cgroup"]["systemd"] is True
