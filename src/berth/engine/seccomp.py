"""Seccomp filters of containers: the default one, those of profiles in Docker's format, compiled."""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from berth.engine.seccomp_calls import ALWAYS, BY_CAPABILITY
from berth.errors import InvalidArgument
from berth.runtime.seccomp.compiler import compile_filter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.oci.runtime_spec import Seccomp, SeccompArg, SeccompSyscall

UNCONFINED = "unconfined"
BUILTIN = "builtin"
DEFAULTS = ("", "default", BUILTIN)

ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"
EPERM = 1
ENOSYS = 38
INT = 0xFFFFFFFF

# All that ask for a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
CLONE_NEW = 0x7E020000
# PER_LINUX and PER_LINUX32, each also with UNAME26; and the number that only asks which it is.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# (mask, value) pairs that cover the address families 0 to 63 but 38 (AF_ALG) and 40 (AF_VSOCK).
FAMILIES = (
    (INT & ~31, 0),
    (INT & ~3, 32),
    (INT & ~1, 36),
    (INT, 39),
    (INT, 41),
    (INT & ~1, 42),
    (INT & ~3, 44),
    (INT & ~15, 48),
)

# What changes a file's project, or whether what is made in a directory has that of the directory: FSSETXATTR,
# SETFLAGS, the same of 32 bits, and a call of Linux 6.17. Whom they are refused hears EOPNOTSUPP.
ATTRIBUTE_REQUESTS, ATTRIBUTE_CALL = (0x401C5820, 0x40086602, 0x40046602), "file_setattr"
EOPNOTSUPP = 95

# Machine by `uname -m`: its name in profiles (Go's), and its architectures.
MACHINES = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}


class _Argument(msgspec.Struct, frozen=True):
    index: int
    value: int = 0
    valueTwo: int = 0  # noqa: N815 - as profiles spell it
    op: str = "SCMP_CMP_EQ"


class _Filter(msgspec.Struct, frozen=True):
    caps: list[str] | None = None
    arches: list[str] | None = None
    minKernel: str | None = None  # noqa: N815


class _Rule(msgspec.Struct, frozen=True):
    action: str
    name: str = ""
    names: list[str] | None = None
    errnoRet: int | None = None  # noqa: N815
    args: list[_Argument] | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Architecture(msgspec.Struct, frozen=True):
    architecture: str = ""
    subArchitectures: list[str] | None = None  # noqa: N815


class _Profile(msgspec.Struct, frozen=True):
    defaultAction: str  # noqa: N815
    defaultErrnoRet: int | None = None  # noqa: N815
    architectures: list[str] | None = None
    archMap: list[_Architecture] | None = None  # noqa: N815
    flags: list[str] | None = None
    syscalls: list[_Rule] | None = None
    listenerPath: str = ""  # noqa: N815
    listenerMetadata: str = ""  # noqa: N815


def document_for(option: str, capabilities: Iterable[str]) -> Seccomp | None:
    """Return the document for a --security-opt seccomp value: "", "builtin", "unconfined" or a JSON profile.

    None is unconfined. InvalidArgument in Docker's words for a profile that cannot be read.
    """
    if option == UNCONFINED:
        return None
    if option in DEFAULTS:
        return default_seccomp(capabilities)
    return resolve(option, capabilities)


def filter_for(
    option: str, capabilities: Iterable[str], *, has_quota: bool = False
) -> bytes | None:
    """Return the compiled filter for a --security-opt seccomp value; see :func:`document_for`.

    ``has_quota``: the container stays in its project. Only in a user namespace the kernel sees to that.
    """
    return _compiled(option, frozenset(capabilities), has_quota=has_quota)


def compiled_seccomp(capabilities: Iterable[str]) -> bytes:
    """Return the default profile, compiled once a set of capabilities."""
    compiled = _compiled(BUILTIN, frozenset(capabilities))
    assert compiled is not None, "the default profile is a profile"
    return compiled


@lru_cache(maxsize=64)
def _compiled(
    option: str, capabilities: frozenset[str], *, has_quota: bool = False
) -> bytes | None:
    document = document_for(option, capabilities)
    if document is None:
        return None
    if has_quota:
        document["syscalls"] = [*_in_project(), *document.get("syscalls", [])]
    return compile_filter(document)


def _in_project() -> list[SeccompSyscall]:
    refused: SeccompSyscall = {"names": [], "action": ERRNO, "errnoRet": EOPNOTSUPP}
    asked = [_masked(1, INT, request) for request in ATTRIBUTE_REQUESTS]
    rules: list[SeccompSyscall] = [
        {**refused, "names": ["ioctl"], "args": [condition]} for condition in asked
    ]
    return [*rules, {**refused, "names": [ATTRIBUTE_CALL]}]


