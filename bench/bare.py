"""A container by nothing but system calls: run by `bench.floor` as a small process of its own.

The first line of standard input is a plan (JSON): what `bench.floor` took from berth's own defaults, so that
the floor does the kernel work of berth's container: the same namespaces, groups, mounts, masks, capabilities
and filter. There is no protocol, no record, no log, no supervisor, and no check that costs a call. Arguments
are converted beforehand; what remains besides the kernel is a loop over ctypes calls in a small process.

Each further line on standard input asks for one container; the answer is its time in nanoseconds until its
exit is known, and until nothing of it is left. It imports nothing of berth.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import socket
import struct
import sys
import time

libc = ctypes.PyDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 5
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

MACHINE = os.uname().machine
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[MACHINE]
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}[MACHINE]
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}[MACHINE]
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}[MACHINE]
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_CLONE3, SYS_CLOSE_RANGE, SYS_MOUNT_SETATTR = (
    428,
    429,
    435,
    436,
    442,
)
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
CLONE_PIDFD, CLONE_INTO_CGROUP = 0x1000, 0x200000000
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
CLONE_NEWNET, CLONE_NEWCGROUP = 0x40000000, 0x02000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE = 1, 32, 4096, 8192
MS_REC, MS_PRIVATE, SAFE = 16384, 1 << 18, 2 | 4 | 8
MNT_DETACH = 2
PR_CAPBSET_DROP, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 8, 47, 4
SIOCSIFFLAGS = 0x8914
SIGCHLD = 17
# Values of struct mount_attr: read-only, and private.
READ_ONLY = struct.pack("QQQQ", 1, 0, 0, 0)
PRIVATE = struct.pack("QQQQ", 0, 0, 1 << 18, 0)
LO_UP = struct.pack("16sh14x", b"lo", 0x1 | 0x40)


def check(result: int, what: str) -> int:
    """End this process when a call failed."""
    if result < 0:
        os.write(2, f"floor: {what}: {os.strerror(ctypes.get_errno())}\n".encode())
        os._exit(121)
    return result


class Bare:
    """One plan, ready to be carried out again and again."""

    def __init__(self, plan: dict) -> None:
        self.plan = plan
        groups = [
            (os.open(root, os.O_RDONLY | os.O_DIRECTORY), file) for root, file in plan["groups"]
        ]
        # Entered by the clone where that is possible: a write there waits for an RCU grace period.
        self.unified = next((fd for fd, file in groups if file == "cgroup.procs"), None)
        self.entered = [(fd, file) for fd, file in groups if fd != self.unified]
        self.groups = [fd for fd, _ in groups]
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        enter_template(plan["base"])
        self.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
        self.flags |= CLONE_NEWNET if plan["network"] else 0
        self.pidfd = ctypes.c_int(-1)
        code = bytes.fromhex(plan["filter"])
        self.code = ctypes.create_string_buffer(code, len(code))
        self.filter = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(self.code))
        self.number = 0

    def run(self) -> tuple[int, int]:
        """Make one container, run it, remove it."""
        self.number += 1
        name = f"{self.plan['base']}/{self.number}"
        group = f"{self.plan['parent']}/{self.number}"
        begin = time.perf_counter_ns()
        for folder in (name, f"{name}/fs", f"{name}/work"):
            os.mkdir(folder)
        for fd in self.groups:
            os.mkdir(group, dir_fd=fd)
        trees = [tree(path) for path, _ in self.plan["trees"]]
        outputs = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        pid = self.clone(group)
        if pid == 0:
            try:
                self.child(group, str(self.number), trees, outputs)
            finally:
                os._exit(120)
        mounts = hold_mounts(pid)
        for fd in (*trees, outputs[0][1], outputs[1][1]):
            os.close(fd)
        for source, _ in outputs:
            os.read(source, 1)
            os.close(source)
        _, status = os.waitpid(pid, 0)
        ended = time.perf_counter_ns() - begin
        if status:
            raise SystemExit(f"floor: the container ended with {status}")
        for fd in self.groups:
            os.rmdir(group, dir_fd=fd)
        os.close(self.pidfd.value)
        if mounts is not None:
            os.close(mounts)
        remove(name)
        return ended, time.perf_counter_ns() - begin

    def clone(self, group: str) -> int:
        """clone3(2) with all namespaces, into the group of version 2."""
        flags, born = self.flags, -1
        if self.unified is not None:
            flags |= CLONE_INTO_CGROUP
            born = os.open(group, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.unified)
        address = ctypes.addressof(self.pidfd)
        fields = struct.pack("10Qq", flags, address, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, born)
        ctypes.pythonapi.PyOS_BeforeFork()
        pid = libc.syscall(SYS_CLONE3, fields, len(fields), None, None, None)
        if pid == 0:
            ctypes.pythonapi.PyOS_AfterFork_Child()
            return 0
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        check(pid, "clone3")
        if born >= 0:
            os.close(born)
        return pid

    def child(self, group: str, name: str, trees: list[int], outputs: tuple) -> None:
        """Become the container's program."""
        os.setsid()
        check(libc.syscall(SYS_KEYCTL, 1, None, None, None, None), "keyctl")
        for fd, file in self.entered:
            tasks = os.open(f"{group}/{file}", os.O_WRONLY, dir_fd=fd)
            os.write(tasks, b"0")
            os.close(tasks)
        check(libc.unshare(CLONE_NEWCGROUP), "unshare")
        check(libc.sethostname(b"floor", 5), "sethostname")
        self.enter_root(name)
        for operation, *arguments in self.plan["operations"]:
            OPERATIONS[operation](*arguments)
        for fd, (_, target) in zip(trees, self.plan["trees"], strict=True):
            os.close(os.open(target, os.O_CREAT | os.O_RDONLY, 0o644))
            arguments = fd, b"", AT_EMPTY_PATH | AT_RECURSIVE, PRIVATE, len(PRIVATE)
            check(libc.syscall(SYS_MOUNT_SETATTR, *arguments), "mount_setattr")
            move(fd, target)
        for number, fd in enumerate((self.null, outputs[0][1], outputs[1][1])):
            os.dup2(fd, number)
        libc.syscall(SYS_CLOSE_RANGE, 3, (1 << 31) - 1, None, None, None)
        os.umask(0o022)
        self.drop()
        os.execve("/bin/true", ["true"], {"PATH": "/bin", "HOME": "/", "HOSTNAME": "floor"})

    def enter_root(self, name: str) -> None:
        """Mount the overlay and make it the root."""
        os.chdir(self.plan["base"])
        data = f"lowerdir=lower,upperdir={name}/fs,workdir={name}/work,{self.plan['overlay']}"
        mount("overlay", "/rootfs", "overlay", 0, data)
        os.chdir("/rootfs")
        check(libc.syscall(SYS_PIVOT_ROOT, b".", b".", None, None, None), "pivot_root")
        check(libc.umount2(b".", MNT_DETACH), "umount2")
        os.chdir("/")

    def drop(self) -> None:
        """Load the filter and keep only a container's capabilities."""
        check(libc.syscall(SYS_SECCOMP, 1, 0, self.filter, None, None), "seccomp")
        for number in self.plan["dropped"]:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        kept = self.plan["kept"]
        words = [half for word in (kept & 0xFFFFFFFF, kept >> 32) for half in (word, word, 0)]
        header, sets = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *words)
        check(libc.syscall(SYS_CAPSET, header, sets, None, None, None), "capset")
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def hold_mounts(pid: int) -> int | None:
    """Keep a mount namespace, so that it is not taken apart while the exit is waited for."""
    try:
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # it has ended already
        return None


