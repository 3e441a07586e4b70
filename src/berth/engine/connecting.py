"""Containers and their networks: decided at create, connected at start, changed while they run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from berth.engine import endpoints, failures, hostfiles, links, networking, spec, status
from berth.engine.models import CreateRequest
from berth.errors import BerthError, Conflict, Failed, InvalidArgument, NotFound
from berth.network import shaping
from berth.network.networks import DEFAULT, HOST, NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from berth.engine.containers import Containers
    from berth.engine.models import ContainerConfig, ContainerRecord, HostConfig
    from berth.engine.networkmodels import EndpointRequest
    from berth.engine.records import Records
    from berth.engine.services import Services
    from berth.network.records import EndpointRecord, NetworkRecord, Sandbox
    from berth.network.service import NetworkService
    from berth.runtime.tasks import PreparedTask, Task

SHARED = (
    "container sharing network namespace with another container or host cannot be connected to any"
    " other network"
)
PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
HOSTS = "container cannot be disconnected from host network or connected to host network"


def settle(
    config: ContainerConfig,
    host: HostConfig,
    service: NetworkService,
    *,
    find: Callable[[str], ContainerRecord],
) -> dict[str, EndpointRequest]:
    """Return the networks of a new container by name; refuse what does not go together."""
    asked: dict[str, EndpointRequest] = {}
    if isinstance(config, CreateRequest) and config.networking_config is not None:
        asked = dict(config.networking_config.endpoints_config or {})
    networking.check_mode(config, host, asked)
    endpoints.check_all(asked, service)
    ref = spec.shared_container(host.network_mode)
    if ref is not None:
        _join(config, host, ref, find)
    return networking.settle(host, asked, find=lambda name: _name(service, name))


def _join(
    config: ContainerConfig, host: HostConfig, ref: str, find: Callable[[str], ContainerRecord]
) -> None:
    """Name the container whose network is shared; its host name comes with that."""
    try:
        other = find(ref)
    except NotFound:  # clients would take that for a missing image: its start says what is missing
        return
    host.network_mode = f"{spec.CONTAINER}{other.id}"
    config.hostname, config.domainname = spec.hostname(other), other.config.domainname


def _name(service: NetworkService, ref: str) -> str:
    """Return a network's name; what there is not yet is refused when the container starts."""
    try:
        return service.inspect(ref).name
    except NotFound:
        return ref


def addresses_of(endpoints: Iterable[EndpointRecord]) -> dict[str, list[str]]:
    """Return the addresses that a container has, by the names of its networks."""
    return {e.network_name: [text for text in (e.address, e.address6) if text] for e in endpoints}


def emit(services: Services, endpoint: EndpointRecord, action: str) -> None:
    """Tell listeners that a container was connected or disconnected."""
    driver = services.network.inspect(endpoint.network_id).driver
    attributes = {"container": endpoint.container_id, "name": endpoint.network_name, "type": driver}
    services.events.emit("network", action, endpoint.network_id, attributes)


async def connect(
    services: Services,
    record: ContainerRecord,
    folder: Path,
    records: Records,
    prepared: PreparedTask,
    earlier: Mapping[str, Sequence[str]] | None = None,
) -> Sandbox | None:
    """Connect a container that starts; write what its networks say into its ``folder``.

    ``earlier``: addresses that it is to have again, by its networks.
    """
    request = networking.sandbox_request(record, earlier)
    if request is None:
        return None
    linked = links.hosts(record, services.network, records.find)
    if record.id_maps is not None and networking.gets_namespace(record):
        try:
            request = replace(request, own_netns_fd=await prepared.network())
        except BerthError as error:
            raise failures.of_runtime(error) from error
    sandbox = await services.network.connect(request)
    gateways = services.settings.now.host_gateway_ips
    await hostfiles.apart(
        folder,
        lambda: hostfiles.write(folder, record, sandbox, linked=linked, host_gateways=gateways),
    )
    for endpoint in sandbox.endpoints:
        emit(services, endpoint, "connect")
        if endpoint.network_name == DEFAULT:  # those that are linked with it follow
            for other, lines in list(links.follow(record, records.all(), endpoint.address)):
                theirs = folder.parent / other.id
                await hostfiles.apart(theirs, partial(hostfiles.relink, theirs, lines))
    return sandbox


async def disconnect(
    services: Services, record: ContainerRecord, *, shared: Path | None = None
) -> None:
    """Take a container that ended, or did not start, out of its networks.

    ``shared``: where its files are, when others use them and its network, and go on without.
    """
    endpoints = services.network.endpoints_of(record.id)
    if endpoints:
        record.addresses = addresses_of(endpoints)
    await services.network.disconnect(record.id, is_shared=shared is not None)
    if shared is not None:
        for endpoint in endpoints:
            await hostfiles.apart(shared, partial(hostfiles.update, shared, record, gone=endpoint))
    for endpoint in endpoints:
        emit(services, endpoint, "disconnect")


