"""The state database: one SQLite file under the data root, one table of JSON records a noun.

berthd is its only user, from one thread. A write is one transaction. ``durable`` writes wait for the
disk (create and remove); others survive a crash of berthd, not necessarily one of the machine.
Beside it lies a reserve: when the disk is full, the ends of containers can still be written down.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from berth.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESERVE_BYTES = 1 << 20
PIECE_BYTES = 1 << 16
REFILL_S = 10.0
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

Record = TypeVar("Record", bound=msgspec.Struct)


class State:
    """An open state database."""

    def __init__(self, path: Path) -> None:
        self._reserve = Reserve(path.with_name("reserve"))
        # Autocommit; transactions are opened by hand where more than one statement belongs together.
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=NORMAL")
        self._durable = False
        self._depth = 0

    def table(self, name: str, record: type[Record]) -> Table[Record]:
        """Open the table ``name`` of ``record``s, made when missing."""
        assert name.isidentifier()
        self._execute(
            f"CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, record BLOB NOT NULL)"
            " WITHOUT ROWID"
        )
        return Table(self, self._connection, name, record)

    def write(self, statement: str, values: tuple[object, ...], *, durable: bool) -> sqlite3.Cursor:
        """Run one statement: a transaction of its own unless one is open."""
        if self._depth == 0:
            self._wait_for_disk(durable=durable)
        return self._execute(statement, values)

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run a statement; while the disk is full, on what was kept for that."""
        began = self._connection.in_transaction
        while True:
            try:
                cursor = self._connection.execute(statement, values)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in NO_ROOM:
                    raise
                lost = began and not self._connection.in_transaction  # rolled back by SQLite
                if lost or not self._reserve.release():
                    raise Failed("write state: no space left on device") from error
            else:
                self._reserve.refill()
                return cursor

    def _wait_for_disk(self, *, durable: bool) -> None:
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All writes inside become visible together or not at all. Nests; the outermost decides."""
        if self._depth == 0:
            self._wait_for_disk(durable=durable)
            self._execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._execute("COMMIT")
        except BaseException:
            if self._depth == 1 and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def close(self) -> None:
        """Close the database; its tables are unusable afterwards."""
        self._connection.close()


class Reserve:
    """A file that keeps room on the disk, and gives it back piece by piece when there is no other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = path.stat().st_blocks * 512 if path.exists() else 0
        self._refilled_at = 0.0
        self.refill()

    def release(self) -> bool:
        """Give a piece back; False when nothing is left."""
        if self._left < PIECE_BYTES:
            return False
        self._left -= PIECE_BYTES
        os.truncate(self._path, self._left)
        return True

    def refill(self) -> None:
        """Take what was given back, as far as there is room again; not at every write."""
        now = time.monotonic()
        if self._left >= RESERVE_BYTES or now < self._refilled_at + REFILL_S:
            return
        self._refilled_at = now
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while self._left < RESERVE_BYTES:
                os.posix_fallocate(fd, self._left, PIECE_BYTES)
                self._left += PIECE_BYTES
        except OSError:  # full again
            return
        finally:
            os.close(fd)


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
