"""Actions of ``linux.seccomp`` as the values that a filter returns (seccomp(2))."""

from __future__ import annotations

from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Seccomp

EPERM = 1
ENOSYS = 38
MAX_DATA = 0xFFFF

KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
NOTIFY = 0x7FC00000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

VALUES = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
WITH_ERRNO = (ERRNO, TRACE)
LETS_PASS = (ALLOW, LOG, TRACE, NOTIFY)


def value(action: str, errno_ret: int | None) -> int:
    """Return the value of an action; ERRNO and TRACE carry ``errno_ret``, EPERM unless said."""
    base = VALUES.get(action)
    if base is None:
        raise InvalidArgument(f"invalid seccomp action {action!r}")
    if base not in WITH_ERRNO:
        if errno_ret is not None:
            raise InvalidArgument(f"invalid seccomp rule: {action} takes no errnoRet")
        return base
    number = EPERM if errno_ret is None else errno_ret
    if not 0 <= number <= MAX_DATA:
        raise InvalidArgument(f"invalid seccomp errnoRet {number}: not in 0 to {MAX_DATA}")
    return base | number


def errno(number: int) -> int:
    """Return the value that makes the call fail with ``number``."""
    return ERRNO | number


def default(seccomp: Seccomp) -> int:
    """Return the value of the default action."""
    return value(seccomp.get("defaultAction", ""), seccomp.get("defaultErrnoRet"))


def refuses(seccomp: Seccomp) -> bool:
    """Say whether the default action keeps a call from being made."""
    return VALUES.get(seccomp.get("defaultAction", "")) not in LETS_PASS
