"""What is known of a container between two commands: a folder below --root, its lock and its record.

state.json     the record, written before the effect it describes
start.sock     where the container's process waits for `start`; gone once it was started
start.new      the same, while the container is being made
lock           held by the command that changes the container
"""

from __future__ import annotations

import fcntl
import os

from berth.errors import Conflict, Corrupt, InvalidArgument, NotFound
from berth.runtime import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from berth.oci.runtime_spec import Spec

    class Record(TypedDict, total=False):
        """state.json. ``init_process_start`` is the start time that tells a pid from a later one's."""

        id: str
        oci_version: str
        bundle: str
        rootfs: str
        created: str
        init_process_pid: int
        init_process_start: int
        cgroup_path: str
        systemd_unit: str
        own_pid_namespace: bool
        no_new_keyring: bool
        owner: str
        spec: Spec


STATE = "state.json"
NEW_SOCKET, SOCKET = "start.new", "start.sock"
LOCK = "lock"
TRIES = 100  # to remove a folder in which others make a lock
ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def check_id(id_: str) -> None:
    """Refuse an id that is no name of a folder of its own."""
    if not id_:
        raise InvalidArgument("container id cannot be empty")
    if id_ in (".", "..") or not ID_CHARACTERS.issuperset(id_):
        raise InvalidArgument("invalid container ID format")


class Folder:
    """The folder of one container, locked from the moment it is opened."""

    def __init__(self, root: str, id_: str) -> None:
        check_id(id_)
        self.id = id_
        self.root = root
        self.path = f"{root}/{id_}"
        self.lock_fd = -1

    def make(self) -> None:
        """Make it; Conflict when there is such a container."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        try:
            os.mkdir(self.path, 0o711)
        except FileExistsError:
            raise Conflict("container with given ID already exists") from None
        self._lock()

    def open(self, *, force: bool = False) -> Record:
        """Lock it and return its record; NotFound when there is no such container.

        The record of one whose `create` was killed may be empty. With ``force`` a command that keeps the lock
        is ended.
        """
        try:
            self._lock(force=force)
            return self.load()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("container does not exist") from None

    def load(self) -> Record:
        """Read the record."""
        try:
            with open(f"{self.path}/{STATE}", "rb") as file:
                record: Record = codec.decode(file.read())
        except FileNotFoundError:
            if not os.path.isdir(self.path):
                raise
            return {"id": self.id}
        except ValueError as error:
            raise Corrupt(f"{self.path}/{STATE} is damaged: {error}") from error
        return record

    def save(self, record: Record) -> None:
        """Write the record, whole or not at all."""
        temporary = f"{self.path}/{STATE}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(codec.encode(record))
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.replace(temporary, f"{self.path}/{STATE}")

    def remove(self) -> None:
        """Remove it with all that is in it, and let go of it: nobody waits for what is next. Idempotent."""
        for _ in range(TRIES):
            for name in (NEW_SOCKET, SOCKET, f"{STATE}.new", STATE, LOCK):
                try:
                    os.unlink(f"{self.path}/{name}")
                except FileNotFoundError:
                    continue
            try:
                os.rmdir(self.path)
            except FileNotFoundError:
                break
            except OSError as error:
                refused = error  # somebody has just made a lock anew
                continue
            break
        else:
            raise refused
        self.unlock()

    def owner(self) -> int:
        """Return the user whose it is; NotFound when it has just gone."""
        try:
            return os.stat(self.path).st_uid
        except FileNotFoundError:
            raise NotFound("container does not exist") from None

    def is_being_made(self) -> bool:
        """Say whether its process is not ready for its start yet."""
        return os.path.exists(f"{self.path}/{NEW_SOCKET}")

    def begin_making(self) -> None:
        """Note that its process is not ready yet, of one that has nowhere to wait for its start."""
        os.close(os.open(f"{self.path}/{NEW_SOCKET}", os.O_CREAT | os.O_CLOEXEC, 0o600))

    def forget_making(self) -> None:
        """Note that its process runs, without a start."""
        os.unlink(f"{self.path}/{NEW_SOCKET}")

    def finish_making(self) -> None:
        """Note that its process is ready for its start."""
        os.rename(f"{self.path}/{NEW_SOCKET}", f"{self.path}/{SOCKET}")

    def waits_for_start(self) -> bool:
        """Say whether its process was made and not started yet."""
        return os.path.exists(f"{self.path}/{SOCKET}")

    def forget_start(self) -> None:
        """Note that it was started."""
        try:
            os.unlink(f"{self.path}/{SOCKET}")
        except FileNotFoundError:
            return

    def unlock(self) -> None:
        """Let other commands have it."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def _lock(self, *, force: bool = False) -> None:
        path = f"{self.path}/{LOCK}"
        while True:
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            self.lock_fd = os.open(
                path, flags | (os.O_CREAT if os.path.isdir(self.path) else 0), 0o600
            )
            if force:
                from berth.bundle import holders

                holders.take(self.lock_fd)
            else:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(self.lock_fd), os.stat(path)):
                    return
            except FileNotFoundError:  # removed by whoever had the lock before
                self.unlock()
                raise
            self.unlock()


def peek(root: str, id_: str) -> tuple[Folder, Record]:
    """Return a container's record without its lock, for commands that only look."""
    folder = Folder(root, id_)
    try:
        return folder, folder.load()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("container does not exist") from None


def ids(root: str) -> list[str]:
    """Return the ids of all containers below ``root``."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [
        name for name in names if ID_CHARACTERS.issuperset(name) and os.path.isdir(f"{root}/{name}")
    ]
