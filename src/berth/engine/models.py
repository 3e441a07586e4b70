"""What clients send and what is stored, under Docker's JSON names (Engine API 1.56).

How clients' JSON becomes these is :mod:`berth.engine.decoding`'s matter.
"""

from __future__ import annotations

import msgspec

# The types of fields, which msgspec needs to see.
from berth.configuration.subordinate import IdMaps  # noqa: TC001
from berth.engine.networkmodels import EndpointRequest, NetworkingConfig  # noqa: TC001

field = msgspec.field


class _Model(msgspec.Struct, rename="pascal", kw_only=True):
    """Snake case here, Docker's spelling in JSON."""


class Healthcheck(_Model):
    """How to tell whether a container is well; times in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


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
    healthcheck: Healthcheck | None = None
    image: str = ""
    volumes: dict[str, object] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RestartPolicy(_Model):
    """When berthd starts a container again."""

    name: str = "no"
    maximum_retry_count: int = 0


class LogConfig(_Model):
    """Where output goes."""

    type: str = ""
    config: dict[str, str] | None = None


class Ulimit(_Model):
    """One resource limit; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class BindOptions(_Model):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(_Model):
    """The driver of a volume that a mount makes."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(_Model):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(_Model):
    """Options of a tmpfs mount; the mode is a number, not octal digits."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class ImageOptions(_Model):
    """Options of an image mount."""

    subpath: str = ""


class MountRequest(_Model):
    """One ``--mount``."""

    type: str = "bind"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class DeviceMapping(_Model):
    """One ``--device``."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class WeightDevice(_Model):
    """A block device's weight."""

    path: str
    weight: int


class ThrottleDevice(_Model):
    """A block device's limit: bytes or operations a second."""

    path: str
    rate: int


class PortBinding(_Model):
    """Where a port is published; an empty port is any free one."""

    host_ip: str = ""
    host_port: str = ""


class DeviceRequest(_Model):
    """One ``--gpus`` or CDI device."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = field(default=None, name="DeviceIDs")
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class HostConfig(_Model):
    """The part that depends on the host."""

    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = "default"
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    mounts: list[MountRequest] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[ThrottleDevice] | None = field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = field(default=0, name="IOMaximumBandwidth")


class CreateRequest(ContainerConfig, kw_only=True, rename="pascal"):
    """The body of ``POST /containers/create``."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None
    mac_address: str = ""  # of the main network, before clients said it for each

    def config(self) -> ContainerConfig:
        """Return the portable part alone."""
        names = ContainerConfig.__struct_fields__
        return ContainerConfig(**{name: getattr(self, name) for name in names})


class UpdateRequest(HostConfig, kw_only=True, rename="pascal"):
    """The body of ``POST /containers/{id}/update``; what was not said stays, other fields are passed over."""

    restart_policy: RestartPolicy = field(default_factory=lambda: RestartPolicy(name=""))


class CheckpointRequest(_Model):
    """The body of ``POST /containers/{id}/checkpoints``."""

    checkpoint_id: str = field(default="", name="CheckpointID")
    checkpoint_dir: str = ""
    exit: bool = False


class ExecConfig(_Model):
    """The body of ``POST /containers/{id}/exec``."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    console_size: list[int] | None = None
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


class VolumeCreate(_Model):
    """The body of ``POST /volumes/create``."""

    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class MountPoint(msgspec.Struct, kw_only=True):
    """A bind, volume or image in a container, decided when it was created. tmpfs is in the host config."""

    kind: str  # bind, volume or image
    target: str
    source: str  # the path on the host; an image's name
    volume: str = ""  # its name
    image: str = ""  # its id
    subpath: str = ""  # what of the volume or the image is seen
    driver: DriverConfig | None = None  # of a volume that is made for it
    labels: dict[str, str] | None = None  # of the same
    anonymous: bool = False
    options: list[str] = []  # as the client wrote them, for inspect
    read_only: bool = False
    propagation: str = ""
    recursive: bool = True
    read_only_recursive: bool = True  # the mounts below it as well
    make_source: bool = False  # -v makes what is missing, --mount does not
    no_copy: bool = False
    from_elsewhere: bool = False  # a volume whose files are not the engine's own


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
    mount_points: list[MountPoint] = []
    networks: dict[str, EndpointRequest] = {}
    addresses: dict[str, list[str]] = {}  # that it had in them when it ended
    network_of: str = ""  # the container whose network it has since its last start, if not its own
    status: str = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    stopped_by_user: bool = False
    id_maps: IdMaps | None = None  # of its user namespace, as they were when it was created
