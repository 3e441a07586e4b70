"""The kernel's price of berth's container: what `berth.engine.defaults` asks for, done by `bench.bare`.

The operations are derived from berth's defaults, so that the floor follows the product. Left out is what is
not the container's: processes that watch it, records, logs, messages. A network namespace of the container's
own is made by the clone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.accounts import Account, Cost
from bench.engines import program, remove_groups

PROGRAM = Path(__file__).with_name("bare.py")
NULL_BYTES = b"0.0.0.0 floor\n"


class Floor:
    """A process that makes bare containers, one at a time."""

    def __init__(self, base: Path, *, network: bool) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="floor-", dir=base))
        self.account = Account(f"bench-{os.getpid()}-floor")
        self.parent = f"{self.account.own.name}/containers"
        (self.base / "lower/bin").mkdir(parents=True)
        (self.base / "lower/bin/busybox").write_bytes(
            Path(program("busybox") or "").resolve().read_bytes()
        )
        (self.base / "lower/bin/busybox").chmod(0o755)
        (self.base / "lower/bin/true").symlink_to("busybox")
        plan = self._plan(network=network)
        self.process = self.account.start(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._tell(json.dumps(plan))

    def run(self) -> Cost:
        """One container from nothing: until its end is known, and the CPU time until nothing is left."""
        begin = self.account.used_s()
        self._tell("")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the floor ended")
        return Cost(int(line.split()[0]) / 1e9, self.account.settled_s() - begin)

    def close(self) -> None:
        """End the process and remove the groups."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        remove_groups(self.account.own.name)

    def _tell(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def _plan(self, *, network: bool) -> dict[str, object]:
        from berth.engine.defaults import CAPABILITIES
        from berth.engine.seccomp import compiled_seccomp
        from berth.kernel import capabilities
        from berth.runtime.rootfs import OVERLAY_OPTIONS

        kept = capabilities.mask(list(CAPABILITIES))
        return {
            "base": str(self.base),
            "parent": self.parent,
            "groups": self._groups(),
            "network": network,
            "overlay": OVERLAY_OPTIONS,
            "operations": _operations(network=network),
            "trees": self._trees(),
            "filter": compiled_seccomp(CAPABILITIES).hex(),
            "kept": kept,
            "dropped": [n for n in range(capabilities.last_cap() + 1) if not kept >> n & 1],
        }

    def _groups(self) -> list[tuple[str, str]]:
        """Make the parent group in every hierarchy; the file by which a process enters a child of it."""
        from berth.kernel import cgroups

        hierarchies = cgroups.detect()
        hierarchies.prepare_parent(self.parent, [])
        return [
            (f"/proc/{os.getpid()}/fd/{h.fd}", "cgroup.procs" if h.unified else "tasks")
            for h in hierarchies.found
        ]

    def _trees(self) -> list[tuple[str, str]]:
        trees = []
        for name in ("hostname", "hosts", "resolv.conf"):
            (self.base / name).write_bytes(NULL_BYTES)
            trees.append((str(self.base / name), f"/etc/{name}"))
        return trees


def _operations(*, network: bool) -> list[tuple[object, ...]]:
    """Return what happens between the pivot and the program, as calls of `bench.bare`."""
    from berth.engine import defaults
    from berth.kernel import cgroups, mounts
    from berth.runtime import mountoptions, nodes, rootfs

    entries = defaults.mounts(shm_size_bytes=defaults.SHM_SIZE_BYTES, writable=False)
    spec = {"mounts": entries}
    plan: list[tuple[object, ...]] = [("mkdir", "/etc")]
    controllers = cgroups.detect().mount_options()
    for entry in (*rootfs.before_network(spec), *rootfs.after_network(spec)):
        target = entry["destination"]
        flags, data, _ = mountoptions.parse_options(entry.get("options", []))
        if entry["type"] != "cgroup":
            plan.append(("make", target, entry["type"], entry["source"], flags, data or None))
        elif target == rootfs.ASIDE:
            plan += [("mkdir", target), *_group_mounts(target, flags, controllers)]
        else:
            plan += [("mount", rootfs.ASIDE, target, "", mounts.MS_MOVE, None)]
            plan += [("rmdir", rootfs.ASIDE)]
        if target == "/dev":
            plan += [
                ("node", d["path"], os.makedev(d["major"], d["minor"])) for d in defaults.devices()
            ]
            plan += [("symlink", source, f"/dev/{name}") for source, name in nodes.DEV_LINKS]
    if network:
        plan.append(("lo up",))
    plan += [("mask", path) for path in defaults.masked_paths() if _is_there(path)]
    plan += [("read only", path) for path in defaults.READ_ONLY_PATHS if _is_there(path)]
    return plan


def _group_mounts(target: str, flags: int, controllers: list[str]) -> list[tuple[object, ...]]:
    from berth.kernel import mounts

    if controllers == ["cgroup2"]:
        return [("mount", "cgroup", target, "cgroup2", flags, None)]
    safe = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    plan: list[tuple[object, ...]] = [
        ("mount", "tmpfs", target, "tmpfs", safe, "mode=755,size=64k")
    ]
    for options in controllers:
        folder = f"{target}/{options.removeprefix('name=')}"
        plan.append(("make", folder, "cgroup", "cgroup", flags, options))
    remount = mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY | safe
    return [*plan, ("mount", "", target, "", remount, None)]


def _is_there(path: str) -> bool:
    return os.path.lexists(path) and not os.path.islink(path)
