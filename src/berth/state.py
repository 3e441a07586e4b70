"""The state database: one SQLite file under the data root, one table of JSON records a noun.

berthd is its only user, from one thread. A write is one transaction. ``durable`` writes wait for the
disk (create and remove); others survive a crash of berthd, not necessarily one of the machine.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Record = TypeVar("Record", bound=msgspec.Struct)


class State:
    """An open state database."""

    def __init__(self, path: Path) -> None:
        # Autocommit; transactions are opened by hand where more than one statement belongs together.
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._durable = False
        self._depth = 0

    def table(self, name: str, record: type[Record]) -> Table[Record]:
        """Open the table ``name`` of ``record``s, made when missing."""
        assert name.isidentifier()
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, record BLOB NOT NULL)"
            " WITHOUT ROWID"
        )
        return Table(self, self._connection, name, record)

    def write(self, statement: str, values: tuple[object, ...], *, durable: bool) -> sqlite3.Cursor:
        """Run one statement: a transaction of its own unless one is open."""
        if self._depth == 0:
            self._wait_for_disk(durable=durable)
        return self._connection.execute(statement, values)

    def _wait_for_disk(self, *, durable: bool) -> None:
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All writes inside become visible together or not at all. Nests; the outermost decides."""
        if self._depth == 0:
            self._wait_for_disk(durable=durable)
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the database; its tables are unusable afterwards."""
        self._connection.close()


class Table(Generic[Record]):
    """Records of one type by key, in key order."""

    def __init__(
        self, state: State, connection: sqlite3.Connection, name: str, record: type[Record]
    ) -> None:
        self._state = state
        self._connection = connection
        self._get = f"SELECT record FROM {name} WHERE key = ?"  # noqa: S608 - an identifier
        self._all = f"SELECT key, record FROM {name} ORDER BY key"  # noqa: S608
        self._put = f"INSERT OR REPLACE INTO {name} VALUES (?, ?)"  # noqa: S608
        self._remove = f"DELETE FROM {name} WHERE key = ?"  # noqa: S608
        self._decoder = msgspec.json.Decoder(record)
        self._encoder = msgspec.json.Encoder()

    def get(self, key: str) -> Record | None:
        """Return the record of ``key``, None when there is none."""
        row = self._connection.execute(self._get, (key,)).fetchone()
        return self._decoder.decode(row[0]) if row else None

    def items(self) -> list[tuple[str, Record]]:
        """Return every key with its record."""
        rows = self._connection.execute(self._all).fetchall()
        return [(key, self._decoder.decode(blob)) for key, blob in rows]

    def put(self, key: str, record: Record, *, durable: bool = False) -> None:
        """Add or replace the record of ``key``."""
        self._state.write(self._put, (key, self._encoder.encode(record)), durable=durable)

    def remove(self, key: str, *, durable: bool = False) -> bool:
        """Remove the record of ``key``; say whether there was one."""
        return self._state.write(self._remove, (key,), durable=durable).rowcount > 0
