"""What older API versions meant by a request, and what their clients expect in an answer.

Requests are brought to the newest version before the engine sees them; answers are brought back. What only
newer versions leave out (`SLIM_SINCE`), the engine says, and it is taken away here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine.models import PortBinding
from berth.engine.networkmodels import EndpointRequest, NetworkingConfig
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.api.parameters import Version
    from berth.engine.models import CreateRequest, ExecStart, HostConfig, MountRequest

Document = dict[str, object]

READ_ONLY_RECURSIVE_SINCE: Version = (1, 44)
MANIFESTS_SINCE: Version = (1, 47)
SLIM_SINCE: Version = (1, 52)
EMPTY_OF_IMAGES = ("Parent", "Comment", "DockerVersion", "Author")
EMPTY_OF_CONFIGS = (
    *("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"),
)
EMPTY_BINDINGS = (
    "Following container port(s) have an empty list of port-bindings: {}. Starting with API 1.53, such"
    " bindings will be discarded."
)
IMAGE_FILTERS_SINCE: Version = (1, 41)  # before, the name of an image was a parameter
OWN_OPTIONS = (
    ("bind", "bind_options", "BindOptions"),
    ("volume", "volume_options", "VolumeOptions"),
    ("tmpfs", "tmpfs_options", "TmpfsOptions"),
    ("image", "image_options", "ImageOptions"),
)
NAMELESS_NETWORKS = ("host", "none")
MAC_DEPRECATED = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig"
    " instead."
)
DRIVER_IGNORED = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via"
    " 'mount'. Use '--mount type=volume,volume-driver=...' instead"
)


def newest_create(request: CreateRequest, host: HostConfig, version: Version) -> list[str]:
    """Change a request of ``version`` to what the newest one would say; return warnings."""
    if host.network_mode in ("", "default"):
        host.network_mode = "bridge"
    networks = _networks(request)
    if "default" in networks:
        networks[host.network_mode] = networks.pop("default")
    for mount in host.mounts or []:
        _newest_mount(mount, version)
    warnings = _newest_bindings(host, version)
    _newest_host(host, version)
    if version < (1, 44):
        if request.healthcheck is not None:
            request.healthcheck.start_interval = 0
        if len(networks) > 1:
            names = ", ".join(networks)
            raise InvalidArgument(
                f"Container cannot be created with multiple network endpoints: {names}"
            )
    if version < (1, 48):
        for endpoint in networks.values():
            endpoint.gw_priority = 0
    return [*warnings, *_driver_warnings(host, version), *_move_mac(request, host, version)]


def _networks(request: CreateRequest) -> dict[str, EndpointRequest]:
    if request.networking_config is None:
        request.networking_config = NetworkingConfig()
    if request.networking_config.endpoints_config is None:
        request.networking_config.endpoints_config = {}
    return request.networking_config.endpoints_config


def _newest_host(host: HostConfig, version: Version) -> None:
    if version < (1, 40) and not host.ipc_mode:
        host.ipc_mode = "shareable"
    if version < (1, 42):
        host.console_size = None
    if version < (1, 43):
        host.annotations = None
    if host.pids_limit is not None and host.pids_limit <= 0:
        host.pids_limit = None


def _newest_bindings(host: HostConfig, version: Version) -> list[str]:
    """Say what empty lists of bindings meant, any free port; newer versions pass them over."""
    found = host.port_bindings or {}
    empty = [port for port, bindings in found.items() if not bindings]
    for port in empty:
        if version > (1, 52):
            del found[port]
        else:
            found[port] = [PortBinding()]
    return [EMPTY_BINDINGS.format(", ".join(empty))] if empty and version == (1, 52) else []


def _newest_mount(mount: MountRequest, version: Version) -> None:
    for kind, field, name in OWN_OPTIONS:
        if getattr(mount, field) is None or mount.type == kind:
            continue
        if version >= (1, 42):
            raise InvalidArgument(f'{name} must not be specified on mount type "{mount.type}"')
        if kind != "bind":  # a bind's options were always looked at
            setattr(mount, field, None)
    bind, volume = mount.bind_options, mount.volume_options
    if bind is not None:
        bind.non_recursive = bind.non_recursive and version >= (1, 40)
        bind.create_mountpoint = bind.create_mountpoint and version >= (1, 42)
        if bind.read_only_force_recursive and version < READ_ONLY_RECURSIVE_SINCE:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if volume is not None and volume.subpath and version < (1, 45):
        raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
    if mount.type == "image" and version < (1, 48):
        raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')


def _driver_warnings(host: HostConfig, version: Version) -> list[str]:
    if not host.volume_driver or version < (1, 48):
        return []
    volumes = [mount.volume_options for mount in host.mounts or [] if mount.type == "volume"]
    own = [options and options.driver_config and options.driver_config.name for options in volumes]
    return [] if all(own) else [DRIVER_IGNORED]


def _move_mac(request: CreateRequest, host: HostConfig, version: Version) -> list[str]:
    """Give the main network the address that is said for the whole container."""
    mac, networks = request.mac_address, _networks(request)
    has_own = host.network_mode not in NAMELESS_NETWORKS and ":" not in host.network_mode
    if version < (1, 44):
        for endpoint in networks.values():
            endpoint.mac_address = ""
        if mac and not has_own:
            raise InvalidArgument("conflicting options: mac-address and the network mode")
    if mac and has_own:
        main = networks.setdefault(host.network_mode, EndpointRequest())
        if main.mac_address not in ("", mac):
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the"
                " main network, or be left empty"
            )
        main.mac_address = mac
    return [MAC_DEPRECATED] if mac and version >= (1, 44) else []


def newest_exec_start(options: ExecStart, version: Version) -> None:
    """Drop a terminal's size where there is no terminal, or where it was not looked at."""
    if not options.tty or version < (1, 42):
        options.console_size = None


