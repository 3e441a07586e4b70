"""What an engine has in the kernel and must give back: read from /proc, /sys and two programs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from support.programs import find, run
from support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from berth.engine.instance import Instance
    from support.engine import EngineProcess

CGROUPS = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Return the roots of all cgroup hierarchies."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(left.split()[4]))
    return found


def cgroups(name: str) -> list[Path]:
    """Return the groups below an engine's parents (``name``, ``name/std``, ``name/dev``)."""
    found = []
    for root in hierarchies():
        for folder, folders, _ in os.walk(root / name):
            depth = len(Path(folder).relative_to(root).parts)
            if depth == 2:
                found += [Path(folder, entry) for entry in folders]
    return found


def cgroup_parents(name: str) -> list[Path]:
    """Return the parent groups themselves."""
    return [root / name for root in hierarchies() if (root / name).exists()]


def processes_in_cgroups(name: str) -> set[int]:
    """Return all processes in an engine's groups."""
    pids: set[int] = set()
    for root in hierarchies():
        for folder, _, _ in os.walk(root / name):
            with contextlib.suppress(OSError):
                pids.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return pids


def children() -> dict[int, list[int]]:
    """Return the children of every process."""
    tree: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                tree.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    return tree


def zygotes(engine: int) -> list[int]:
    """Return an engine's zygote; one that takes a dead one's place has its name in a moment."""
    found = []
    for pid in children().get(engine, ()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "berth-zygote\n":
                found.append(pid)
    return found


def descendants(pid: int) -> set[int]:
    """Return all descendants of a process."""
    tree, found, todo = children(), set(), [pid]
    while todo:
        for child in tree.get(todo.pop(), ()):
            found.add(child)
            todo.append(child)
    return found


def holders(roots: Iterable[Path]) -> set[int]:
    """Return the processes with an open file below one of the folders."""
    prefixes = tuple(f"{root}/" for root in roots)
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{entry}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(fd.path).startswith(prefixes):
                        found.add(int(entry))
                        break
    return found


def mounts(roots: Iterable[Path]) -> list[str]:
    """Return the mounts of this mount namespace in or from one of the folders."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if any(str(root) in line for root in roots)]


def links(instance: Instance) -> list[str]:
    """Return the names of the host ends of the engine's veth pairs."""
    prefix = f"bv{instance.name[:6]}"
    return [name for name in os.listdir("/sys/class/net") if name.startswith(prefix)]


def detours(instance: Instance) -> list[str]:
    """Return the names of the pair by which new connections reach published ports."""
    prefix = f"bd{instance.name[:6]}"
    return [name for name in os.listdir("/sys/class/net") if name.startswith(prefix)]


def zombies(parent: int) -> list[int]:
    """Return children of a process that nobody has waited for."""
    found = []
    for pid in children().get(parent, ()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(pid)
    return found


def namespaces_of(pids: Iterable[int], kind: str = "net") -> set[str]:
    """Return the namespaces processes are in, other than our own."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found - {os.readlink(f"/proc/self/ns/{kind}")}


def tables() -> list[str]:
    """Return nftables tables as `family name`."""
    listed = json.loads(run(find("nft"), "-j", "list", "tables", check=True).out)
    return [
        f"{entry['table']['family']} {entry['table']['name']}"
        for entry in listed["nftables"]
        if "table" in entry
    ]


def elements(instance: Instance) -> list[str]:
    """Return the elements of maps and sets in the engine's tables that name a container's port."""
    found: list[str] = []
    for table in tables():
        family, _, name = table.partition(" ")
        if name != instance.table:
            continue
        listed = run(find("nft"), "-j", "list", "table", family, name)
        if listed.code != 0:
            continue
        for entry in json.loads(listed.out)["nftables"]:
            kind = entry.get("map") or {}
            found += [f"{table} {kind['name']}: {element}" for element in kind.get("elem", ())]
    return found


def bridges(instance: Instance) -> list[str]:
    """Return the bridges of the engine's networks, as its table has them, and the default one's."""
    listed = run(find("nft"), "-j", "list", "set", "ip", instance.table, "bridges")
    found = {instance.bridge}
    if listed.code == 0:
        sets = [entry["set"] for entry in json.loads(listed.out)["nftables"] if "set" in entry]
        found.update(name for entry in sets for name in entry.get("elem", ()))
    return sorted(name for name in found if Path("/sys/class/net", name).exists())


def spare(engine: EngineProcess) -> tuple[int, int] | None:
    """Return a monitor without a container, and the process it has cloned ahead once that waits."""
    busy = set()
    for record in (engine.exec_root / "containers").glob("*/task.json"):
        with contextlib.suppress(OSError):
            busy.add(json.loads(record.read_bytes())["monitor"])
    for pid in processes_in_cgroups(engine.instance.cgroup):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            monitor = int(stat.rpartition(")")[2].split()[1])
            if "(berth-init)" in stat and monitor not in busy:
                waits = "skb_wait" in Path(f"/proc/{pid}/wchan").read_text()
                return (monitor, pid) if waits else None
    return None


def groups_of(pid: int) -> set[str]:
    """Return the names of a process's groups."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return {line.rpartition("/")[2] for line in lines}
    return set()


def remains(engine: EngineProcess) -> list[str]:
    """List what containers left: nothing, when none exists. A spare is of the next one."""
    _, ahead = spare(engine) or (0, 0)
    found = [f"mount {line}" for line in mounts((engine.data_root, engine.exec_root))]
    kept = groups_of(ahead)
    found += [f"cgroup {p}" for p in cgroups(engine.instance.cgroup) if p.name not in kept]
    inside = processes_in_cgroups(engine.instance.cgroup) - {ahead}
    found += [f"process in a cgroup {pid}" for pid in inside]
    found += [f"port {element}" for element in elements(engine.instance)]
    for name in ("containers", "execs"):
        folder = engine.exec_root / name
        found += [f"file {path}" for path in sorted(folder.glob("*"))] if folder.exists() else []
    folder = engine.data_root / "containers"
    found += [f"file {path}" for path in sorted(folder.glob("*"))] if folder.exists() else []
    family = descendants(engine.pid)
    found += [f"zombie {pid}" for pid in zombies(engine.pid)]
    found += [
        f"monitor {pid}"
        for pid in (family | holders([engine.exec_root])) - {engine.pid}
        if _is_monitor(pid, engine)
    ]
    return found


def _is_monitor(pid: int, engine: EngineProcess) -> bool:
    """A process with a record's folder open, or not in the host's network namespace."""
    prefix = f"{engine.exec_root}/"
    with contextlib.suppress(OSError):
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(fd.path)
                if target.startswith((f"{prefix}containers/", f"{prefix}execs/")):
                    return True
        return bool(namespaces_of([pid]))
    return False


def end_processes(cgroup: str, roots: Iterable[Path]) -> None:
    """Kill whatever of an engine still runs, by process id, and wait until it is gone."""

    def alive() -> set[int]:
        return (processes_in_cgroups(cgroup) | holders(roots)) - {os.getpid()}

    def gone() -> bool:
        for pid in alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not alive()

    wait_for(gone, "the engine's processes are gone")


def _remove_groups(instance: Instance) -> list[str]:
    """Remove what can be of an engine's groups, and return what is left: processes may just be ending."""
    tops = [root / instance.cgroup for root in hierarchies()]
    for top in tops:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    return [str(top) for top in tops if top.exists()]


def remove_objects(instance: Instance) -> list[str]:
    """Remove the engine's parents of groups, bridge and table; return what there was."""
    found = []
    for root in hierarchies():
        found += [folder for folder, _, _ in os.walk(root / instance.cgroup)]
    with contextlib.suppress(AssertionError):  # whoever asks for what is left says so
        wait_for(lambda: not _remove_groups(instance), "the engine's groups are gone")
    for name in (*links(instance), *detours(instance), *bridges(instance)):
        if Path("/sys/class/net", name).exists():
            found.append(name)
            run(find("ip"), "link", "delete", name)
    for table in tables():
        if table.split()[1] == instance.table:
            found.append(table)
            run(find("nft"), "delete", "table", *table.split())
    return found