def mount(source: str, target: str, kind: str, flags: int, data: str | None) -> None:
    """mount(2)."""
    result = libc.mount(
        *(source.encode(), target.encode(), kind.encode()), flags, data.encode() if data else None
    )
    check(result, f"mount {kind} {target}")


def make(target: str, kind: str, source: str, flags: int, data: str | None) -> None:
    """Make a mount point and mount there."""
    os.mkdir(target)
    mount(source, target, kind, flags, data)


def node(path: str, device: int) -> None:
    """Make a character device."""
    os.mknod(path, 0o020666, device)
    os.chown(path, 0, 0)


def mask(path: str) -> None:
    """Hide a file or a directory."""
    if os.path.isdir(path):
        mount("tmpfs", path, "tmpfs", SAFE | MS_RDONLY, None)
    else:
        mount("/dev/null", path, "", MS_BIND, None)


def tree(path: str) -> int:
    """Clone the mount of ``path``."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    arguments = AT_FDCWD, path.encode(), flags, None, None
    return check(libc.syscall(SYS_OPEN_TREE, *arguments), f"open_tree {path}")


def move(fd: int, target: str) -> None:
    """Attach a cloned mount."""
    arguments = fd, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH
    check(libc.syscall(SYS_MOVE_MOUNT, *arguments), f"move_mount {target}")
    os.close(fd)


def read_only(path: str) -> None:
    """Bind a path over itself, read-only."""
    fd = tree(path)
    arguments = fd, b"", AT_EMPTY_PATH | AT_RECURSIVE, READ_ONLY, len(READ_ONLY)
    check(libc.syscall(SYS_MOUNT_SETATTR, *arguments), f"mount_setattr {path}")
    move(fd, path)


def lo_up() -> None:
    """Bring the loopback device up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, LO_UP)


OPERATIONS = {
    "mount": mount,
    "make": make,
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "node": node,
    "symlink": os.symlink,
    "mask": mask,
    "read only": read_only,
    "lo up": lo_up,
}


def remove(path: str) -> None:
    """Delete a tree."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)


def enter_template(base: str) -> None:
    """Leave the host's mounts behind for a handful: cloning a mount namespace copies all that are in it."""
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("", "/", "", MS_REC | MS_PRIVATE, None)
    kept = os.open(base, os.O_PATH)
    mount("tmpfs", base, "tmpfs", 0, "mode=755")
    for folder in ("proc", "rootfs", base.strip("/")):
        os.makedirs(f"{base}/{folder}", exist_ok=True)
    mount(f"/proc/self/fd/{kept}", f"{base}{base}", "", MS_BIND, None)
    mount("proc", f"{base}/proc", "proc", SAFE, None)
    os.close(kept)
    os.chdir(base)
    check(libc.syscall(SYS_PIVOT_ROOT, b".", b".", None, None, None), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def main() -> None:
    """Serve until standard input ends."""
    bare = Bare(json.loads(sys.stdin.readline()))
    gc.collect()
    gc.disable()
    gc.freeze()
    while sys.stdin.readline():
        print(*bare.run(), flush=True)


main()
