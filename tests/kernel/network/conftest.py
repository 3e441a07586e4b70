"""The host's part of every network test: private, so that the machine's own network is not touched."""

from __future__ import annotations

import os

import pytest

from berth.kernel import namespaces
from support.networks import Engine, Neighbourhood, connect_neighbour


@pytest.fixture
def net():
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        connect_neighbour(outside)
        neighbourhood = Neighbourhood(outside)
        yield neighbourhood
        neighbourhood.close()
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(outside)
        os.close(home)


@pytest.fixture(params=[0, 2], ids=["direct", "spares"])
def engine(request, net, tmp_path):
    """An open network service; with spares the first containers get prepared namespaces."""
    before = len(os.listdir("/proc/self/fd"))
    engine = Engine(tmp_path / "state.db", request.param)
    engine.open()
    yield engine
    engine.finish()
    net.close()
    assert len(os.listdir("/proc/self/fd")) < before, "a descriptor was left open"