def older_inspect(document: Document, version: Version) -> None:
    """Bring what inspect says to ``version``: names that user-defined networks resolved by themselves."""
    settings, config = document["NetworkSettings"], document["Config"]
    assert isinstance(settings, dict)
    assert isinstance(config, dict)
    if version >= SLIM_SINCE:
        _leave_out_empty(config, ("OnBuild",))
    if version >= (1, 45):
        return
    for name, endpoint in settings["Networks"].items():
        if name not in ("bridge", *NAMELESS_NETWORKS):
            names = [*(endpoint["Aliases"] or ()), str(document["Id"])[:12], config["Hostname"]]
            endpoint["Aliases"] = list(dict.fromkeys(names))


def _leave_out_empty(document: Document, names: Iterable[str]) -> None:
    for name in names:
        if not document.get(name):
            document.pop(name, None)


def older_summary(document: Document, version: Version) -> None:
    """Bring a line of a list to ``version``."""
    if version < (1, 52):
        del document["Health"]
    host = document["HostConfig"]
    if version < (1, 46) and isinstance(host, dict):
        host.pop("Annotations", None)


def older_info(document: Document, version: Version) -> None:
    """Bring the engine's own description to ``version``."""
    if version < (1, 25):
        options = document["SecurityOptions"]
        assert isinstance(options, list)
        document["SecurityOptions"] = [text.split(",")[0].removeprefix("name=") for text in options]
    if version < (1, 46):
        document.pop("Containerd", None)
    if version < (1, 49):
        document.pop("FirewallBackend", None)
    if version < (1, 50):
        document |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
        document.pop("DiscoveredDevices", None)


def older_event(event: Document, version: Version) -> Document:
    """Return an event as ``version`` has it: with words that were for clients before 1.22."""
    actor, kind = event["Actor"], event["Type"]
    assert isinstance(actor, dict)
    if version >= SLIM_SINCE or kind not in ("container", "image"):
        return event
    found: Document = {"status": event["Action"], "id": actor["ID"]}
    if kind == "container":
        found["from"] = actor["Attributes"].get("image", "")
    return {**event, **found}


def older_network(document: Document, version: Version) -> None:
    """Bring a network to ``version``."""
    if version < (1, 52):
        del document["Status"]


def older_image(document: Document, version: Version) -> None:
    """Bring what inspect says of an image to ``version``."""
    older_images([document], version)
    config = document["Config"]
    if version >= SLIM_SINCE:
        _leave_out_empty(document, EMPTY_OF_IMAGES)
        if isinstance(config, dict):
            _leave_out_empty(config, EMPTY_OF_CONFIGS)


def older_images(images: object, version: Version) -> None:
    """Bring images to ``version``: their size had another name as well."""
    if version < (1, 44) and isinstance(images, list):
        for image in images:
            image["VirtualSize"] = image["Size"]
