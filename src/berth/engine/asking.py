"""What the runtime is asked for a container: its process, in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine import (
    imagemounts,
    links,
    logtargets,
    networking,
    security,
    sharing,
    spec,
    storage,
)
from berth.runtime.requests import TaskRequest

if TYPE_CHECKING:
    from berth.engine.checkpoints import Checkpoint
    from berth.engine.life import Life
    from berth.engine.models import ContainerRecord
    from berth.engine.records import Records
    from berth.engine.services import Services


def task_request(
    services: Services,
    records: Records,
    record: ContainerRecord,
    life: Life,
    checkpoint: Checkpoint | None,
    joined: sharing.Joined,
) -> TaskRequest:
    """Put it together; with a ``checkpoint`` the process goes on from there."""
    host, config, loan = record.host_config, record.config, life.loan
    added = services.cdi.edits(host)
    groups = [str(gid) for gid in added.additional_gids if gid] if added is not None else []
    rows, columns = host.console_size or (0, 0)
    rootfs = imagemounts.rootfs(record, services.images, loan.images)
    has_quota = storage.has_quota(record, rootfs, services)
    return TaskRequest(
        id=record.id,
        directory=life.exec_folder,
        spec=spec.build(
            record,
            cgroup=services.instance.cgroup,
            paths=sharing.namespace_paths(record, records, None if checkpoint else joined),
            env=links.environment(record, services.network, records.find),
            lent=loan.env,
            added=added,
        ),
        rootfs=rootfs,
        user=config.user,
        groups=(*(host.group_add or ()), *groups),
        terminal=config.tty,
        terminal_size=(rows, columns),
        stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        log=logtargets.log_target(record, life.data_folder),
        seccomp=security.seccomp_filter(host, has_quota=has_quota),
        netns=networking.gets_namespace(record),
        init=bool(host.init),
        checkpoint=checkpoint and checkpoint.path,
    )
