"""OCI runtime-spec 1.3 ``config.json`` as types. Documents stay plain JSON; these name their keys.

Only imported while type checking: on the hot path this module costs nothing.
https://github.com/opencontainers/runtime-spec/blob/main/config.md
"""

from __future__ import annotations

from typing import TypedDict


class Root(TypedDict, total=False):
    """``root``."""

    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    """An entry of ``mounts``, applied in order."""

    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[IdMapping]
    gidMappings: list[IdMapping]


class IdMapping(TypedDict):
    """A span of ids: inside, outside, how many."""

    containerID: int
    hostID: int
    size: int


class User(TypedDict, total=False):
    """``process.user``."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class ConsoleSize(TypedDict):
    """``process.consoleSize``."""

    height: int
    width: int


class Capabilities(TypedDict, total=False):
    """``process.capabilities``: names as ``CAP_CHOWN``."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """An entry of ``process.rlimits``: type as ``RLIMIT_NOFILE``."""

    type: str
    soft: int
    hard: int


class Scheduler(TypedDict, total=False):
    """``process.scheduler``: policy as ``SCHED_BATCH``, flags as ``SCHED_FLAG_RESET_ON_FORK``."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)


class ExecCpuAffinity(TypedDict, total=False):
    """``process.execCPUAffinity``: lists of processors, while joining and after."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    """``process``."""

    terminal: bool
    consoleSize: ConsoleSize
    cwd: str
    env: list[str]
    args: list[str]
    user: User
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    oomScoreAdj: int
    apparmorProfile: str
    selinuxLabel: str
    scheduler: Scheduler
    ioPriority: IOPriority
    execCPUAffinity: ExecCpuAffinity


class Namespace(TypedDict, total=False):
    """An entry of ``linux.namespaces``: type is pid, network, mount, ipc, uts, user, cgroup or time."""

    type: str
    path: str


class DeviceRule(TypedDict, total=False):
    """An entry of ``linux.resources.devices``. Missing major or minor means any."""

    allow: bool
    type: str
    major: int
    minor: int
    access: str


class Device(TypedDict, total=False):
    """An entry of ``linux.devices``."""

    path: str
    type: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class Memory(TypedDict, total=False):
    """``linux.resources.memory``, in bytes; -1 is unlimited. ``swap`` is memory plus swap."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    checkBeforeUpdate: bool


class Cpu(TypedDict, total=False):
    """``linux.resources.cpu``: quota and period in microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict):
    """``linux.resources.pids``; -1 or 0 is unlimited."""

    limit: int


class ThrottleDevice(TypedDict):
    """An entry of the ``throttle…Device`` lists."""

    major: int
    minor: int
    rate: int


class WeightDevice(TypedDict, total=False):
    """An entry of ``weightDevice``."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class BlockIO(TypedDict, total=False):
    """``linux.resources.blockIO``."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """An entry of ``hugepageLimits``: page size as ``2MB``, limit in bytes."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict):
    """An entry of ``network.priorities``."""

    name: str
    priority: int


class Network(TypedDict, total=False):
    """``linux.resources.network``."""

    classID: int
    priorities: list[InterfacePriority]


class RdmaLimit(TypedDict, total=False):
    """An entry of ``rdma``, by device."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """``linux.resources``."""

    devices: list[DeviceRule]
    memory: Memory
    cpu: Cpu
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    rdma: dict[str, RdmaLimit]
    unified: dict[str, str]


class SeccompArg(TypedDict, total=False):
    """A condition on a syscall's argument."""

    index: int
    value: int
    valueTwo: int
    op: str


class SeccompSyscall(TypedDict, total=False):
    """A rule of ``linux.seccomp``."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[SeccompArg]


class Seccomp(TypedDict, total=False):
    """``linux.seccomp``."""

    defaultAction: str
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[SeccompSyscall]


class Personality(TypedDict, total=False):
    """``linux.personality``: domain as ``LINUX32``."""

    domain: str
    flags: list[str]


class TimeOffset(TypedDict, total=False):
    """``linux.timeOffsets``, by clock."""

    secs: int
    nanosecs: int


class MemoryPolicy(TypedDict, total=False):
    """``linux.memoryPolicy``: mode as ``MPOL_BIND``, nodes as ``0-3,7``."""

    mode: str
    nodes: str
    flags: list[str]


class NetDevice(TypedDict, total=False):
    """``linux.netDevices``, by the name outside; ``name`` is the one inside."""

    name: str


class Linux(TypedDict, total=False):
    """``linux``."""

    namespaces: list[Namespace]
    devices: list[Device]
    cgroupsPath: str
    resources: Resources
    sysctl: dict[str, str]
    seccomp: Seccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    uidMappings: list[IdMapping]
    gidMappings: list[IdMapping]
    personality: Personality
    timeOffsets: dict[str, TimeOffset]
    netDevices: dict[str, NetDevice]
    intelRdt: dict[str, object]
    memoryPolicy: MemoryPolicy


class Hook(TypedDict, total=False):
    """An entry of one of the lists in ``hooks``; timeout in seconds."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Spec(TypedDict, total=False):
    """The whole document."""

    ociVersion: str
    root: Root
    mounts: list[Mount]
    process: Process
    hostname: str
    domainname: str
    linux: Linux
    hooks: dict[str, list[Hook]]
    annotations: dict[str, str]
