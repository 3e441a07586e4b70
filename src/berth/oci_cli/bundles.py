"""Bundles: config.json is read, and written to begin with (`spec`)."""

from __future__ import annotations

import os

from berth.bundle import shape
from berth.errors import Conflict, InvalidArgument, NotFound
from berth.kernel import cgroups
from berth.runtime import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Mount, Process, Resources, Spec
    from berth.oci_cli.invocation import Invocation

CONFIG = "config.json"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def load(bundle: str) -> Spec:
    """Read a bundle's config.json."""
    try:
        return shape.spec(_read(f"{bundle}/{CONFIG}"))
    except FileNotFoundError:
        raise NotFound(f"JSON specification file {CONFIG} not found") from None


def read_process(path: str) -> Process:
    """Read a process.json."""
    return shape.process(_read(path))


def read_resources(path: str) -> Resources:
    """Read limits from a file, or from stdin when ``path`` is "-"."""
    return shape.resources(_read("/dev/stdin" if path == "-" else path))


def _read(path: str) -> object:
    fd = os.dup(0) if path == "/dev/stdin" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        text = file.read().strip()
    try:
        document: object = codec.decode(text)
    except (ValueError, RecursionError):
        raise InvalidArgument(f"{path} is not valid JSON: {_complaint(text)}") from None
    return document


def _complaint(text: bytes) -> str:
    """Return what is wrong with a document: the module that can tell takes its time to load."""
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return "it is nested too deeply"


def do_spec(call: Invocation) -> int:
    """Write a config.json."""
    folder = call.options.text("bundle") or "."
    path = f"{folder}/{CONFIG}"
    spec = example()
    if call.options.on("rootless"):
        _for_ordinary_user(spec)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Conflict(f"File {CONFIG} exists. Remove it first") from None
    with open(fd, "w") as file:
        import json

        json.dump(spec, file, indent="\t")
    return 0


def example() -> Spec:
    """Return what one begins with: a shell in namespaces of its own."""
    process: Process = {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": [PATH, "TERM=xterm"],
        "cwd": "/",
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": CAPABILITIES,
            "permitted": CAPABILITIES,
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }
    safe = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "berth",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts",
                "devpts",
                *safe[:2],
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ),
            {**_mount("/dev/shm", "tmpfs", *safe, "mode=1777", "size=65536k"), "source": "shm"},  # noqa: S108
            _mount("/dev/mqueue", "mqueue", *safe),
            _mount("/sys", "sysfs", *safe, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", *safe, "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", *_newer())
            ],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }


def _newer() -> tuple[str, ...]:
    """Return the namespaces that callers expect where only version 2 of cgroups is mounted."""
    return ("cgroup",) if cgroups.detect().only_unified else ()


def _mount(destination: str, fstype: str, *options: str) -> Mount:
    return {
        "destination": destination,
        "type": fstype,
        "source": fstype,
        "options": list(options),
    }


def _for_ordinary_user(spec: Spec) -> None:
    """Change it to what an ordinary user may have: no groups, no network of its own, one id."""
    linux = spec["linux"]
    kinds = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    linux["namespaces"] = [*kinds, {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    del linux["resources"]
    mounts: list[Mount] = []
    for mount in spec["mounts"]:
        if mount["destination"] == "/sys":
            options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
            mounts.append(
                {"destination": "/sys", "type": "none", "source": "/sys", "options": options}
            )
        elif mount["destination"] != "/sys/fs/cgroup":
            kept = [o for o in mount.get("options", []) if not o.startswith(("gid=", "uid="))]
            mounts.append({**mount, "options": kept} if "options" in mount else mount)
    spec["mounts"] = mounts
