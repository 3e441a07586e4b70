"""What a container gets of its image, which is anybody's."""

from __future__ import annotations

from types import SimpleNamespace

from berth.engine import networking
from berth.engine.inheritance import inherit
from berth.engine.models import ContainerConfig, HostConfig
from berth.oci.image import ImageConfig

ODD = ("nonsense/xyz", "99999/tcp", "", "0", "²/tcp", "9" * 5000)


def test_ports_that_are_none_are_not_taken_over() -> None:
    config = ContainerConfig()
    said = {port: {} for port in (*ODD, "80/tcp")}
    image = SimpleNamespace(config=ImageConfig(exposed_ports=said))
    inherit(config, image)  # type: ignore[arg-type]  # of images it is what counts
    assert set(config.exposed_ports or ()) == {"80/tcp"}


def test_a_container_that_has_such_ports_can_be_shown() -> None:
    """All of them are listed at once."""
    config = ContainerConfig(exposed_ports={port: {} for port in (*ODD, "53/udp")})
    record = SimpleNamespace(config=config, host_config=HostConfig())
    assert networking.exposed_ports(record) == ["53/udp"]  # type: ignore[arg-type]
