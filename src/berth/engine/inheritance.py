"""What a container gets that nobody said: its image's values and Docker's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.configuration.checks import size_bytes
from berth.engine import defaults, spec
from berth.engine.models import Healthcheck, Ulimit
from berth.engine.networking import is_port

if TYPE_CHECKING:
    from berth.configuration.settings import Settings
    from berth.engine.models import ContainerConfig, HostConfig
    from berth.images.service import Image
    from berth.oci.image import Healthcheck as ImageHealthcheck

NO_NEW_PRIVILEGES = "no-new-privileges"


def inherit(config: ContainerConfig, image: Image) -> None:
    """Give a configuration what its image says and it does not."""
    if not config.entrypoint:
        config.cmd = config.cmd or image.config.cmd
        if config.entrypoint is None:
            config.entrypoint = image.config.entrypoint
    config.user = config.user or image.config.user
    config.working_dir = config.working_dir or image.config.working_dir
    config.labels = {**(image.config.labels or {}), **(config.labels or {})}
    config.stop_signal = config.stop_signal or image.config.stop_signal
    config.shell = config.shell or image.config.shell
    config.healthcheck = _healthcheck(config.healthcheck, image.config.healthcheck)
    exposed = {k: v for k, v in (image.config.exposed_ports or {}).items() if is_port(k)}
    config.exposed_ports = {**exposed, **(config.exposed_ports or {})}


def _healthcheck(asked: Healthcheck | None, given: ImageHealthcheck | None) -> Healthcheck | None:
    """Return the client's check, with the image's test and times where it says none."""
    if given is None:
        return asked
    found = msgspec.to_builtins(given)
    if asked is not None:
        said = msgspec.to_builtins(asked)
        found |= {name: value for name, value in said.items() if value}
    return msgspec.convert(found, Healthcheck)


def fill_in(host: HostConfig, settings: Settings) -> None:
    """Give a host configuration the engine's values, and those that inspect shows, for what was not said."""
    if host.memory > 0 and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    host.shm_size = host.shm_size or size_bytes(settings.default_shm_size)
    host.ipc_mode = host.ipc_mode or settings.default_ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or (
        "host" if host.privileged else settings.default_cgroupns_mode or "private"
    )
    host.cgroup_parent = host.cgroup_parent or settings.cgroup_parent
    if host.init is None and settings.init:
        host.init = True
    _disable_labels(host)
    _fill_in_logs(host, settings)
    _fill_in_ulimits(host, settings)
    _fill_in_names(host, settings)
    said = any(option.startswith(NO_NEW_PRIVILEGES) for option in host.security_opt or [])
    if settings.no_new_privileges and not said:
        host.security_opt = [*(host.security_opt or []), NO_NEW_PRIVILEGES]
    host.restart_policy.name = host.restart_policy.name or "no"
    host.runtime = host.runtime or defaults.RUNTIME


def _disable_labels(host: HostConfig) -> None:
    """Note that SELinux would not confine it, as Docker does."""
    shares = host.privileged or "host" in (host.ipc_mode, host.pid_mode)
    options = host.security_opt or []
    if shares and not any(option.startswith("label") for option in options):
        host.security_opt = [*options, "label=disable"]


def _fill_in_logs(host: HostConfig, settings: Settings) -> None:
    """Choose the driver; the engine's options are for the engine's driver only."""
    config = host.log_config
    config.type = config.type or settings.log_driver
    if config.type == settings.log_driver:
        config.config = {**settings.log_opts, **(config.config or {})}


def _fill_in_ulimits(host: HostConfig, settings: Settings) -> None:
    said = {limit.name for limit in host.ulimits or []}
    more = [
        Ulimit(name=name, soft=limit.soft, hard=limit.hard)
        for name, limit in settings.default_ulimits.items()
        if name not in said
    ]
    if more:
        host.ulimits = [*(host.ulimits or []), *more]


def _fill_in_names(host: HostConfig, settings: Settings) -> None:
    if spec.shared_container(host.network_mode) is None:
        host.dns = host.dns or list(settings.dns)
        host.dns_options = host.dns_options or list(settings.dns_opts)
        host.dns_search = host.dns_search or list(settings.dns_search)