def keep(services: Services, container_id: str, task: Task) -> None:
    """Let a container's monitor keep what it needs for a later berthd, and nothing that is no more."""
    anew = services.network.has_released(container_id)
    task.keep(services.network.unkept(container_id), anew=anew)


class Connections:
    """Connects and disconnects containers that exist, running or not."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._service = services.network
        self._containers = containers

    async def connect(self, ref: str, network_ref: str, asked: EndpointRequest) -> None:
        """Let a container take part in a network, at once when it runs."""
        record, network = self._containers.find(ref), self._service.inspect(network_ref)
        if not networking.gets_namespace(record):
            await self._containers.unprepare(record)
        async with self._containers.lock(record):
            self._check(record, network)
            endpoints.check(network.name, asked, network)
            if record.status in status.ALIVE:
                request = networking.endpoint_request(network.name, asked)
                request = replace(request, network=network.id)
                namespace = partial(self._containers.task(record).open_file, "ns/net")
                sandbox = await self._service.attach(record.id, request, open_namespace=namespace)
                self._keep(record)
                folder = self._containers.files_folder(record)
                work = partial(hostfiles.update, folder, record, sandbox)
                await hostfiles.apart(folder, work)
                emit(self._services, sandbox.endpoints[-1], "connect")
            record.networks[network.name] = asked
            self._containers.save(record)

    def _keep(self, record: ContainerRecord) -> None:
        """Let the monitor keep what berthd made for a running container since its start."""
        keep(self._services, record.id, self._containers.task(record))

    def _check(self, record: ContainerRecord, network: NetworkRecord) -> None:
        mode = record.host_config.network_mode
        if spec.shared_container(mode) is not None:
            raise InvalidArgument(SHARED)
        if HOST in (network.name, mode) and network.name != mode:
            raise InvalidArgument(HOSTS if network.name == HOST else SHARED)
        is_used = bool(record.networks) or record.status in status.ALIVE
        if NONE in record.networks or (network.name == NONE and is_used):
            raise InvalidArgument(PRIVATE)
        if record.status in (status.REMOVING, status.DEAD):
            raise Conflict(
                f"container {record.id} is marked for removal and cannot be connected or disconnected"
                " to the network"
            )

    async def shape(self, ref: str, network_ref: str, options: dict[str, str] | None) -> None:
        """Change the shape of a container's traffic in a network, for its next starts too."""
        record, network = self._containers.find(ref), self._service.inspect(network_ref)
        async with self._containers.lock(record):
            asked = record.networks.get(network.name)
            if asked is None:
                raise NotFound(f"container {record.id} is not connected to network {network.name}")
            unshaped = {
                key: value
                for key, value in (asked.driver_opts or {}).items()
                if key.removeprefix(shaping.PREFIX) not in shaping.OPTIONS
            }
            options = {**unshaped, **(options or {})}
            shaping.parse(network.options, options)
            if record.status in status.ALIVE:
                await self._service.shape(record.id, network.id, options)
            asked.driver_opts = options or None
            self._containers.save(record)

    async def disconnect(self, ref: str, network_ref: str, *, force: bool) -> None:
        """Take a container out of a network, at once when it runs."""
        try:
            record = self._containers.find(ref)
        except NotFound:
            if force:
                self._service.inspect(network_ref)
                raise NotFound(f"endpoint {ref} not found") from None
            raise
        try:
            network = self._service.inspect(network_ref)
        except NotFound:
            if not await self._forget(record, network_ref):
                raise
            return
        if len(record.networks) == 1:
            await self._containers.unprepare(record)
        async with self._containers.lock(record):
            await self._disconnect(record, network)

    async def _forget(self, record: ContainerRecord, name: str) -> bool:
        """Take a container out of a network that is no more, so that it starts; say whether it was in it."""
        if len(record.networks) == 1:
            await self._containers.unprepare(record)
        async with self._containers.lock(record):
            if record.status in status.ALIVE or name not in record.networks:
                return False
            del record.networks[name]
            record.addresses.pop(name, None)
            self._containers.save(record)
            return True

    async def _disconnect(self, record: ContainerRecord, network: NetworkRecord) -> None:
        if network.name == HOST:
            raise InvalidArgument(HOSTS)
        if record.status in status.ALIVE:
            if network.name not in record.networks:
                raise Failed(f"container {record.id} is not connected to network {network.name}")
            endpoint = await self._service.detach(record.id, network.id)
            if endpoint is not None:  # else berthd was killed while it did this before
                self._keep(record)
                folder = self._containers.files_folder(record)
                work = partial(hostfiles.update, folder, record, gone=endpoint)
                await hostfiles.apart(folder, work)
                emit(self._services, endpoint, "disconnect")
        elif network.name not in record.networks:
            raise Failed(f"container {record.id} is not connected to the network {network.name}")
        del record.networks[network.name]
        record.addresses.pop(network.name, None)
        self._containers.save(record)
