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


def test_a_container_of_the_engine_does_not_keep_it_from_starting() -> None:
    """Root in a container with the host's network can bind what it likes."""
    hierarchies = cgroups.detect()
    hierarchies.prepare_parent(f"{INSTANCE.cgroup}/std", [])
    group = hierarchies.open_group(f"{INSTANCE.cgroup}/std/container")
    group.create()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0berth/{INSTANCE.name[:6]}")
    try:
        with sock, Waiting(sock.listen) as holder:  # who listens has it
            with pytest.raises(Conflict):
                identity.hold(INSTANCE, ROOT)
            group.add(holder.pid)
            identity.hold(INSTANCE, ROOT).close()
    finally:
        hierarchies.open_group(INSTANCE.cgroup).remove()
