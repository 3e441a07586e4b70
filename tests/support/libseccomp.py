"""libseccomp through ctypes: the oracle for our own compiler."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berth.oci.runtime_spec import Seccomp

TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
EEXIST = 17
EDOM = 33


class _Condition(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def is_there() -> bool:
    """Say whether libseccomp is installed."""
    return ctypes.util.find_library("seccomp") is not None


def compile_filter(document: Seccomp) -> bytes:
    """Return what libseccomp makes of a document whose only actions are ALLOW and ERRNO."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_action(document["defaultAction"], document)))
    library.seccomp_arch_remove(context, library.seccomp_arch_native())
    for name in document["architectures"]:
        assert library.seccomp_arch_add(context, ctypes.c_uint32(TOKENS[name])) == 0, name
    for rule in document["syscalls"]:
        action = _action(rule["action"], rule)
        conditions = [
            _Condition(a["index"], OPERATORS[a["op"]], a.get("value", 0), a.get("valueTwo", 0))
            for a in rule.get("args", [])
        ]
        array = (_Condition * max(len(conditions), 1))(*conditions)
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                continue
            result = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(action), number, len(conditions), array
            )
            assert result in (0, -EEXIST, -EDOM), (name, result)
    file = os.memfd_create("filter")
    try:
        assert library.seccomp_export_bpf(context, file) == 0
        return os.pread(file, 1 << 20, 0)
    finally:
        os.close(file)
        library.seccomp_release(context)


def _action(name: str, holder: object) -> int:
    if name == "SCMP_ACT_ALLOW":
        return 0x7FFF0000
    assert name == "SCMP_ACT_ERRNO"
    assert isinstance(holder, dict)
    return 0x00050000 | holder.get("errnoRet", holder.get("defaultErrnoRet", 1))
