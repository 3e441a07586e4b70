"""What clients send, under Docker's JSON names (Engine API 1.51). Unknown fields are passed over."""

from __future__ import annotations

import msgspec


class _Model(msgspec.Struct, rename="pascal", kw_only=True):
    """Snake case here, Docker's spelling in JSON."""


class ContainerConfig(_Model):
    """The portable part of a container's configuration; an image's defaults look the same."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, object] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    image: str = ""
    volumes: dict[str, object] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None


class RestartPolicy(_Model):
    """When berthd starts a container again."""

    name: str = "no"
    maximum_retry_count: int = 0


class LogConfig(_Model):
    """Where output goes."""

    type: str = "json-file"
    config: dict[str, str] | None = None


class Ulimit(_Model):
    """One resource limit."""

    name: str
    soft: int
    hard: int


class MountRequest(_Model):
    """One ``--mount``."""

    type: str = "bind"
    source: str = ""
    target: str = ""
    read_only: bool = False
    tmpfs_options: dict[str, object] | None = None


class HostConfig(_Model):
    """The part that depends on the host."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = "default"
    port_bindings: dict[str, object] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    console_size: list[int] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    extra_hosts: list[str] | None = None
    dns: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    mounts: list[MountRequest] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation: int = 0
    memory_swap: int = 0
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None


class CreateRequest(ContainerConfig, kw_only=True, rename="pascal"):
    """The body of ``POST /containers/create``."""

    host_config: HostConfig | None = None


class ExecConfig(_Model):
    """The body of ``POST /containers/{id}/exec``."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStart(_Model):
    """The body of ``POST /exec/{id}/start``."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


class ContainerRecord(msgspec.Struct, kw_only=True):
    """A container as it is stored. Times are nanoseconds since the epoch, 0 for never."""

    id: str
    name: str
    created_ns: int
    image_id: str
    config: ContainerConfig
    host_config: HostConfig
    args: list[str]
    env: list[str]
    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False
