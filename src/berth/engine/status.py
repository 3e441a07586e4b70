"""What a status allows, and how a refusal is worded: Docker's words, in one place."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from berth.errors import Conflict, NotModified

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord

CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
RESTARTING = "restarting"
REMOVING = "removing"
EXITED = "exited"
DEAD = "dead"  # its monitor was killed, and it with it
ALIVE = (RUNNING, PAUSED)
ALL = (CREATED, RUNNING, PAUSED, RESTARTING, REMOVING, EXITED, DEAD)

HEALTH = {"starting": "health: starting"}
STATIC = {REMOVING: "Removal In Progress"}

SECOND_NS = 1_000_000_000
# (up to so many seconds, seconds in the unit, its name): units.HumanDuration's steps.
STEPS = (  # hours below which, hours of one
    (48, 1, "hours"),
    (24 * 14, 24, "days"),
    (24 * 60, 24 * 7, "weeks"),
    (24 * 365 * 2, 24 * 30, "months"),
)


def require_startable(record: ContainerRecord) -> None:
    """Raise unless the container may be started."""
    if record.status == PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if record.status in (RUNNING, RESTARTING):
        raise NotModified(f"container {record.id} is already running")
    if record.status == REMOVING:
        raise Conflict("container is marked for removal and cannot be started")


def require_alive(record: ContainerRecord) -> None:
    """Raise unless it has processes, frozen ones included."""
    if record.status == RESTARTING:
        raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
    if record.status not in ALIVE:
        raise Conflict(f"container {record.id} is not running")


def require_running(record: ContainerRecord) -> None:
    """Raise unless its process runs and is not paused."""
    require_alive(record)
    if record.status == PAUSED:
        raise Conflict(f"Container {record.id} is paused, unpause the container before exec")


def require_attachable(record: ContainerRecord, ref: str) -> None:
    """Raise unless a client may be attached; one that does not run yet takes it along."""
    if record.status == PAUSED:
        raise Conflict(f"container {ref} is paused, unpause the container before attach")
    if record.status == RESTARTING:
        raise Conflict(f"container {ref} is restarting, wait until the container is running")


def require_stoppable(record: ContainerRecord) -> None:
    """Raise unless there is something to stop."""
    if record.status not in (*ALIVE, RESTARTING):
        raise NotModified(f"container {record.id} is already stopped")


def require_pausable(record: ContainerRecord) -> None:
    """Raise unless it may be paused."""
    if record.status == PAUSED:
        raise Conflict(f"Container {record.id} is already paused")
    require_alive(record)


def require_paused(record: ContainerRecord) -> None:
    """Raise unless it is paused."""
    if record.status != PAUSED:
        raise Conflict(f"Container {record.id} is not paused")


def require_removable(record: ContainerRecord) -> None:
    """Raise unless it may be removed without force."""
    if record.status == REMOVING:
        raise Conflict(f"removal of container {record.id} is already in progress")
    if record.status in (*ALIVE, RESTARTING):
        raise Conflict(
            f'cannot remove container "/{record.name}": container is {record.status}:'
            " stop the container before removing or force remove"
        )


def describe(record: ContainerRecord, health: str = "") -> str:
    """Return the status as `docker ps` shows it; ``health``: what its healthcheck says, if it has one."""
    if record.status in ALIVE:
        suffix = f" ({HEALTH.get(health, health)})" if health else ""
        suffix = " (Paused)" if record.status == PAUSED else suffix
        return f"Up {duration(time.time_ns() - record.started_ns)}{suffix}"
    if record.status == EXITED:
        return f"Exited ({record.exit_code}) {duration(time.time_ns() - record.finished_ns)} ago"
    if record.status == RESTARTING:
        return (
            f"Restarting ({record.exit_code}) {duration(time.time_ns() - record.finished_ns)} ago"
        )
    return STATIC.get(record.status, record.status.capitalize())


def duration(nanoseconds: int) -> str:
    """Return a duration in words, roughly."""
    seconds = nanoseconds // SECOND_NS
    hours = (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if seconds < 120:
        return "About a minute"
    if seconds < 3600:
        return f"{seconds // 60} minutes"
    if hours == 1:
        return "About an hour"
    for limit, unit, name in STEPS:
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{seconds // (86400 * 365)} years"
