"""What a container gets that nobody said: its image's values and Docker's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from berth.engine import defaults
from berth.engine.models import Healthcheck

if TYPE_CHECKING:
    from berth.engine.models import ContainerConfig, HostConfig
    from berth.images.service import Image
    from berth.oci.image import Healthcheck as ImageHealthcheck


def inherit(config: ContainerConfig, image: Image) -> None:
    """Give a configuration what its image says and it does not."""
    config.user = config.user or image.config.user
    config.working_dir = config.working_dir or image.config.working_dir
    config.labels = {**(image.config.labels or {}), **(config.labels or {})}
    config.stop_signal = config.stop_signal or image.config.stop_signal
    config.shell = config.shell or image.config.shell
    config.healthcheck = _healthcheck(config.healthcheck, image.config.healthcheck)
    config.exposed_ports = {**(image.config.exposed_ports or {}), **(config.exposed_ports or {})}


def _healthcheck(asked: Healthcheck | None, given: ImageHealthcheck | None) -> Healthcheck | None:
    """Return the client's check, with the image's test and times where it says none."""
    if given is None:
        return asked
    found = msgspec.to_builtins(given)
    if asked is not None:
        said = msgspec.to_builtins(asked)
        found |= {name: value for name, value in said.items() if value}
    return msgspec.convert(found, Healthcheck)


def fill_in(host: HostConfig) -> None:
    """Give a host configuration the values that inspect shows for what was not said."""
    if host.memory > 0 and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    host.shm_size = host.shm_size or defaults.SHM_SIZE_BYTES
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or ("host" if host.privileged else "private")
    host.log_config.type = host.log_config.type or "json-file"
    host.restart_policy.name = host.restart_policy.name or "no"
    host.runtime = host.runtime or defaults.RUNTIME
