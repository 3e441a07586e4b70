"""A container's status, as the kernel and its folder say it, and the documents that show it."""

from __future__ import annotations

from berth.kernel import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.bundle.records import Folder, Record
    from berth.kernel.cgroups import Cgroup

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
ENDED = "ZX"


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks; 0 when it has ended or is just ending."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in ENDED else int(fields[19])


def lives(record: Record) -> bool:
    """Say whether the container's first process is there."""
    pid = record.get("init_process_pid", 0)
    return pid > 0 and start_time(pid) == record.get("init_process_start")


def group(record: Record) -> Cgroup | None:
    """Return the container's groups; None for one that was killed before it had any."""
    path = record.get("cgroup_path", "")
    return cgroups.detect().open_group(path) if path else None


def status(folder: Folder, record: Record) -> str:
    """Return the status in the specification's words, or "paused"."""
    if not lives(record):
        return STOPPED
    groups = group(record)
    if groups is not None and groups.is_frozen():
        return PAUSED
    if folder.is_being_made():  # in the order in which it comes to be: nobody waits for the other
        return CREATING
    return CREATED if folder.waits_for_start() else RUNNING


def state(record: Record, status_: str) -> dict[str, object]:
    """Return the specification's state document, as hooks get it."""
    document: dict[str, object] = {
        "ociVersion": record.get("oci_version", ""),
        "id": record["id"],
        "status": status_,
        "pid": 0 if status_ == STOPPED else record.get("init_process_pid", 0),
        "bundle": record.get("bundle", ""),
    }
    if annotations := record.get("spec", {}).get("annotations"):
        document["annotations"] = annotations
    return document


def description(folder: Folder, record: Record) -> dict[str, object]:
    """Return what `state` and `list` show."""
    document = state(record, status(folder, record))
    order = ("ociVersion", "id", "pid", "status", "bundle")
    found = {key: document[key] for key in order}
    found["rootfs"] = record.get("rootfs", "")
    found["created"] = record.get("created", "")
    if "annotations" in document:
        found["annotations"] = document["annotations"]
    found["owner"] = record.get("owner", "")
    return found
