"""Write src/berth/runtime/seccomp/tables.py: system call numbers by name, a column an architecture.

x86's come from the kernel's headers, ARM's from libseccomp (its header for the names, the library for
the numbers), and both from the list below for calls younger than those. Run it on x86_64 with
libseccomp-dev and linux-libc-dev:

    python tools/syscall_tables.py

libseccomp is no source for i386: it has no numbers for what socketcall(2) and ipc(2) also do.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from pathlib import Path

NAMES = Path("/usr/include/seccomp-syscalls.h")
HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
TARGET = Path(__file__).parents[1] / "src/berth/runtime/seccomp/tables.py"

COLUMNS = ("x86_64", "i386", "x32", "aarch64", "arm")
KERNEL_HEADERS = {"x86_64": "unistd_64.h", "i386": "unistd_32.h", "x32": "unistd_x32.h"}
LIBSECCOMP = {"aarch64": 0xC00000B7, "arm": 0x40000028}  # SCMP_ARCH_*
DEFINE = re.compile(r"#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ )?(\d+)\)?")

# Linux 6.2 to 6.17, scripts/syscall.tbl: from 424 on a number is the same on every architecture.
YOUNG = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
YOUNG_HERE = {("uretprobe", "x86_64"): 335, ("uprobe", "x86_64"): 336}

HEAD = '''"""System call numbers by name and architecture. Written by tools/syscall_tables.py: do not edit.

A line a name; the columns are those of ``COLUMNS``, "-" where the architecture has no such call. x32's
numbers are without the bit that marks them (0x40000000).
"""

from __future__ import annotations

COLUMNS = (%s)

'''
FOOT = '''

def numbers(architecture: str) -> dict[str, int]:
    """Return the numbers of ``architecture``'s system calls by name."""
    column = COLUMNS.index(architecture) + 1
    rows = (line.split(" ") for line in TABLE.splitlines())
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
'''


def main() -> None:
    """Write the module."""
    tables = {architecture: numbers(architecture) for architecture in COLUMNS}
    names = sorted({name for table in tables.values() for name in table})
    rows = ([name, *(str(tables[a].get(name, "-")) for a in COLUMNS)] for name in names)
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    table = 'TABLE = """\\\n' + "\n".join(map(" ".join, rows)) + '\n"""\n'
    TARGET.write_text(HEAD % columns + table + FOOT)


def numbers(architecture: str) -> dict[str, int]:
    """Return what one architecture has."""
    if architecture in KERNEL_HEADERS:
        text = (HEADERS / KERNEL_HEADERS[architecture]).read_text()
        found = {name: int(number) for name, number in DEFINE.findall(text)}
    else:
        known = re.findall(r"#define __SNR_(\w+)", NAMES.read_text())
        resolved = ((name, resolve(name, LIBSECCOMP[architecture])) for name in known)
        found = {name: number for name, number in resolved if number >= 0}
    here = {name: number for (name, where), number in YOUNG_HERE.items() if where == architecture}
    return found | YOUNG | here


def resolve(name: str, architecture: int) -> int:
    """Return the number of ``name``, negative when there is none."""
    return int(LIBRARY.seccomp_syscall_resolve_name_arch(architecture, name.encode()))


LIBRARY = ctypes.CDLL(ctypes.util.find_library("seccomp"))
LIBRARY.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)

if __name__ == "__main__":
    main()
