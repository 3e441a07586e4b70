"""Devices by the Container Device Interface, and requests for drivers that are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.engine import EngineProcess
    from support.programs import Outcome

    Cli = Callable[..., Outcome]

RUN = ("run", "--rm", "--network", "none")
KIND = f"berth{os.getpid()}.test/thing"

pytestmark = pytest.mark.berth_only  # the reference is older than this interface


@pytest.fixture
def described(tmp_path: Path) -> Iterator[dict[str, object]]:
    """A kind of device with one device, `one`, which a test may change before it is written."""
    (tmp_path / "library").write_text("the vendor's\n")
    folder, path = Path("/run/cdi"), Path("/run/cdi", f"berth-test-{os.getpid()}.json")
    existed = folder.is_dir()
    folder.mkdir(exist_ok=True)
    bind = {
        "hostPath": f"{tmp_path}/library",
        "containerPath": "/lib/vendor",
        "options": ["ro", "bind"],
    }
    description: dict[str, object] = {
        "cdiVersion": "0.6.0",
        "kind": KIND,
        "containerEdits": {"env": ["ALL=yes"], "mounts": [bind]},
        "devices": [
            {
                "name": "one",
                "containerEdits": {
                    "env": ["ONE=yes"],
                    "deviceNodes": [
                        {
                            "path": "/dev/thing",
                            "hostPath": "/dev/null",
                            "permissions": "rw",
                            "uid": 1000,
                        }
                    ],
                    "additionalGids": [77],
                },
            }
        ],
    }
    path.write_text(json.dumps(description))
    try:
        yield description
    finally:
        path.unlink()
        if not existed:
            folder.rmdir()


def test_a_described_device_brings_nodes_files_variables_and_groups(
    cli: Cli, described: dict[str, object]
) -> None:
    script = (
        "echo $ALL $ONE; cat /lib/vendor; stat -c '%u %t:%T' /dev/thing; echo > /dev/thing; id -G"
    )
    done = cli(*RUN, "--device", f"{KIND}=one", "busybox", "sh", "-c", script)
    assert done.code == 0, str(done)
    assert done.lines[:3] == ["yes yes", "the vendor's", "1000 1:3"]
    assert "77" in done.lines[3].split()


def test_a_device_that_nobody_describes_is_refused(cli: Cli, described: dict[str, object]) -> None:
    done = cli(*RUN, "--device", f"{KIND}=two", "busybox", "true")
    assert done.code == 125
    assert f"CDI device injection failed: unresolvable CDI devices {KIND}=two" in done.err


def test_devices_that_need_hooks_are_refused(cli: Cli, described: dict[str, object]) -> None:
    described["containerEdits"] = {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}
    Path("/run/cdi", f"berth-test-{os.getpid()}.json").write_text(json.dumps(described))
    done = cli(*RUN, "--device", f"{KIND}=one", "busybox", "true")
    assert done.code == 125
    assert "hooks" in done.err


def test_gpus_without_a_driver_are_refused_in_dockers_words(cli: Cli) -> None:
    done = cli(*RUN, "--gpus", "all", "busybox", "true")
    assert done.code == 125
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.err


def test_info_tells_where_descriptions_are_looked_for(engine: EngineProcess) -> None:
    _, info = engine.request("GET", "/info")
    assert info["CDISpecDirs"] == ["/etc/cdi", "/var/run/cdi"]
