"""Admission: what a new container may ask for. What it may not is refused in Docker's words."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from berth.configuration.checks import size_bytes
from berth.engine import defaults, networking, resources, spec, support
from berth.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.engine.models import ContainerConfig, Healthcheck, HostConfig
    from berth.engine.support import Support

MAX_HOSTNAME_BYTES = 63
MIN_HEALTH_NS = 1_000_000
ISOLATIONS = ("", "default")
USERNS_MODES = ("", "host")
OOM_SCORES = range(-1000, 1001)
UNBOUND_OOM = (
    "OOM killer is disabled for the container, but no memory limit is set, this can result in the"
    " system running out of resources."
)
PORTS_ON_HOST = "Published ports are discarded when using host network mode"
NO_CPU_PERCENT = "linux does not support CPU percent. Percent discarded."
CPUSETS = (
    ("cpuset_cpus", "cpus", "CPUs", "/sys/devices/system/cpu/online"),
    ("cpuset_mems", "mems", "memory nodes", "/sys/devices/system/node/online"),
)


def admit(config: ContainerConfig, host: HostConfig, limits: Support) -> list[str]:
    """Refuse what cannot be; return warnings about what is left out."""
    if config.network_disabled:
        host.network_mode = "none"
    _check_network_modes(config, host)
    _check_config(config)
    _check_host(host)
    _check_drivers(config, host)
    check_cpusets(host)
    resources.resources(host)  # what makes no sense is refused also where it could not be limited
    return [*support.discard(host, limits), *_warnings(host)]


def _check_network_modes(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse options of a network that the container does not have."""
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.network_mode == "host" and host.links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links."
            " This would result in undefined behavior"
        )
    shared = spec.shared_container(host.network_mode)
    if shared is None:
        return
    if not shared:
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    for given, words in (
        (config.hostname, "hostname and the network mode"),
        (
            host.links,
            "container type network can't be used with links."
            " This would result in undefined behavior",
        ),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if given:
            raise InvalidArgument(f"conflicting options: {words}")


def _check_config(config: ContainerConfig) -> None:
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise InvalidArgument(
                f"the working directory '{config.working_dir}' is invalid, it needs to be an"
                " absolute path"
            )
        config.working_dir = posixpath.normpath(config.working_dir)
    for entry in config.env or []:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if len(config.hostname) > MAX_HOSTNAME_BYTES:
        raise InvalidArgument(
            f'hostname "{config.hostname}" is too long (maximum {MAX_HOSTNAME_BYTES} bytes)'
        )
    for port in config.exposed_ports or ():
        networking.parse_port(port)
    if config.healthcheck is not None:
        check_health(config.healthcheck)


def check_health(health: Healthcheck) -> None:
    """Refuse times and counts that make no sense."""
    for name, value_ns in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value_ns and value_ns < MIN_HEALTH_NS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _check_host(host: HostConfig) -> None:
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if host.oom_score_adj not in OOM_SCORES:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if "" in (host.annotations or {}):
        raise InvalidArgument(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    if host.isolation not in ISOLATIONS:
        raise InvalidArgument(
            f"invalid isolation ({host.isolation}): linux only supports 'default'"
        )
    if host.io_maximum_bandwidth:
        raise InvalidArgument(
            "invalid option: QoS maximum bandwidth configuration is not supported on linux"
        )
    if host.io_maximum_iops:
        raise InvalidArgument(
            "invalid option: QoS maximum IOPs configuration is not supported on linux"
        )
    if host.cpu_shares < 0:
        raise InvalidArgument(
            f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer"
        )
    if host.cpu_realtime_runtime > host.cpu_realtime_period > 0:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if host.console_size is not None and len(host.console_size) != 2:
        raise InvalidArgument("invalid console size: rows and columns are needed")


def _check_drivers(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse what other drivers, runtimes and namespaces would have done."""
    if host.runtime and host.runtime not in defaults.RUNTIMES:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    makes_volumes = config.volumes or any(not bind.startswith("/") for bind in host.binds or [])
    if host.volume_driver not in ("", "local") and makes_volumes:
        name = host.volume_driver
        raise NotFound(f'error looking up volume plugin {name}: plugin "{name}" not found')
    if host.userns_mode not in USERNS_MODES:
        raise InvalidArgument(f"invalid userns mode: {host.userns_mode}")
    if ".." in host.cgroup_parent.split("/"):
        raise InvalidArgument(f"invalid cgroup parent: {host.cgroup_parent}")
    for key, value in (host.storage_opt or {}).items():
        if key.lower() != "size":
            raise InvalidArgument(f"Unknown option {key}")
        size_bytes(value)


def check_cpusets(host: HostConfig) -> None:
    """Refuse processors and memory nodes that this machine does not have."""
    for field, name, noun, online in CPUSETS:
        text: str = getattr(host, field)
        if not text:
            continue
        wanted = parse_set(text)
        if wanted is None:
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}: invalid format: {text}")
        available = _online(online)
        if not wanted <= (parse_set(available) or set()):
            raise InvalidArgument(
                f"Requested {noun} are not available - requested {text}, available: {available}"
            )


def parse_set(text: str) -> set[int] | None:
    """Return the numbers of a list such as "0-3,7"; None when it is none."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return None
        end = int(last) if dash else int(first)
        if end > resources.MAX_CPUS or end < int(first):
            return None
        found.update(range(int(first), end + 1))
    return found


def _online(path: str) -> str:
    try:
        with open(path) as file:  # noqa: PTH123 - a line of sysfs
            return file.read().strip()
    except OSError:  # a kernel without NUMA
        return "0" if "node" in path else f"0-{(os.cpu_count() or 1) - 1}"


def _warnings(host: HostConfig) -> Iterable[str]:
    if host.cpu_percent:
        host.cpu_percent = 0
        yield NO_CPU_PERCENT
    if host.oom_kill_disable and not host.memory:
        yield UNBOUND_OOM
    if host.network_mode == "host" and host.port_bindings:
        yield PORTS_ON_HOST
