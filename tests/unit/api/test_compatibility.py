"""What older clients mean, and what they are answered."""

from __future__ import annotations

import pytest

from berth.api import compatibility
from berth.engine.models import (
    BindOptions,
    CreateRequest,
    EndpointRequest,
    ExecStart,
    Healthcheck,
    HostConfig,
    MountRequest,
    NetworkingConfig,
    PortBinding,
    VolumeOptions,
)
from berth.errors import InvalidArgument

NOW = (1, 56)


def newest(
    version: tuple[int, int], *, request: CreateRequest | None = None, **host: object
) -> tuple[CreateRequest, HostConfig, list[str]]:
    """Bring a request to the newest version; return it with its warnings."""
    request = request or CreateRequest(image="x")
    config = HostConfig(**host)  # type: ignore[arg-type]
    return request, config, compatibility.newest_create(request, config, version)


def test_the_default_network_gets_its_name() -> None:
    asked = NetworkingConfig(endpoints_config={"default": EndpointRequest(aliases=["a"])})
    request, host, _ = newest(NOW, request=CreateRequest(image="x", networking_config=asked))
    assert host.network_mode == "bridge"
    assert request.networking_config is not None
    assert list(request.networking_config.endpoints_config or ()) == ["bridge"]


def test_older_versions_do_not_know_newer_fields() -> None:
    request = CreateRequest(image="x", healthcheck=Healthcheck(start_interval=5))
    bind = MountRequest(
        source="/a",
        target="/b",
        bind_options=BindOptions(create_mountpoint=True, non_recursive=True),
    )
    request, host, _ = newest(
        (1, 39), request=request, mounts=[bind], annotations={"a": "b"}, console_size=[1, 2]
    )
    assert request.healthcheck == Healthcheck()
    assert (host.annotations, host.console_size, host.ipc_mode) == (None, None, "shareable")
    assert bind.bind_options == BindOptions()
    assert newest(NOW, annotations={"a": "b"})[1].annotations == {"a": "b"}


def test_options_of_another_kind_of_mount_are_refused_since_they_are_looked_at() -> None:
    mount = MountRequest(type="bind", source="/a", target="/b", volume_options=VolumeOptions())
    with pytest.raises(InvalidArgument, match=r'VolumeOptions must not be .* mount type "bind"'):
        newest((1, 42), mounts=[mount])
    newest((1, 41), mounts=[mount])
    assert mount.volume_options is None


@pytest.mark.parametrize(
    ("version", "mount", "words"),
    [
        (
            (1, 43),
            MountRequest(bind_options=BindOptions(read_only_force_recursive=True)),
            "ReadOnlyForceRecursive needs API v1.44",
        ),
        (
            (1, 44),
            MountRequest(type="volume", volume_options=VolumeOptions(subpath="x")),
            "Subpath needs API v1.45",
        ),
        ((1, 47), MountRequest(type="image"), '"Image" needs API v1.48'),
    ],
)
def test_what_must_not_be_passed_over_is_refused(
    version: tuple[int, int], mount: MountRequest, words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        newest(version, mounts=[mount])


def test_several_networks_at_once_are_newer() -> None:
    def asked() -> CreateRequest:
        networks = {"a": EndpointRequest(), "b": EndpointRequest()}
        return CreateRequest(
            image="x", networking_config=NetworkingConfig(endpoints_config=networks)
        )

    with pytest.raises(InvalidArgument, match="multiple network endpoints: a, b"):
        newest((1, 43), request=asked())
    assert newest((1, 44), request=asked())[2] == []


def test_the_address_of_the_whole_container_becomes_its_main_networks() -> None:
    request, _, warnings = newest((1, 43), request=CreateRequest(image="x", mac_address="m"))
    assert request.networking_config is not None
    assert request.networking_config.endpoints_config == {
        "bridge": EndpointRequest(mac_address="m")
    }
    assert warnings == []
    assert newest((1, 51), request=CreateRequest(image="x", mac_address="m"))[2] == [
        compatibility.MAC_DEPRECATED
    ]
    with pytest.raises(InvalidArgument, match="mac-address and the network mode"):
        newest(
            (1, 43), request=CreateRequest(image="x", mac_address="m"), network_mode="container:y"
        )
    networks = NetworkingConfig(endpoints_config={"bridge": EndpointRequest(mac_address="n")})
    with pytest.raises(InvalidArgument, match="must match the endpoint-specific"):
        newest(
            (1, 51),
            request=CreateRequest(image="x", mac_address="m", networking_config=networks),
        )


def test_no_binding_is_any_free_port_and_no_limit_is_none() -> None:
    _, host, _ = newest((1, 51), port_bindings={"80/tcp": []}, pids_limit=-1)
    assert host.port_bindings == {"80/tcp": [PortBinding()]}
    assert host.pids_limit is None


def test_a_size_needs_a_terminal() -> None:
    for options, version, size in (
        (ExecStart(tty=True, console_size=[1, 2]), NOW, [1, 2]),
        (ExecStart(tty=False, console_size=[1, 2]), NOW, None),
        (ExecStart(tty=True, console_size=[1, 2]), (1, 41), None),
    ):
        compatibility.newest_exec_start(options, version)
        assert options.console_size == size


def test_answers_are_brought_back() -> None:
    document: dict[str, object] = {
        "Id": "0123456789abcdef",
        "Config": {"Hostname": "h"},
        "NetworkSettings": {"Networks": {"bridge": {"Aliases": None}, "n": {"Aliases": ["a"]}}},
    }
    compatibility.older_inspect(document, (1, 44))
    assert document["NetworkSettings"] == {
        "Networks": {"bridge": {"Aliases": None}, "n": {"Aliases": ["a", "0123456789ab", "h"]}}
    }
    info: dict[str, object] = {"SecurityOptions": ["name=seccomp,profile=x"]}
    compatibility.older_info(info, (1, 24))
    assert info["SecurityOptions"] == ["seccomp"]
    assert info["BridgeNfIptables"] is False
    images = [{"Size": 5}]
    compatibility.older_images(images, (1, 43))
    compatibility.older_images(images, NOW)
    assert images == [{"Size": 5, "VirtualSize": 5}]
