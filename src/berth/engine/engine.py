"""The engine as its API sees it: nouns with their verbs, and documents about them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from berth.engine import (
    admission,
    documents,
    imagemounts,
    links,
    logtargets,
    metrics,
    networksettings,
    reloading,
    stats,
    status,
    system,
)
from berth.engine.checkpoints import Checkpoints
from berth.engine.commits import Commits
from berth.engine.documents import Surroundings
from berth.engine.files import Files
from berth.engine.filters import ContainerFilter, PruneFilter, event_passes
from berth.engine.images import Images
from berth.engine.manifests import Manifests
from berth.engine.networks import Networks
from berth.engine.pulls import Pulls
from berth.engine.pushes import Pushes
from berth.engine.searches import Searches
from berth.engine.volumes import Volumes
from berth.images import documents as image_documents
from berth.images import manifests as image_manifests
from berth.images.records import ImageUser
from berth.logs import reader
from berth.oci import times
from berth.oci.platform import Platform
from berth.oci.reference import Reference
from berth.registry.auth import Credentials
from berth.runtime import logfile, top

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from berth.configuration.settings import Settings
    from berth.engine.containers import Containers
    from berth.engine.events import Event
    from berth.engine.execs import Execs
    from berth.engine.health import Health
    from berth.engine.models import ContainerConfig, ContainerRecord, HostConfig
    from berth.engine.services import Services
    from berth.images.check import Report as StoreReport
    from berth.logs.entries import LogQuery
    from berth.network.records import NetworkRecord

STATS_INTERVAL_S = 1.0

Document = dict[str, object]


class Engine:
    """What the API needs of everything below it."""

    def __init__(
        self, services: Services, *, containers: Containers, execs: Execs, health: Health
    ) -> None:
        self._services = services
        self.containers = containers
        self.execs = execs
        self._health = health
        self.images = Images(services.images, services.events, users=self.image_users)
        self.manifests = Manifests(services.registry)
        self.searches = Searches(services.registry)
        self.pulls = Pulls(
            images=services.images, registry=services.registry, events=services.events
        )
        self.pushes = Pushes(
            images=services.images, registry=services.registry, events=services.events
        )
        self.volumes = Volumes(services, containers)
        self.files = Files(services, containers)
        self.checkpoints = Checkpoints(services, containers)
        self.commits = Commits(services, containers, self.files)
        self.networks = Networks(services, containers)

    async def close(self) -> None:
        """Let go of what berthd holds; containers go on."""
        await self._services.network.close()
        await self._services.images.close()

    # Containers

    async def create(
        self,
        config: ContainerConfig,
        *,
        name: str | None,
        host: HostConfig,
        platform: str = "",
        recursive_read_only: bool = True,
    ) -> tuple[ContainerRecord, list[str]]:
        """Make a container; return it and warnings.

        ``recursive_read_only``: what is read-only is so with the mounts below it.
        """
        warnings = admission.admit(config, host, self._services.support)
        wanted = Platform.parse(platform) if platform else None
        record = await self.containers.create(
            config,
            name=name,
            host_config=host,
            platform=wanted,
            recursive_read_only=recursive_read_only,
        )
        return record, warnings

    async def restart(
        self, ref: str, *, signal_name: str | None = None, timeout_s: int | None
    ) -> None:
        """Stop the container if it runs, then start it."""
        await self.containers.restart(ref, signal_name=signal_name, timeout_s=timeout_s)

    def summaries(
        self, *, all_: bool, limit: int | None, filters: Mapping[str, Sequence[str]]
    ) -> list[Document]:
        """Return summaries of the running containers, or of ``all_``; the youngest ``limit``."""
        service = self._services.network
        passes = ContainerFilter(
            filters,
            find=self.containers.find,
            health=self._health.word,
            ports=lambda record: networksettings.summary_ports(
                record, service.endpoints_of(record.id)
            ),
            networks=lambda: {network.id: network.name for network in service.networks()},
        )
        everything = all_ or bool(limit and limit > 0) or passes.includes_ended
        found = [
            record
            for record in self.containers.all()
            if (everything or record.status in (*status.ALIVE, status.RESTARTING))
            and passes(record)
        ]
        kept = found[:limit] if limit and limit > 0 else found
        linking = [record for record in self.containers.all() if record.host_config.links]
        networks = self._networks_by_name()
        return [
            documents.summary(record, self._around(record, networks, linking)) for record in kept
        ]

    def _networks_by_name(self) -> dict[str, NetworkRecord]:
        return {found.name: found for found in self._services.network.networks()}

    def _around(
        self,
        record: ContainerRecord,
        networks: Mapping[str, NetworkRecord],
        linking: Sequence[ContainerRecord] = (),
    ) -> Surroundings:
        network = self._services.network
        return Surroundings(
            folder=self.containers.data_folder(record),
            files_folder=self.containers.files_folder(record),
            endpoints=network.endpoints_of(record.id),
            networks=networks,
            health=self._health.of(record),
            names=links.names(record, linking) if linking else None,
        )

    def inspect(self, ref: str) -> Document:
        """Return everything about a container."""
        record = self.containers.find(ref)
        around = replace(
            self._around(record, self._networks_by_name()),
            driver=self._services.images.storage[0],
            rootfs=self._services.images.rootfs(record.id),
            exec_ids=tuple(self.execs.running_in(record.id)),
        )
        return documents.inspect(record, around)

    async def sizes(self, ref: str) -> Document:
        """Return SizeRw and SizeRootFs of a container, in bytes."""
        record = self.containers.find(ref)
        size = await self._services.images.rootfs_size(record.id)
        images = [i for i in self._services.images.all() if i.id == record.image_id]
        return {"SizeRw": size, "SizeRootFs": size + sum(image.size_bytes for image in images)}

    async def top(self, ref: str, ps_args: str = "") -> Document:
        """Return the processes of a container; there may be ten thousands."""
        record = self.containers.find(ref)
        status.require_alive(record)
        group = self.containers.cgroup(record)
        found = await asyncio.to_thread(lambda: top.document(group.pids(), ps_args))
        self.containers.emit(record, "top")
        return found

    async def stats(
        self, ref: str, *, stream: bool, one_shot: bool = False
    ) -> AsyncIterator[Document]:
        """Yield what a container uses: once a second, or a single time (with rates or without)."""
        record = self.containers.find(ref)
        group = self.containers.cgroup(record)
        previous: Document | None = None
        if not stream and not one_shot and record.status in status.ALIVE:
            previous = stats.sample(record, group, None)
            await asyncio.sleep(STATS_INTERVAL_S)
        while True:
            previous = stats.sample(record, group, previous)
            yield previous
            if not stream or not self.containers.has(record):
                return
            await asyncio.sleep(STATS_INTERVAL_S)

    def logs(
        self, record: ContainerRecord, query: LogQuery, *, raw: bool = False
    ) -> AsyncIterator[bytes]:
        """Yield the log as clients get it: framed, but ``raw`` and that of a terminal as it was written."""
        format_ = logtargets.reading(record)
        if record.status not in (*status.ALIVE, status.RESTARTING):
            query = replace(query, follow=False)
        return reader.read_frames(
            self.containers.log_path(record),
            query,
            terminal=raw or record.config.tty,
            ended=self.containers.ended(record),
            format_=format_,
        )

    async def clear_logs(self, ref: str) -> None:
        """Forget what a container wrote so far."""
        record = self.containers.find(ref)
        logtargets.reading(record)
        if record.status in status.ALIVE:
            await self.containers.task(record).clear_log()
            return
        async with self.containers.hold(record):
            logfile.remove(str(self.containers.log_path(record)))

    async def prune_containers(self, filters: Mapping[str, Sequence[str]]) -> Document:
        """Remove the containers that do not run."""
        passes = PruneFilter(filters)
        sizes: dict[str, int] = {}
        for record in self.containers.all():
            if record.status not in (*status.ALIVE, status.RESTARTING):
                sizes[record.id] = await self._services.images.rootfs_size(record.id)
        removed = await self.containers.prune(lambda r: passes(r.config.labels, r.created_ns))
        reclaimed = sum(sizes.get(record.id, 0) for record in removed)
        self._services.events.emit("container", "prune", "", {"reclaimed": str(reclaimed)})
        return {
            "ContainersDeleted": [record.id for record in removed] or None,
            "SpaceReclaimed": reclaimed,
        }

    # Images

    def image_list(
        self,
        filters: Mapping[str, Sequence[str]],
        *,
        all_: bool,
        manifests: bool,
        shared_size: bool,
    ) -> list[Document]:
        """Return summaries of the images that pass; with ``all_`` also of steps of builds.

        ``manifests``: one a name, with its platforms. ``shared_size``: what each shares is counted.
        """
        images = self._services.images
        found = images.list(filters=filters, steps=all_)
        if not manifests:
            shared = images.shared_bytes()[0] if shared_size else {}
            return [
                image_documents.summary(image, shared_bytes=shared.get(image.id, -1))
                for image in found
            ]
        users = self._containers_by_image()
        groups = image_manifests.groups(found)
        return [image_manifests.summary(group, images.content, users) for group in groups]

    def image_inspect(
        self, ref: str, platform: Platform | None = None, *, manifests: bool = False
    ) -> Document:
        """Return everything about an image; ``manifests``: and what else has its name."""
        images = self._services.images
        image = images.resolve(ref, platform)
        shown = image_documents.inspect(image, driver=images.storage[0])
        if manifests:
            groups = image_manifests.groups(images.all())
            group = next(group for group in groups if image in group)
            users = self._containers_by_image()
            shown["Manifests"] = image_manifests.described(group, images.content, users)
        return shown

    def _containers_by_image(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for record in self.containers.all():
            found.setdefault(record.image_id, []).append(record.id)
        return found

    def image_history(self, ref: str, platform: Platform | None = None) -> Sequence[Document]:
        """Return the steps in which an image came about."""
        images = self._services.images
        return images.history(images.resolve(ref, platform))

    async def distribution(self, name: str, *, auth: str) -> Document:
        """Return what a registry has under a name."""
        found = await self._services.registry.look(Reference.parse(name), Credentials.decode(auth))
        return image_documents.distribution(found.descriptor, found.platforms)

    def download(
        self, source: str, progress: Callable[[Mapping[str, object]], None]
    ) -> AsyncIterator[bytes]:
        """Yield a file of the web."""
        return self._services.registry.download(source, progress)

    async def login(self, credentials: Credentials) -> Document:
        """Ask a registry about credentials; nothing is kept."""
        token = await self._services.registry.login(credentials)
        return {"Status": "Login Succeeded", "IdentityToken": token}

    def image_users(self) -> list[ImageUser]:
        """Return the containers there are, for those who remove images."""
        return [
            ImageUser(
                container_id=record.id,
                image_id=image_id,
                running=record.status in (*status.ALIVE, status.RESTARTING),
            )
            for record in self.containers.all()
            for image_id in (record.image_id, *imagemounts.images(record))
        ]

    # System

    async def events_stream(
        self, since: str, until: str, filters: Mapping[str, Sequence[str]]
    ) -> AsyncIterator[Event]:
        """Yield events, first the known ones since ``since``, then as they happen until ``until``."""
        until_ns = times.moment_ns(until) if until else None
        events = self._services.events
        with events.listen_for_client() as queue:
            for event in events.since(times.moment_ns(since)) if since else []:
                if not _is_after(event, until_ns) and event_passes(event, filters):
                    yield event
            while True:
                try:
                    async with asyncio.timeout(_seconds_until(until_ns)):
                        event = await queue.get()
                except TimeoutError:
                    return
                if event_passes(event, filters):
                    yield event

    def version(self) -> Document:
        """Return the engine's version as Docker's clients read it."""
        return system.version()

    def reload(self, fresh: Settings) -> None:
        """Let new settings hold, as far as they can in an engine that runs, and tell listeners."""
        services = self._services
        now = reloading.reloaded(services.settings.now, fresh)
        services.registry.configure(mirrors=now.registry_mirrors, insecure=now.insecure_registries)
        services.settings.now = now
        services.events.emit("daemon", "reload", services.instance.name, reloading.attributes(now))

    def metrics(self) -> str:
        """Return the engine's numbers in Prometheus' text format."""
        return metrics.render(self._services, self.containers.all())

    def info(self) -> Document:
        """Return what the engine has and where it runs."""
        return system.info(self._services, self.containers.all())

    async def check_store(self, *, repair: bool) -> StoreReport:
        """Verify every blob, image and layer; with ``repair`` remove what is broken."""
        return await self._services.images.check(users=self.image_users(), repair=repair)

    async def disk_usage(self) -> Document:
        """Return what images, containers and volumes take."""
        records = self.containers.all()
        users = Counter(record.image_id for record in records)
        shared, layers = self._services.images.shared_bytes()
        images = [
            image_documents.summary(
                image, containers=users[image.id], shared_bytes=shared[image.id]
            )
            for image in self._services.images.all()
        ]
        containers, networks = [], self._networks_by_name()
        for record in records:
            found = documents.summary(record, self._around(record, networks))
            containers.append({**found, **await self.sizes(record.id)})
        return {
            "LayersSize": layers,
            "Images": images,
            "Containers": containers,
            "Volumes": await self.volumes.with_usage(),
        }


def _is_after(event: Event, moment_ns: int | None) -> bool:
    at = event["timeNano"]
    return moment_ns is not None and isinstance(at, int) and at > moment_ns


def _seconds_until(moment_ns: int | None) -> float | None:
    if moment_ns is None:
        return None
    return max(0.0, (moment_ns - time.time_ns()) / times.SECOND_NS)
