"""`checkpoint`: a container's processes into files, by criu (`berth.runtime.criu` speaks to it)."""

from __future__ import annotations

import fcntl
import os

from berth.bundle import ending, externals
from berth.bundle.status import CREATED, CREATING, STOPPED, group, status
from berth.errors import Conflict, Failed, InvalidArgument, Unsupported
from berth.kernel import namespaces
from berth.runtime import codec, criu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.bundle.records import Folder, Record
    from berth.runtime.criu import Notice

    Values = dict[str, criu.Value]

STREAMS = "descriptors.json"  # in the images: what the process had as its streams
DEFAULT_FOLDER = "checkpoint"
CONFIGURATION = "org.criu.config"  # an annotation: criu's configuration for this container
DEFAULT_CONFIGURATION = "/etc/criu/runc.conf"
LOG_LEVEL = 4
LOG = "dump.log"


class Options:
    """How it is done, as the caller's flags say: what `checkpoint` and `restore` have in common, and more."""

    def __init__(self) -> None:
        self.images = ""
        self.work = ""
        self.parent = ""
        self.switches: dict[str, bool] = {}  # by criu's names
        self.manage_cgroups_mode = ""
        self.lsm_profile = ""
        self.lsm_mount_context = ""
        self.leave_running = False
        self.pre_dump = False
        self.page_server: tuple[str, int] | None = None
        self.status_fd = -1

    def log(self, name: str) -> str:
        """Return where criu's log is."""
        return f"{self.work or self.images}/{name}"

    def values(self, log: str, annotations: dict[str, str]) -> Values:
        """Return criu's options; the folders are open and stay so while this object is there."""
        self._folders = [_open(self.images)]
        found: Values = {
            "images_dir_fd": self._folders[0],
            "log_level": LOG_LEVEL,
            "log_file": log,
            "manage_cgroups": True,
            "notify_scripts": True,
            "orphan_pts_master": True,
            "empty_ns": namespaces.CLONE_NEWNET,  # interfaces are not the runtime's
            **self.switches,
        }
        if self.work:
            self._folders.append(_open(self.work))
            found["work_dir_fd"] = self._folders[-1]
        if mode := self.manage_cgroups_mode:
            found["manage_cgroups_mode"] = criu.CGROUP_MODES[mode]
        if configuration := annotations.get(CONFIGURATION, DEFAULT_CONFIGURATION):
            found["config_file"] = configuration
        return found


def _open(path: str) -> int:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def check_possible() -> None:
    """Refuse where criu is not there or may not."""
    if os.geteuid():
        raise Unsupported("checkpoint and restore need root: criu cannot do without here")
    criu.find(os.environ.get("PATH", ""))


def checkpoint(folder: Folder, record: Record, options: Options) -> None:
    """Write the container's processes to files; it is gone then, unless it is to go on."""
    now = status(folder, record)
    if now in (CREATING, CREATED, STOPPED):
        raise Conflict(f"Container cannot be checkpointed in {now} state")
    check_possible()
    _check_features(options)
    _dump(record, options)
    if not options.leave_running and not options.pre_dump:
        ending.delete(folder, record, force=True)


def _check_features(options: Options) -> None:
    wanted = {
        "mem_track": ("pre-dump", options.pre_dump),
        "lazy_pages": ("lazy-pages", options.switches.get("lazy_pages", False)),
    }
    for feature, (flag, needed) in wanted.items():
        if not needed:
            continue
        with criu.start() as process:
            if not process.has(feature):
                raise Unsupported(f"--{flag}: criu says that this kernel has no {feature}")
    if options.status_fd >= 0:
        _check_status_fd(options.status_fd)


def _check_status_fd(fd: int) -> None:
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        raise InvalidArgument(f"invalid --status-fd argument {fd}: {error.strerror}") from error
    if not flags & os.O_ACCMODE:
        raise InvalidArgument(f"invalid --status-fd argument {fd}: not writable")
    os.set_inheritable(fd, False)  # criu would hold it open


def _write_streams(path: str, pid: int) -> None:
    """Note what a process has as its streams; a link at ``path`` is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o644), "wb") as file:
        file.write(codec.encode(externals.streams(pid)))


def _dump(record: Record, options: Options) -> None:
    spec = record.get("spec", {})
    pid = record.get("init_process_pid", 0)
    groups = group(record)
    outside = externals.Externals(spec, record.get("bundle", ""), groups)
    values = options.values(LOG, spec.get("annotations") or {})
    values.update(pid=pid, root=record.get("rootfs", ""), leave_running=options.leave_running)
    values["external"] = outside.left_namespaces()
    if groups is not None and (freezer := groups.hierarchies.freezer()):
        values["freeze_cgroup"] = f"{freezer.point}/{groups.path}"
    if options.page_server is not None:
        address, port = options.page_server
        values["ps"] = {"address": address, "port": port}
    if options.parent:
        values.update(parent_img=options.parent, track_mem=True)
    if not options.pre_dump:
        values["ext_mnt"] = outside.dumped_mounts(pid)
        _write_streams(f"{options.images}/{STREAMS}", pid)

    def notice(notice_: Notice) -> None:
        if notice_.script == "status-ready" and options.status_fd >= 0:
            os.write(options.status_fd, b"\0")
            os.close(options.status_fd)

    kind = criu.PRE_DUMP if options.pre_dump else criu.DUMP
    with criu.start() as process:
        ask(process, kind, values, notice, options.log(LOG))


def ask(
    process: criu.Criu, kind: int, values: Values, notice: Callable[[Notice], None], log: str
) -> int:
    """Have criu do something, and say where its log is when that fails."""
    try:
        return process.ask(kind, values, notice, log=log)
    except Failed as error:
        raise Failed(f"{error.message}\nlog file: {log}") from None
