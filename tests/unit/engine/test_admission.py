"""What a new container may not ask for."""

from __future__ import annotations

import pytest

from berth.engine.admission import admit, parse_set
from berth.engine.models import (
    ContainerConfig,
    Healthcheck,
    HostConfig,
    PortBinding,
)
from berth.engine.support import Support
from berth.errors import BerthError, InvalidArgument, NotFound

EVERYTHING = Support(**dict.fromkeys(Support.__slots__, True))
REFUSED: list[tuple[dict[str, object], dict[str, object], type[BerthError], str]] = [
    ({"hostname": "h"}, {"uts_mode": "host"}, InvalidArgument, "hostname and the UTS mode"),
    ({}, {"network_mode": "host", "links": ["a"]}, InvalidArgument, "can't be used with links"),
    ({}, {"network_mode": "container:"}, InvalidArgument, "invalid container format"),
    ({"hostname": "h"}, {"network_mode": "container:x"}, InvalidArgument, "hostname and the"),
    ({}, {"network_mode": "container:x", "dns": ["1"]}, InvalidArgument, "dns and the network"),
    ({}, {"network_mode": "container:x", "publish_all_ports": True}, InvalidArgument, "publishing"),
    ({"exposed_ports": {"1": {}}}, {"network_mode": "container:x"}, InvalidArgument, "exposing"),
    *(
        ({"exposed_ports": {port: {}}}, {}, InvalidArgument, "invalid port specification")
        for port in ("nonsense/xyz", "99999/tcp", "9" * 5000)
    ),
    ({"working_dir": "a"}, {}, InvalidArgument, "needs to be an absolute path"),
    ({"env": [""]}, {}, InvalidArgument, "invalid environment variable: "),
    ({"env": ["=x"]}, {}, InvalidArgument, "invalid environment variable: =x"),
    ({"hostname": "h" * 64}, {}, InvalidArgument, "too long"),
    ({"healthcheck": Healthcheck(interval=1)}, {}, InvalidArgument, "Interval in Healthcheck"),
    ({"healthcheck": Healthcheck(retries=-1)}, {}, InvalidArgument, "Retries in Healthcheck"),
    ({}, {"shm_size": -1}, InvalidArgument, "SHM size can not be less than 0"),
    ({}, {"oom_score_adj": 1001}, InvalidArgument, "range for oom score adj is"),
    ({}, {"annotations": {"": "x"}}, InvalidArgument, "empty string is not permitted"),
    ({}, {"isolation": "hyperv"}, InvalidArgument, "linux only supports 'default'"),
    ({}, {"io_maximum_iops": 1}, InvalidArgument, "QoS maximum IOPs"),
    ({}, {"io_maximum_bandwidth": 1}, InvalidArgument, "QoS maximum bandwidth"),
    ({}, {"cpu_shares": -1}, InvalidArgument, "invalid CPU shares"),
    ({}, {"runtime": "runsc"}, InvalidArgument, "unknown or invalid runtime name: runsc"),
    ({"volumes": {"/v": {}}}, {"volume_driver": "x"}, NotFound, 'plugin "x" not found'),
    ({}, {"userns_mode": "private"}, InvalidArgument, "invalid userns mode"),
    ({}, {"storage_opt": {"size": "much"}}, InvalidArgument, "invalid size: 'much'"),
    ({}, {"storage_opt": {"x": ""}}, InvalidArgument, "Unknown option x"),
    ({}, {"cpuset_cpus": "x"}, InvalidArgument, "Invalid value x for cpuset cpus"),
    ({}, {"cpuset_cpus": "9999999999"}, InvalidArgument, "cpuset cpus"),
    ({}, {"cpuset_cpus": "8000"}, InvalidArgument, "Requested CPUs are not available"),
    ({}, {"cpuset_mems": "900"}, InvalidArgument, "Requested memory nodes are not available"),
]


@pytest.mark.parametrize(("config", "host", "kind", "words"), REFUSED)
def test_what_cannot_be_is_refused(
    config: dict[str, object], host: dict[str, object], kind: type[BerthError], words: str
) -> None:
    with pytest.raises(kind) as refused:
        admit(ContainerConfig(**config), HostConfig(**host), EVERYTHING)  # type: ignore[arg-type]
    assert words in refused.value.message


def test_nothing_special_is_admitted_without_a_word() -> None:
    assert (
        admit(ContainerConfig(working_dir="/a/../b/"), HostConfig(runtime="runc"), EVERYTHING) == []
    )


def test_a_working_directory_is_tidied() -> None:
    config = ContainerConfig(working_dir="/a/../b/")
    admit(config, HostConfig(), EVERYTHING)
    assert config.working_dir == "/b"


def test_what_is_left_out_is_said() -> None:
    host = HostConfig(
        network_mode="host",
        port_bindings={"80/tcp": [PortBinding()]},
        oom_kill_disable=True,
        cpu_percent=5,
    )
    warnings = admit(ContainerConfig(), host, EVERYTHING)
    assert [words.split()[0] for words in warnings] == ["linux", "OOM", "Published"]
    assert host.cpu_percent == 0


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("3-1", None), ("", None), ("0,", None), ("-1", None)],
)
def test_sets_of_numbers(text: str, numbers: set[int] | None) -> None:
    assert parse_set(text) == numbers
