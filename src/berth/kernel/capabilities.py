"""Capabilities: capget(2), capset(2) and the prctl(2) calls around them (capabilities(7))."""

from __future__ import annotations

import errno

from berth.errors import InvalidArgument
from berth.kernel import c
from berth.kernel.libc import SYS_CAPSET, check, fail, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Capabilities

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
WORD_BITS = 64


class _Header(c.Structure):
    _fields_ = (("version", c.c_uint32), ("pid", c.c_int))


class _Data(c.Structure):
    _fields_ = (
        ("effective", c.c_uint32),
        ("permitted", c.c_uint32),
        ("inheritable", c.c_uint32),
    )


def last_cap() -> int:
    """Return the highest capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def mask(names: list[str] | None) -> int:
    """Return the bits of ``names``; InvalidArgument for one that does not exist."""
    bits = 0
    for name in names or ():
        if name not in NUMBERS:
            raise InvalidArgument(f"unknown capability {name!r}")
        bits |= 1 << NUMBERS[name]
    return bits


def bounded(bits: int) -> int:
    """Return those of ``bits`` that are in the calling thread's bounding set."""
    found = 0
    for number in range(bits.bit_length()):
        if bits >> number & 1 and libc.prctl(PR_CAPBSET_READ, c.c_ulong(number), 0, 0, 0) > 0:
            found |= 1 << number
    return found


def drop_bounding(wanted: Capabilities) -> None:
    """Drop everything from the bounding set but what ``wanted["bounding"]`` names."""
    keep = mask(wanted.get("bounding"))
    for number in range(WORD_BITS):
        if keep >> number & 1:
            continue
        if libc.prctl(PR_CAPBSET_DROP, c.c_ulong(number), 0, 0, 0) < 0:
            if c.get_errno() == errno.EINVAL:  # past the last one that the kernel knows
                return
            fail(f"drop {NAMES[number] if number < len(NAMES) else number}")


def keep_over_setuid() -> None:
    """Keep the permitted set over the coming change of user."""
    check(libc.prctl(PR_SET_KEEPCAPS, c.c_ulong(1), 0, 0, 0), "prctl PR_SET_KEEPCAPS")


def raise_all() -> None:
    """Make everything effective that the bounding set has, as the host's root may."""
    names = list(NAMES)
    apply({"effective": names, "permitted": names})


def apply(wanted: Capabilities) -> None:
    """Set the effective, permitted, inheritable and ambient sets; never more than the bounding set has."""
    effective, permitted = mask(wanted.get("effective")), mask(wanted.get("permitted"))
    inheritable = mask(wanted.get("inheritable"))
    known = bounded(effective | permitted | inheritable)
    sets = [effective & known, permitted & known, inheritable & known]
    words = [[value & 0xFFFFFFFF for value in sets], [value >> 32 for value in sets]]
    data = (_Data * 2)(*(_Data(*word) for word in words))
    header = _Header(CAPABILITY_VERSION_3, 0)
    result = libc.syscall(c.c_long(SYS_CAPSET), c.byref(header), c.byref(data))
    check(result, "capset")
    libc.prctl(PR_CAP_AMBIENT, c.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    ambient = mask(wanted.get("ambient")) & sets[1] & sets[2]
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            result = libc.prctl(
                PR_CAP_AMBIENT, c.c_ulong(PR_CAP_AMBIENT_RAISE), c.c_ulong(number), 0, 0
            )
            check(result, f"raise ambient {NAMES[number]}")
