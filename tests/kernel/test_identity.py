"""Who may keep an engine from starting by the socket that engines know of each other by."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from berth.engine import identity
from berth.engine.instance import Instance
from berth.errors import Conflict
from berth.kernel import cgroups
from support.forks import Waiting

ROOT = Path(f"/nowhere/berth/identity-{os.getpid()}")
INSTANCE = Instance.of(ROOT)


@pytest.mark.parametrize("parent", ["std", "elsewhere"])
def test_a_container_of_the_engine_does_not_keep_it_from_starting(
    tmp_path: Path, parent: str
) -> None:
    """Root in a container with the host's network can bind what it likes."""
    container = "0123456789abcdef" * 4
    (tmp_path / "containers" / container).mkdir(parents=True)
    hierarchies = cgroups.detect()
    hierarchies.prepare_parent(f"{INSTANCE.cgroup}/{parent}", [])
    group = hierarchies.open_group(f"{INSTANCE.cgroup}/{parent}/{container}")
    group.create()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0berth/{INSTANCE.name[:6]}")
    try:
        with sock, Waiting(sock.listen) as holder:  # who listens has it
            with pytest.raises(Conflict):
                identity.hold(INSTANCE, tmp_path)
            group.add(holder.pid)
            identity.hold(INSTANCE, tmp_path).close()
    finally:
        hierarchies.open_group(INSTANCE.cgroup).remove()


def test_who_has_listened_and_gone_is_no_engine() -> None:
    """The credentials that the kernel tells are those of whoever listened."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0berth/{INSTANCE.name[:6]}")
    with sock:
        with Waiting(sock.listen), pytest.raises(Conflict):
            identity.hold(INSTANCE, ROOT)
        identity.hold(INSTANCE, ROOT).close()
