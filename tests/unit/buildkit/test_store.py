from __future__ import annotations

from types import SimpleNamespace

import pytest

from berth.buildkit.store import HOST_GATEWAY, Store
from berth.configuration.settings import Held, Settings


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ((), "172.17.0.1"),
        (("10.0.0.1",), "10.0.0.1"),
        (("fd00::1", "10.0.0.1"), "10.0.0.1"),
        (("fd00::1",), "fd00::1"),
    ],
)
def test_clients_are_told_what_host_gateway_is(said, shown):
    services = SimpleNamespace(
        instance=SimpleNamespace(name="default"),
        images=SimpleNamespace(storage=("overlay2", "xfs")),
        network=SimpleNamespace(inspect=lambda _: SimpleNamespace(gateway="172.17.0.1")),
        settings=Held(Settings(host_gateway_ips=said)),
    )
    assert Store(services, None).worker().Labels[HOST_GATEWAY] == shown