def default_seccomp(capabilities: Iterable[str]) -> Seccomp:
    """Return the default profile for a container that has ``capabilities``.

    It differs from Docker's where that one can be passed by: the address family is compared as the kernel
    sees it, an int, so that no upper half of the register makes another family of AF_ALG.
    """
    held = set(capabilities)
    rules: list[SeccompSyscall] = [_allow(ALWAYS)]
    rules += [_allow(calls.split()) for name, calls in BY_CAPABILITY.items() if name in held]
    rules += [_allow(["socket"], _masked(0, *family)) for family in FAMILIES]
    rules += [
        _allow(["personality"], {"index": 0, "value": value, "op": "SCMP_CMP_EQ"})
        for value in PERSONALITIES
    ]
    if "CAP_SYS_ADMIN" not in held:
        rules.append(_allow(["clone"], _masked(0, CLONE_NEW, 0)))
        # Its flags lie in memory, where no filter sees them; ENOSYS makes a C library use clone.
        rules.append({"names": ["clone3"], "action": ERRNO, "errnoRet": ENOSYS})
    return {
        "defaultAction": ERRNO,
        "defaultErrnoRet": EPERM,
        "architectures": architectures(),
        "syscalls": rules,
    }


def architectures() -> list[str]:
    """Return what this machine runs, its own first; empty for one that berth has no tables of."""
    return list(MACHINES.get(platform.machine(), ("", []))[1])


def _allow(names: list[str], *conditions: SeccompArg) -> SeccompSyscall:
    rule: SeccompSyscall = {"names": names, "action": ALLOW}
    if conditions:
        rule["args"] = list(conditions)
    return rule


def _masked(index: int, mask: int, value: int) -> SeccompArg:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def resolve(text: str, capabilities: Iterable[str]) -> Seccomp:
    """Return the document that a profile in Docker's format means here, for ``capabilities``."""
    try:
        profile = msgspec.json.decode(text, type=_Profile)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if profile.architectures and profile.archMap:
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either"
            " 'architectures' or 'archMap'"
        )
    held = set(capabilities)
    wanted = [rule for rule in profile.syscalls or [] if _applies(rule, held)]
    document: Seccomp = {
        "defaultAction": profile.defaultAction,
        "architectures": profile.architectures or _mapped(profile.archMap or []),
        "syscalls": [_rule(rule) for rule in wanted],
    }
    if profile.defaultErrnoRet is not None:
        document["defaultErrnoRet"] = profile.defaultErrnoRet
    if profile.flags is not None:
        document["flags"] = profile.flags
    if profile.listenerPath:
        document["listenerPath"] = profile.listenerPath
        document["listenerMetadata"] = profile.listenerMetadata
    return document


def _mapped(entries: list[_Architecture]) -> list[str]:
    own = architectures()[:1]
    for entry in entries:
        if [entry.architecture] == own:
            return [entry.architecture, *(entry.subArchitectures or [])]
    return []


def _applies(rule: _Rule, held: set[str]) -> bool:
    machine = MACHINES.get(platform.machine(), ("", []))[0]
    excludes = rule.excludes or _Filter()
    if machine in (excludes.arches or []) or held.intersection(excludes.caps or []):
        return False
    if excludes.minKernel and _kernel_is(excludes.minKernel):
        return False
    includes = rule.includes or _Filter()
    if includes.arches and machine not in includes.arches:
        return False
    if includes.minKernel and not _kernel_is(includes.minKernel):
        return False
    return held.issuperset(includes.caps or [])


def _kernel_is(least: str) -> bool:
    """Say whether this kernel is at least "MAJOR.MINOR"."""
    try:
        major, minor = (int(part) for part in least.split("."))
    except ValueError as error:
        raise InvalidArgument(f"invalid kernel version {least!r} in seccomp profile") from error
    here = platform.release().split(".")
    return (int(here[0]), int(here[1].partition("-")[0])) >= (major, minor)


def _rule(rule: _Rule) -> SeccompSyscall:
    if rule.name and rule.names:
        raise InvalidArgument(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    found: SeccompSyscall = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errnoRet is not None:
        found["errnoRet"] = rule.errnoRet
    if rule.args:
        found["args"] = [
            {"index": a.index, "value": a.value, "valueTwo": a.valueTwo, "op": a.op}
            for a in rule.args
        ]
    return found
