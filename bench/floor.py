"""The floor: a container's kernel work by bare ctypes calls, nothing else.

One clone3(2) into all namespaces; the child joins its groups, mounts an overlay, /proc, /dev, /sys and the
rest, masks paths, pivots, drops the bounding set, loads a filter of berth's default profile and executes
`true`. The parent waits and removes groups and the upper directory. No protocol, no record, no log, no
parsing: what is left is the kernel's price plus one ctypes call each.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import tempfile
import time
from pathlib import Path

from bench.accounts import Cost
from bench.engines import program

libc = ctypes.PyDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

SYS_CLONE3, SYS_PIVOT_ROOT = 435, {"x86_64": 155, "aarch64": 41}[os.uname().machine]
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000
NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RDONLY = 2, 4, 8, 1
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH, PR_CAPBSET_DROP, LAST_CAP = 2, 24, 40
KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
MASKED = ("proc/kcore", "proc/keys", "proc/timer_list", "proc/sched_debug")
READ_ONLY = ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in [
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
        ]
    )


class Floor:
    """Prepared arguments for repeated bare containers below one folder."""

    def __init__(self, base: Path, *, network: bool) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="floor-", dir=base))
        self._lower = self._base / "lower"
        self._root = self._base / "root"
        for folder in ("bin", "proc", "sys", "dev", "etc", "old"):
            (self._lower / folder).mkdir(parents=True)
        self._root.mkdir()
        (self._lower / "bin/true").write_bytes(
            Path(program("busybox") or "").resolve().read_bytes()
        )
        (self._lower / "bin/true").chmod(0o755)
        self._groups = [root / f"floor-{os.getpid()}" for root in _group_roots()]
        arguments = _CloneArgs(
            flags=NAMESPACES | (NEWNET if network else 0), exit_signal=signal.SIGCHLD
        )
        self._clone = ctypes.byref(arguments), ctypes.c_long(ctypes.sizeof(arguments))
        self._number = 0
        self._program = _filter()
        self._bounding = [n for n in range(LAST_CAP + 1) if n not in KEPT_CAPABILITIES]

    def run(self) -> Cost:
        """One container, from nothing to nothing."""
        self._number += 1
        upper, work = self._base / f"u{self._number}", self._base / f"w{self._number}"
        gc.disable()
        cpu, begin = _cpu_s(), time.perf_counter()
        os.mkdir(upper)
        os.mkdir(work)
        for group in self._groups:
            os.mkdir(group)
        ctypes.pythonapi.PyOS_BeforeFork()
        pid = libc.syscall(ctypes.c_long(SYS_CLONE3), *self._clone)
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
            try:
                self._child(upper, work)
            finally:
                os._exit(120)
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(ctypes.get_errno(), "clone3")
        _, status = os.waitpid(pid, 0)
        wall = time.perf_counter() - begin
        for group in self._groups:
            os.rmdir(group)
        cost = Cost(wall, _cpu_s() - cpu)
        gc.enable()
        if status:
            raise RuntimeError(f"the floor's container ended with {status}")
        return cost

    def _child(self, upper: Path, work: Path) -> None:
        for group in self._groups:
            fd = os.open(group / ("tasks" if (group / "tasks").exists() else "cgroup.procs"), 1)
            os.write(fd, b"0")
            os.close(fd)
        root = str(self._root)
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        data = f"lowerdir={self._lower},upperdir={upper},workdir={work}"
        _mount("overlay", root, "overlay", 0, data)
        os.chdir(root)
        _mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k")
        for name, kind, options in (
            ("dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
            ("dev/shm", "tmpfs", "mode=1777,size=65536k"),
            ("dev/mqueue", "mqueue", None),
        ):
            os.mkdir(name)
            _mount(kind, name, kind, MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
        for name, device in _DEVICES:
            os.mknod(f"dev/{name}", 0o666 | 0o020000, device)
        _mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
        for path in MASKED:
            if os.path.exists(path):
                _mount("dev/null", path, None, MS_BIND)
        for path in filter(os.path.exists, READ_ONLY):
            _mount(path, path, None, MS_BIND | MS_REC)
            flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
            _mount(path, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
        _check(libc.syscall(ctypes.c_long(SYS_PIVOT_ROOT), b".", b"."), "pivot_root")
        _check(libc.umount2(b".", MNT_DETACH), "umount2")
        os.chdir("/")
        for number in self._bounding:
            libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0)
        _check(
            libc.syscall(
                ctypes.c_long(SYS_SECCOMP), ctypes.c_long(1), ctypes.c_long(0), self._program
            ),
            "seccomp",
        )
        os.execve("/bin/true", ["true"], {})


_DEVICES = (
    ("null", os.makedev(1, 3)),
    ("zero", os.makedev(1, 5)),
    ("full", os.makedev(1, 7)),
    ("random", os.makedev(1, 8)),
    ("urandom", os.makedev(1, 9)),
    ("tty", os.makedev(5, 0)),
)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [value.encode() if value is not None else None for value in (source, target, kind)]
    _check(
        libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() if data else None),
        f"mount {kind or 'bind'} {target}",
    )


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        os.write(2, f"floor: {call}: {os.strerror(number)}\n".encode())
        os._exit(121)


def _group_roots() -> list[Path]:
    roots = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup"):
            root = Path(left.split()[4])
            # A new cpuset has no processors until somebody copies the parent's: leave it out.
            if root.name != "cpuset":
                roots.append(root)
    return roots


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _filter() -> ctypes.Structure:
    from berth.engine.defaults import CAPABILITIES
    from berth.engine.seccomp import compiled_seccomp

    code = compiled_seccomp(CAPABILITIES)

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    return ctypes.pointer(SockFprog(len(code) // 8, code))
