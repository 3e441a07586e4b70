"""From what clients ask for to an OCI runtime spec. Pure functions: no I/O, no kernel."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from berth.engine import defaults
from berth.errors import InvalidArgument
from berth.kernel.capabilities import NAMES

if TYPE_CHECKING:
    from berth.engine.models import ContainerConfig, ContainerRecord, ExecConfig, HostConfig
    from berth.images.service import ImageConfig
    from berth.oci.runtime_spec import (
        Capabilities,
        Cpu,
        Memory,
        Mount,
        Namespace,
        Process,
        Resources,
        Spec,
    )

PREFIX = "CAP_"


def arguments(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the command line: an entrypoint given by the client drops the image's command."""
    entrypoint, command = _words(config.entrypoint), _words(config.cmd)
    if entrypoint is None:
        entrypoint = image.entrypoint or []
        command = command or image.cmd or []
    elif entrypoint == [""]:
        entrypoint = []
    args = [*entrypoint, *(command or [])]
    if not args:
        raise InvalidArgument("no command specified")
    return args


def _words(value: list[str] | str | None) -> list[str] | None:
    return shlex.split(value) if isinstance(value, str) else value


def environment(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """Return PATH, TERM, the image's variables and the client's; later ones win, a bare name unsets."""
    values: dict[str, str] = {}
    base = [defaults.PATH, *(["TERM=xterm"] if config.tty else []), *(image.env or [])]
    for entry in [*base, *(config.env or [])]:
        name, equals, _ = entry.partition("=")
        if equals:
            values[name] = entry
        else:
            values.pop(name, None)
    return list(values.values())


def capability_names(host: HostConfig) -> list[str]:
    """Return the capabilities after --cap-add, --cap-drop and --privileged."""
    if host.privileged:
        return list(NAMES)
    added = [_capability(name) for name in host.cap_add or []]
    dropped = [_capability(name) for name in host.cap_drop or []]
    names = [] if "ALL" in dropped else list(defaults.CAPABILITIES)
    if "ALL" in added:
        names = list(NAMES)
    names += [name for name in added if name not in names and name != "ALL"]
    return [name for name in names if name not in dropped]


def _capability(name: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith(PREFIX) else PREFIX + upper
    if full not in NAMES:
        raise InvalidArgument(f'invalid capability: unknown capability: "{full}"')
    return full


def capabilities(names: list[str]) -> Capabilities:
    """Return the sets of a process with ``names``: nothing inheritable, nothing ambient."""
    return {"bounding": names, "effective": names, "permitted": names}


def resources(host: HostConfig) -> Resources:
    """Return the limits; Docker's minimum and its default for swap (as much again as memory)."""
    found: Resources = {}
    if memory := _memory(host):
        found["memory"] = memory
    if cpu := _cpu(host):
        found["cpu"] = cpu
    if host.pids_limit:
        found["pids"] = {"limit": host.pids_limit}
    return found


def _memory(host: HostConfig) -> Memory:
    if 0 < host.memory < defaults.MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < host.memory_swap < host.memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    memory: Memory = {}
    if host.memory:
        memory["limit"] = host.memory
        memory["swap"] = host.memory_swap or host.memory * 2
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host: HostConfig) -> Cpu:
    cpu: Cpu = {}
    if host.nano_cpus:
        cpu["period"] = 100_000
        cpu["quota"] = host.nano_cpus * 100_000 // 1_000_000_000
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    return cpu


def namespaces(host: HostConfig) -> list[Namespace]:
    """Return the namespaces to make: all, less those that are the host's on request."""
    kinds = ["mount"]
    for kind, mode in (
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("uts", host.uts_mode),
        ("network", host.network_mode),
        ("cgroup", host.cgroupns_mode),
    ):
        if mode != "host":
            kinds.append(kind)
    return [{"type": kind} for kind in kinds]


def tmpfs_mounts(host: HostConfig) -> list[Mount]:
    """Return the mounts of --tmpfs and --mount type=tmpfs."""
    safe = ["noexec", "nosuid", "nodev"]
    found: list[Mount] = []
    for target, options in (host.tmpfs or {}).items():
        words = [word for word in options.split(",") if word]
        found.append(_tmpfs(target, [*safe, *words]))
    for request in host.mounts or []:
        if request.type == "tmpfs":
            given = request.tmpfs_options
            words = [f"size={given.size_bytes}"] if given and given.size_bytes else []
            words += [f"mode={given.mode:o}"] if given and given.mode else []
            found.append(_tmpfs(request.target, [*safe, *words]))
    return found


def _tmpfs(target: str, options: list[str]) -> Mount:
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}


def process(record: ContainerRecord) -> Process:
    """Return the container's own process."""
    host = record.host_config
    found: Process = {
        "args": record.args,
        "env": [f"HOSTNAME={hostname(record)}", *record.env],
        "cwd": record.config.working_dir or "/",
        "capabilities": capabilities(capability_names(host)),
        "noNewPrivileges": has_no_new_privileges(host),
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard}
            for limit in host.ulimits or []
        ],
    }
    if host.oom_score_adj:
        found["oomScoreAdj"] = host.oom_score_adj
    return found


def exec_process(record: ContainerRecord, config: ExecConfig) -> Process:
    """Return an extra process of the container."""
    names = list(NAMES) if config.privileged else capability_names(record.host_config)
    found = process(record)
    found["args"] = config.cmd or []
    found["env"] = [*found["env"], *(["TERM=xterm"] if config.tty else []), *(config.env or [])]
    found["capabilities"] = capabilities(names)
    if config.working_dir:
        found["cwd"] = config.working_dir
    return found


def has_no_new_privileges(host: HostConfig) -> bool:
    """Say whether --security-opt no-new-privileges was given."""
    options = host.security_opt or []
    return any(
        o in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true")
        for o in options
    )


def hostname(record: ContainerRecord) -> str:
    """Return the host name: what was asked for, else the short id."""
    return record.config.hostname or record.id[:12]


def build(record: ContainerRecord, *, cgroup: str) -> Spec:
    """Return the whole spec of a container. ``cgroup``: the engine's top group."""
    host = record.host_config
    shm = host.shm_size or defaults.SHM_SIZE_BYTES
    masked = defaults.MASKED_PATHS if host.masked_paths is None else host.masked_paths
    read_only = defaults.READ_ONLY_PATHS if host.readonly_paths is None else host.readonly_paths
    return {
        "ociVersion": "1.2.0",
        "root": {"readonly": host.readonly_rootfs},
        "hostname": hostname(record),
        "domainname": record.config.domainname,
        "process": process(record),
        "mounts": [
            *defaults.mounts(shm_size_bytes=shm, writable=host.privileged),
            *tmpfs_mounts(host),
        ],
        "linux": {
            "namespaces": namespaces(host),
            "cgroupsPath": f"{cgroup}/{'dev' if host.privileged else 'std'}/{record.id}",
            "devices": defaults.devices(),
            "resources": resources(host),
            "sysctl": host.sysctls or {},
            "maskedPaths": [] if host.privileged else list(masked),
            "readonlyPaths": [] if host.privileged else list(read_only),
        },
    }
