"""What a container gets unless its creator says otherwise: Docker's defaults, as data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berth.oci.runtime_spec import Device, DeviceRule, Mount

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

_MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

PROGRAM = "berth"
RUNTIME = "runc"  # as clients know Docker's default; it is our own
RUNTIMES = (RUNTIME, PROGRAM, "io.containerd.runc.v2")
SHM_SIZE_BYTES = 64 << 20
STOP_TIMEOUT_S = 10
MIN_MEMORY_BYTES = 6 << 20

_CHARACTER_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
)


@cache
def masked_paths() -> tuple[str, ...]:
    """Return the paths to hide: those of every machine, and what tells processors' heat."""
    folders = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    return (*_MASKED_PATHS, *sorted(map(str, folders)))


def devices() -> list[Device]:
    """Return the nodes that every /dev has."""
    return [
        {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        for path, major, minor in _CHARACTER_DEVICES
    ]


def device_rules() -> list[DeviceRule]:
    """Return the device rules: make any node, use the harmless ones."""
    rules: list[DeviceRule] = [
        {"allow": False, "type": "a", "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    usable = [*((major, minor) for _, major, minor in _CHARACTER_DEVICES), (5, 1), (5, 2)]
    for major, minor in usable:
        rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    rules.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
    return rules


def mounts(*, shm_size_bytes: int, writable: bool) -> list[Mount]:
    """Return the kernel's file systems; ``writable`` /sys and cgroups for privileged containers."""
    safe = ["nosuid", "noexec", "nodev"]
    access = "rw" if writable else "ro"
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, access]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*safe, "relatime", access],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        {
            "destination": "/dev/shm",  # noqa: S108 - the container's
            "type": "tmpfs",
            "source": "shm",
            "options": [*safe, "mode=1777", f"size={shm_size_bytes}"],
        },
    ]
