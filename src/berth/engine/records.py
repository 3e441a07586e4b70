"""The records of containers: found by id, name or prefix, kept in memory and in the state database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.engine import links, sharing, status
from berth.engine.models import ContainerRecord
from berth.engine.names import random_name
from berth.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from berth.state import State

NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Records:
    """Every container of an engine, as stored."""

    def __init__(self, state: State) -> None:
        self._table = state.table("containers", ContainerRecord)
        self._records = dict(self._table.items())

    def all(self) -> list[ContainerRecord]:
        """Return every container, youngest first."""
        return sorted(self._records.values(), key=lambda record: -record.created_ns)

    def get(self, id_: str) -> ContainerRecord | None:
        """Return the container with an id, None when there is none."""
        return self._records.get(id_)

    def has(self, record: ContainerRecord) -> bool:
        """Say whether the container still exists."""
        return record.id in self._records

    def has_guests(self, record: ContainerRecord) -> bool:
        """Say whether others run that use the network of this one, also by way of others."""
        return any(
            sharing.network_of(other) == record.id and other.status in status.ALIVE
            for other in self._records.values()
        )

    def users_of(self, volume: str) -> list[str]:
        """Return the ids of the containers that have a volume."""
        return [r.id for r in self.all() if any(p.volume == volume for p in r.mount_points)]

    def find(self, ref: str) -> ContainerRecord:
        """Return the container that ``ref`` names: a name, an id or a unique prefix of one."""
        if ref in self._records:
            return self._records[ref]
        if named := self._named(ref.removeprefix("/")):
            return named
        found = [record for id_, record in self._records.items() if ref and id_.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {ref}")
        if not found:
            raise NotFound(f"No such container: {ref}")
        return found[0]

    def _named(self, name: str) -> ContainerRecord | None:
        """Return the container with a name, or the one that another calls so: "other/alias"."""
        for record in self._records.values():
            if record.name == name:
                return record
        other, _, alias = name.rpartition("/")
        parent = self._named(other) if other else None
        linked = links.of(parent).get(alias) if parent is not None else None
        return self._named(linked) if linked else None

    def put(self, record: ContainerRecord, *, durable: bool = False) -> None:
        """Add or update a container."""
        self._table.put(record.id, record, durable=durable)
        self._records[record.id] = record

    def remove(self, record: ContainerRecord) -> None:
        """Remove a container; nothing when it is not there."""
        self._records.pop(record.id, None)
        self._table.remove(record.id, durable=True)

    def forget(self, record: ContainerRecord) -> None:
        """Drop from memory what a transaction that failed has not stored."""
        self._records.pop(record.id, None)

    def claim_name(self, name: str | None) -> str:
        """Return a name that is free: ``name`` when it is, a random one for none."""
        taken = {record.name: record.id for record in self._records.values()}
        if not name:
            return random_name(taken)
        name = name.removeprefix("/")
        if len(name) < 2 or set(name) - NAME_CHARACTERS or not name[0].isalnum():
            raise InvalidArgument(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        if name in taken:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{taken[name]}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )
        return name
