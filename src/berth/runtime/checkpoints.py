"""A checkpoint of a container: its processes in files, by criu. Made by a worker.

Mounts that come from outside are left out, under the names of their targets; so are the ends of pipes that
the monitor has, its /dev/null, and namespaces that are not the container's own. What has which name is for
:mod:`berth.runtime.restoring` to know as well.
"""

from __future__ import annotations

import _signal
import os
import shutil
import stat

from berth.errors import Conflict, Failed, InvalidArgument
from berth.kernel import cgroups, namespaces
from berth.kernel.cgroups import Cgroup
from berth.runtime import codec, criu
from berth.runtime.mountpoints import points, resolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypedDict

    from berth.kernel.cgroups import Hierarchies
    from berth.runtime.criu import Notice, Value
    from berth.runtime.mountpoints import Point

    class Asked(TypedDict):
        """What a checkpoint is made of. ``targets``: where in the container mounts from outside are."""

        folder: str
        name: str
        pid: int
        pipes: list[int]
        targets: list[str]
        addresses: dict[str, list[str]]
        cgroups_path: str
        leave_running: bool
        search: str

    class Noted(TypedDict):
        """Which of the files that the processes have are the monitor's, by criu's names; "" is none.

        And the container's addresses by networks, for the engine.
        """

        pipes: list[str]
        null: str
        addresses: dict[str, list[str]]


RECORD = "berth.json"  # in the checkpoint
MAX_RECORD_BYTES = 1 << 20
LOG = "dump.log"
LOG_LEVEL = 4
CONFIGURATION = "/etc/criu/runc.conf"  # read by Docker's runtime, too
# Namespaces of others that criu takes as they are; those of kinds that are missing here are joined.
KEPT = ("network", "pid")


def make(
    argument: Asked, fds: Sequence[int], report: Callable[[Mapping[str, object]], None]
) -> Mapping[str, object]:
    """Make the checkpoint ``name`` in ``folder``: all of it or nothing.

    The processes end when it is there under its name, unless they are to go on.
    """
    del fds, report
    # Should berthd be gone meanwhile, this is done all the same: half of it is of no use to anybody.
    _signal.signal(_signal.SIGIO, _signal.SIG_IGN)
    folder, name = argument["folder"], argument["name"]
    whole, half = f"{folder}/{name}", f"{folder}/.{name}.half"
    os.makedirs(folder, 0o700, exist_ok=True)
    shutil.rmtree(half, ignore_errors=True)
    os.mkdir(half, 0o700)
    try:
        if os.path.lexists(whole):
            raise Conflict(f"checkpoint with name {name} already exists")
        _dump(argument, half, lambda: os.rename(half, whole))
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return {}


