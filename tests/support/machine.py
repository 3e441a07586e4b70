"""A virtual machine with Debian's kernel and this machine's files: another kernel, the same programs.

Software emulation, so it works everywhere and needs no KVM. Its root is an overlay: below it this machine's
own root over virtiofs, read-only, above it a tmpfs. So the interpreter, the sources and the tests are found
where they are here, and what is written there is gone with the machine.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import initramfs
from support.programs import find

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / ".build" / "kernel"
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
MEMORY = "1536M"
PROCESSORS = 2
# Emulated AVX is slower than none: glibc would choose it for memcpy.
CPU = "max,-avx,-avx2,-avx512f"
BOOT_S = 120.0
# What the kernel would load by itself if the machine had modprobe: what it boots with, then what berth uses.
MODULES = (
    *("virtio_pci", "virtiofs", "virtio_console", "overlay"),
    *("veth", "bridge", "br_netfilter", "dummy", "macvlan", "tun", "loop"),
    *("nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_ct", "nft_fib_inet"),
    *("nft_reject_inet", "nft_limit", "nft_log", "nft_hash", "nft_numgen", "xt_addrtype"),
    *("nft_dup_ipv4", "nft_dup_ipv6", "nft_meta_bridge", "nf_conntrack_netlink"),
    *("ipvlan", "8021q", "sch_tbf", "sch_netem", "xfs", "quota_v2", "sctp"),
)
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for module in /modules/*; do $b insmod $module; done
$b mount -t virtiofs -o ro host /lower
$b mount -t tmpfs -o mode=755 upper /upper
$b mkdir /upper/fs /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/fs,workdir=/upper/work overlay /root
script=$($b sed 's/.*berth.script=\\([^ ]*\\).*/\\1/' /proc/cmdline)
for folder in dev proc; do $b mount --move /$folder /root/$folder; done
exec $b switch_root /root /bin/sh $script </root/dev/null
"""
# The script's environment. The shell stays pid 1, and so reaps what others leave.
PROLOGUE = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 run /run
# Not on an overlay, which no container's own overlay could have its upper directory on.
mkdir -p /run/tmp /var/lib/berth
mount -t tmpfs -o mode=711 berth /var/lib/berth
ip link set lo up
export TMPDIR=/run/tmp
exec 3>/dev/vport1p1
"""
EPILOGUE = """
exec 3>&-
echo o >/proc/sysrq-trigger
while :; do read -r _ </dev/zero; done
"""


def requirements() -> tuple[str, str, Path]:
    """Return qemu, virtiofsd and the kernel's image; skip what needs them when the machine has them not."""
    qemu = find("qemu-system-x86_64")
    daemon = next((path for path in VIRTIOFSD if os.access(path, os.X_OK)), None)
    if daemon is None:
        pytest.skip("needs the program virtiofsd")
    image = next(KERNEL.glob("boot/vmlinuz-*"), None)
    if image is None:
        pytest.skip("needs a kernel for the virtual machine: tools/test-kernel.sh .build/kernel")
    return qemu, daemon, image


class Machine:
    """A machine that runs one shell script as root and goes; what that writes to descriptor 3 comes out."""

    def __init__(self, script: str, *, kernel_options: str = "") -> None:
        self._qemu, self._virtiofsd, self._image = requirements()
        self._script = script
        self._options = kernel_options
        self._folder = Path(tempfile.mkdtemp(prefix="berth-test-vm-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.console = self._folder / "console.log"

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def lines(self) -> Iterator[bytes]:
        """Return what comes, line by line, until the machine is off."""
        with self._connection.makefile("rb") as stream:
            yield from stream

    def close(self) -> None:
        """Switch the machine off and remove what it had."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        shutil.rmtree(self._folder)

    def _boot(self) -> None:
        script = self._folder / "script"
        script.write_text(PROLOGUE + self._script + EPILOGUE)
        archive = self._folder / "initramfs"
        initramfs.build(
            archive,
            busybox=Path(find("busybox")),
            loaded=initramfs.modules(KERNEL, MODULES),
            init=INIT,
        )
        files = self._share()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._folder / "port"))
            listener.listen(1)
            listener.settimeout(BOOT_S)
            self._start(
                self._qemu,
                *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
                *("-machine", "q35", "-accel", "tcg", "-cpu", CPU, "-smp", str(PROCESSORS)),
                *("-m", MEMORY, "-numa", "node,memdev=memory"),
                *("-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"),
                *("-chardev", f"socket,id=files,path={files}"),
                *("-device", "vhost-user-fs-pci,chardev=files,tag=host"),
                *(
                    "-device",
                    "virtio-serial",
                    "-chardev",
                    f"socket,id=port,path={self._folder}/port",
                ),
                *("-device", "virtserialport,chardev=port"),
                *("-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console"),
                *("-kernel", str(self._image), "-initrd", str(archive), "-append"),
                f"console=ttyS0 panic=-1 quiet mitigations=off berth.script={script} {self._options}",
            )
            self._connection, _ = listener.accept()

    def _share(self) -> Path:
        """Serve this machine's root read-only; return the socket to reach it by."""
        root = self._folder / "root"
        root.mkdir()
        address = self._folder / "files"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(1)
            os.set_inheritable(listener.fileno(), True)
            self._start(
                *(find("unshare"), "--mount", "sh", "-c"),
                f"mount --bind / {root} && mount -o remount,ro,bind {root} && exec {self._virtiofsd}"
                f" --fd={listener.fileno()} --rlimit-nofile=0"
                f" -o source={root},sandbox=chroot,cache=always,log_level=err",
                keep=(listener.fileno(),),
            )
        return address

    def _start(self, *arguments: str, keep: tuple[int, ...] = ()) -> None:
        with (self._folder / f"log-{len(self._processes)}").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    # Not one of them may outlive tests that are killed.
                    (find("setpriv"), "--pdeathsig", "KILL", *arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=keep,
                    start_new_session=True,
                )
            )
