"""How containers are made: from what a client asks for to a record and the files that belong to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from berth.engine import (
    connecting,
    hostfiles,
    identities,
    imagemounts,
    links,
    logtargets,
    mountpoints,
    networking,
    security,
    sources,
    spec,
    storage,
)
from berth.engine.inheritance import fill_in, inherit
from berth.engine.models import ContainerConfig, ContainerRecord, CreateRequest, HostConfig
from berth.engine.restart import check_policy
from berth.engine.signals import signal_number

if TYPE_CHECKING:
    from berth.engine.records import Records
    from berth.engine.services import Services
    from berth.images.service import Image
    from berth.oci.platform import Platform


class Creation:
    """Makes the containers of an engine."""

    def __init__(self, services: Services, records: Records) -> None:
        self._services = services
        self._records = records

    async def create(
        self,
        id_: str,
        config: ContainerConfig,
        name: str | None,
        host_config: HostConfig,
        platform: Platform | None,
        *,
        recursive_read_only: bool,
    ) -> ContainerRecord:
        """Make one with an id, and all that belongs to it; nothing is left when it cannot be made."""
        image = self._services.images.resolve(config.image, platform)
        networks = connecting.settle(
            config, host_config, self._services.network, find=self._records.find
        )
        if isinstance(config, CreateRequest):
            config = config.config()
        record = ContainerRecord(
            id=id_,
            name=self._records.claim_name(name),
            created_ns=time.time_ns(),
            image_id=image.id,
            config=config,
            host_config=host_config,
            args=spec.arguments(config, image.config),
            env=spec.environment(config, image.config),
            networks=networks,
            id_maps=identities.maps(host_config, self._services.id_maps),
        )
        volumes = {**(image.config.volumes or {}), **(config.volumes or {})}
        inherit(config, image)
        fill_in(host_config, self._services.settings.now)
        lent = mountpoints.borrowed(host_config, self._records.find)
        record.mount_points = mountpoints.requested(host_config, volumes, lent)
        for point in record.mount_points:
            point.read_only_recursive &= recursive_read_only
        imagemounts.resolve(record, self._services.images)
        self._check(record)
        await self._make(record, image)
        return record

    def _check(self, record: ContainerRecord) -> None:
        """Refuse what cannot be started later."""
        host = record.host_config
        spec.check_modes(host)
        storage.check(host, self._services.limits)
        spec.check_directory(record.config.working_dir)
        added = self._services.cdi.edits(host)
        spec.build(record, cgroup=self._services.instance.cgroup, added=added)
        networking.port_requests(record)
        links.settle(host, self._records.find)
        check_policy(host)
        security.seccomp_filter(host)
        logtargets.check(record)
        if record.config.stop_signal:
            signal_number(record.config.stop_signal)
        sources.check(record.mount_points)

    async def _make(self, record: ContainerRecord, image: Image) -> None:
        """Store the container with all that belongs to it; undo everything on failure."""
        folder = self._services.data_root / "containers" / record.id
        folder.mkdir(mode=0o710)
        made: list[str] = []
        try:
            with self._services.state.transaction(durable=True):
                limit = storage.limit_bytes(record.host_config, self._services.settings.now)
                self._services.images.prepare_rootfs(image, record.id, limit_bytes=limit)
                imagemounts.prepare(record, self._services.images)
                made = self._resolve_volumes(record)
                self._records.put(record)
            await imagemounts.fill(record, self._services.images)
            await self._fill_volumes(record, image)
        except BaseException:
            self._records.remove(record)
            hostfiles.remove_tree(folder)
            await imagemounts.remove(record, self._services.images)
            for volume in made:
                if not self._records.users_of(
                    volume
                ):  # else another container was made with it meanwhile
                    await self._services.volumes.remove(volume, force=True, users=())
            raise

    def _resolve_volumes(self, record: ContainerRecord) -> list[str]:
        """Make the volumes that do not exist yet; return those that were made."""
        volumes = self._services.volumes
        made = []
        for point in record.mount_points:
            if point.kind != "volume":
                continue
            is_new = not volumes.has(point.volume)
            volume = volumes.create(
                point.volume,
                driver=point.driver.name if point.driver else "local",
                labels=point.labels,
                options=point.driver.options if point.driver else None,
            )
            if is_new:
                made.append(volume.name)
                self._services.events.emit("volume", "create", volume.name, {"driver": "local"})
            point.volume = volume.name
            point.source = str(volumes.path(volume.name))
            point.from_elsewhere = volumes.is_mounted_from_elsewhere(volume.name)
        return made

    async def _fill_volumes(self, record: ContainerRecord, image: Image) -> None:
        if image.is_of_host:  # this machine's files are for looking at, not for copying
            return
        lower = self._services.images.view(record.id)
        for point in record.mount_points:
            if point.kind == "volume" and not point.no_copy:
                await self._services.volumes.fill(
                    point.volume, lower, point.target, subpath=point.subpath
                )