def _dump(argument: Asked, half: str, conclude: Callable[[], None]) -> None:
    """Have criu write the files; ``conclude`` is called when they are all there."""
    # The folder may be the client's: nobody who can write there shall lead this elsewhere.
    images = os.open(half, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    null = _null()
    noted: Noted = {
        "pipes": [f"pipe:[{number}]" if number else "" for number in argument["pipes"]],
        "null": null,
        "addresses": argument["addresses"],
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(RECORD, flags, 0o600, dir_fd=images), "wb") as file:
        file.write(codec.encode(noted))
    pid, hierarchies = argument["pid"], cgroups.detect()
    values: dict[str, Value] = {
        **options(images, LOG),
        "pid": pid,
        "leave_running": argument["leave_running"],
        "external": [null, *_foreign_namespaces(pid)],
        "ext_mnt": [
            {"key": point, "val": name}
            for point, name in _foreign_mounts(argument, hierarchies).items()
        ],
    }
    group = Cgroup(hierarchies, argument["cgroups_path"].strip("/"))
    was_frozen = group.is_frozen()
    if freezer := hierarchies.freezer():
        values["freeze_cgroup"] = f"{freezer.point}/{group.path}"

    def notice(told: Notice) -> None:
        if told.script == "post-dump":
            conclude()

    log = f"/proc/self/fd/{images}/{LOG}"
    try:
        with criu.start(environment={"PATH": argument["search"]}) as process:
            process.ask(criu.DUMP, values, notice, log=log, works_alone=True)
    except Failed:
        if freezer and not was_frozen:  # whatever became of criu
            group.thaw()
        raise


def read_record(images: int) -> Noted:
    """Read what was noted in a checkpoint's folder, of which nothing is believed: it may be anybody's."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(RECORD, flags, dir_fd=images)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError("not a file")
            found = codec.decode(os.read(fd, MAX_RECORD_BYTES))
        finally:
            os.close(fd)
        return {
            "pipes": [str(name) for name in found["pipes"]],
            "null": str(found["null"]),
            "addresses": {key: list(map(str, of)) for key, of in found["addresses"].items()},
        }
    except OSError as error:
        why = error.strerror
    except (AttributeError, LookupError, TypeError, ValueError, StopIteration, RecursionError):
        why = "it makes no sense"
    raise InvalidArgument(f"no checkpoint of berth's: {RECORD}: {why}")


def options(images: int, log: str) -> dict[str, Value]:
    """Return what criu is told for a checkpoint as well as for a restore."""
    return {
        "images_dir_fd": images,
        "log_level": LOG_LEVEL,
        "log_file": log,
        "config_file": CONFIGURATION,
        "manage_cgroups": True,
        "notify_scripts": True,
        "orphan_pts_master": True,
        "file_locks": True,
    }


def _null() -> str:
    """Name the /dev/null that containers of earlier versions have as stdin: this process has it, too."""
    with open("/proc/self/fdinfo/0") as file:
        mount = next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    return f"file[{mount:x}:{os.fstat(0).st_ino:x}]"


def namespace_key(kind: str) -> str:
    """Return the name of a namespace that is left out."""
    return f"extRoot{namespaces.NAMESPACES[kind][1].title()}NS"


def _foreign_namespaces(pid: int) -> list[str]:
    """Return criu's words for namespaces that are left out: those of others, and any network.

    What is this process's as well is the host's, which criu knows.
    """
    found = []
    for kind in KEPT:
        file = namespaces.NAMESPACES[kind][1]
        number = os.stat(f"/proc/{pid}/ns/{file}").st_ino
        is_own = kind == "pid" and _is_first(pid)
        if not is_own and number != os.stat(f"/proc/self/ns/{file}").st_ino:
            found.append(f"{file}[{number}]:{namespace_key(kind)}")
    return found


def _is_first(pid: int) -> bool:
    """Say whether a process is the first of its pid namespace."""
    with open(f"/proc/{pid}/status", errors="replace") as file:  # its name is its own affair
        ids = next(line.split() for line in file if line.startswith("NSpid:"))
    return ids[-1] == "1"


def _foreign_mounts(argument: Asked, hierarchies: Hierarchies) -> dict[str, str]:
    """Return the names of the mounts that come from outside, with what is mounted below them."""
    pid, found = argument["pid"], points(argument["pid"])
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        places = {resolved(root, target): target for target in argument["targets"]}
    finally:
        os.close(root)
    named = dict(places)
    for point in found:
        for place, target in places.items():
            if point.path.startswith(f"{place}/") and point.path not in named:
                named[point.path] = target + point.path[len(place) :]
    if os.readlink(f"/proc/{pid}/ns/cgroup") == os.readlink("/proc/self/ns/cgroup"):
        named.update(_groups(found, hierarchies))
    return named


def _groups(found: list[Point], hierarchies: Hierarchies) -> dict[str, str]:
    """Return the names of the container's groups that are mounted in it out of the host's hierarchies."""
    names = {}
    for hierarchy in hierarchies.found:
        device = os.fstat(hierarchy.fd).st_dev
        names[f"{os.major(device)}:{os.minor(device)}"] = group_name(hierarchy.name)
    return {p.path: names[p.device] for p in found if p.device in names}


def group_name(hierarchy: str) -> str:
    """Return the name of the mount of a container's group in a hierarchy."""
    return f"cgroup:{hierarchy}"
