"""The body of ``POST /containers/create`` from the flags of `run` and `create`."""

from __future__ import annotations

import os

from berth.cli import ports, storage, units
from berth.cli.options import UsageError
from berth.client import documents
from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from berth.cli.options import Options
    from berth.client.documents import Document

    Fields = tuple[tuple[str, str], ...]

# (flag, JSON name): those that are passed on as they are
CONFIG_TEXTS = (
    ("hostname", "Hostname"),
    ("domainname", "Domainname"),
    ("user", "User"),
    ("workdir", "WorkingDir"),
    ("stop-signal", "StopSignal"),
)
HOST_TEXTS = (
    ("cgroup-parent", "CgroupParent"),
    ("cgroupns", "CgroupnsMode"),
    ("cidfile", "ContainerIDFile"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("ipc", "IpcMode"),
    ("isolation", "Isolation"),
    ("pid", "PidMode"),
    ("runtime", "Runtime"),
    ("userns", "UsernsMode"),
    ("uts", "UTSMode"),
    ("volume-driver", "VolumeDriver"),
)
MODES = (
    ("cgroupns", "CGROUP", ("host", "private")),
    ("pid", "PID", ("host", "container")),
    ("userns", "USER", ("host",)),
    ("uts", "UTS", ("host",)),
)
RESOURCES = (  # that `update` changes, too
    ("blkio-weight", "BlkioWeight"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("pids-limit", "PidsLimit"),
)
HOST_NUMBERS = (
    *RESOURCES,
    ("kernel-memory", "KernelMemory"),
    ("memory-swappiness", "MemorySwappiness"),
    ("oom-score-adj", "OomScoreAdj"),
    ("shm-size", "ShmSize"),
)
HOST_SWITCHES = (
    ("init", "Init"),
    ("oom-kill-disable", "OomKillDisable"),
    ("privileged", "Privileged"),
    ("publish-all", "PublishAllPorts"),
    ("read-only", "ReadonlyRootfs"),
    ("rm", "AutoRemove"),
)
HOST_LISTS = (
    ("add-host", "ExtraHosts"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
    ("dns", "Dns"),
    ("dns-option", "DnsOptions"),
    ("dns-search", "DnsSearch"),
    ("group-add", "GroupAdd"),
    ("volumes-from", "VolumesFrom"),
)
HOST_MAPS = (
    ("annotation", "Annotations"),
    ("storage-opt", "StorageOpt"),
    ("sysctl", "Sysctls"),
)
THROTTLES = (
    ("device-read-bps", "BlkioDeviceReadBps"),
    ("device-read-iops", "BlkioDeviceReadIOps"),
    ("device-write-bps", "BlkioDeviceWriteBps"),
    ("device-write-iops", "BlkioDeviceWriteIOps"),
)

SYSCTLS = {
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall"),
    *("kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"),
}
SYSCTL_TREES = ("net.", "fs.mqueue.")
ULIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)


def build(options: Options, arguments: list[str]) -> Document:
    """Return the body. InvalidArgument says what is wrong with a flag's value."""
    body = _config(options, arguments)
    host = _host(options)
    published = ports.published(options.all("publish"))
    exposed = {**ports.exposed(options.all("expose")), **{port: {} for port in published}}
    if exposed:
        body["ExposedPorts"] = exposed
    host["PortBindings"] = published
    binds, volumes = storage.volumes(options.all("volume"))
    if volumes:
        body["Volumes"] = volumes
    if binds:
        host["Binds"] = binds
    body["HostConfig"] = host
    _network(options, body, host)
    return body


def _stream(name: str) -> str:
    if name.upper() not in ("STDIN", "STDOUT", "STDERR"):
        why = "valid streams are STDIN, STDOUT and STDERR"
        raise UsageError(f'invalid argument "{name}" for "-a, --attach" flag: {why}')
    return name.upper()


def _config(options: Options, arguments: list[str]) -> Document:
    attached = [_stream(name) for name in options.all("attach")]
    interactive = options.on("interactive")
    detached = options.on("detach")
    outputs = not detached and not attached
    body: Document = {
        "Image": arguments[0],
        "Tty": options.on("tty"),
        "OpenStdin": interactive,
        "AttachStdin": (not detached and interactive) or "STDIN" in attached,
        "AttachStdout": outputs or "STDOUT" in attached,
        "AttachStderr": outputs or "STDERR" in attached,
        "Env": environment(options),
        "Labels": _labels(options),
    }
    body["StdinOnce"] = interactive and body["AttachStdin"]
    if len(arguments) > 1:
        body["Cmd"] = arguments[1:]
    if options.given("entrypoint"):
        entrypoint = options.text("entrypoint")
        body["Entrypoint"] = [entrypoint] if entrypoint else [""]
    if options.given("stop-timeout"):
        body["StopTimeout"] = options.number("stop-timeout")
    for flag, name in CONFIG_TEXTS:
        if options.given(flag):
            body[name] = options.text(flag)
    if check := _health(options):
        body["Healthcheck"] = check
    return body


def _host(options: Options) -> Document:
    host: Document = {}
    tables: tuple[tuple[Fields, Callable[[str], object]], ...] = (
        (HOST_TEXTS, options.text),
        (HOST_NUMBERS, options.number),
        (HOST_SWITCHES, options.on),
        (HOST_LISTS, options.all),
        (HOST_MAPS, options.pairs),
    )
    for fields, value in tables:
        for flag, name in fields:
            if options.given(flag):
                host[name] = value(flag)
    _check_host(options)
    _capabilities(options, host)
    restart(options, host)
    _storage(options, host)
    if options.given("ulimit"):
        limits = {str(limit["Name"]): limit for limit in map(ulimit, options.all("ulimit"))}
        host["Ulimits"] = [limits[name] for name in sorted(limits)]
    if options.given("security-opt"):
        host["SecurityOpt"] = [_security(text) for text in options.all("security-opt")]
    if options.given("log-driver") or options.given("log-opt"):
        host["LogConfig"] = {
            "Type": options.text("log-driver"),
            "Config": options.pairs("log-opt"),
        }
    return host


def _capabilities(options: Options, host: Document) -> None:
    """Write capabilities as the docker CLI does: in full, in order; what is added is not dropped."""
    added, dropped = ({*map(_capability, options.all(flag))} for flag in ("cap-add", "cap-drop"))
    for name, values in (("CapAdd", added), ("CapDrop", dropped - added)):
        if values:
            host[name] = ["ALL"] if "ALL" in values else sorted(values)


def _capability(text: str) -> str:
    name = text.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _check_host(options: Options) -> None:
    """Refuse what the docker CLI refuses before it asks the engine."""
    for text in options.all("add-host"):
        if ":" not in text and "=" not in text:
            why = f'bad format for add-host: "{text}"'
            raise UsageError(f'invalid argument "{text}" for "--add-host" flag: {why}')
    for text in options.all("sysctl"):
        name, equals, _ = text.partition("=")
        if not equals or not (name in SYSCTLS or name.startswith(SYSCTL_TREES)):
            why = f"sysctl '{text}' is not allowed"
            raise UsageError(f'invalid argument "{text}" for "--sysctl" flag: {why}')
    for flag, kind, modes in MODES:
        mode = options.text(flag).partition(":")[0]
        if mode not in ("", *modes):
            raise InvalidArgument(f"--{flag}: invalid {kind} mode")


def _storage(options: Options, host: Document) -> None:
    for flag, name in THROTTLES:
        if options.given(flag):
            host[name] = [storage.throttle(text) for text in options.all(flag)]
    if options.given("blkio-weight-device"):
        weights = [storage.weight(text) for text in options.all("blkio-weight-device")]
        host["BlkioWeightDevice"] = weights
    requests: list[object] = []
    if options.given("gpus"):
        requests.append(storage.gpus(options.text("gpus")))
    if options.given("device"):
        texts = options.all("device")
        described = [text for text in texts if storage.is_described(text)]
        host["Devices"] = [storage.device(text) for text in texts if text not in described]
        if described:
            requests.append({"Driver": "cdi", "DeviceIDs": described})
    if requests:
        host["DeviceRequests"] = requests
    if options.given("mount"):
        host["Mounts"] = [storage.mount(text) for text in options.all("mount")]
    if options.given("tmpfs"):
        pairs = (text.partition(":") for text in options.all("tmpfs"))
        host["Tmpfs"] = {path: rest for path, _, rest in pairs}


def restart(options: Options, host: Document) -> None:
    """Put --restart into a host configuration, if it was given."""
    if not options.given("restart"):
        return
    name, colon, count = options.text("restart").partition(":")
    if colon and not count.isdecimal():
        raise InvalidArgument(
            "invalid restart policy format: maximum retry count must be an integer"
        )
    if name not in ("", "no") and options.on("rm"):
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    host["RestartPolicy"] = {"Name": name, "MaximumRetryCount": int(count or 0)}


def _network(options: Options, body: Document, host: Document) -> None:
    networks = options.all("network") + options.all("net")
    endpoints: Document = {}
    for index, text in enumerate(networks or ["default"]):
        name, settings = ports.endpoint(text)
        if index == 0:
            host["NetworkMode"] = name
            settings |= _first_endpoint(options)
        if settings or len(networks) > 1:
            endpoints[name] = settings
    if links := options.all("link"):
        name = str(host["NetworkMode"])
        if name in ("default", "bridge", "host", "none") or name.startswith("container:"):
            host["Links"] = links
        else:
            endpoints[name] = {**documents.mapping(endpoints.get(name)), "Links": links}
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}


def _first_endpoint(options: Options) -> Document:
    settings: Document = {}
    if aliases := options.all("network-alias") + options.all("net-alias"):
        settings["Aliases"] = aliases
    addresses: Document = {}
    if options.given("link-local-ip"):
        addresses["LinkLocalIPs"] = options.all("link-local-ip")
    if options.given("ip"):
        addresses["IPv4Address"] = options.text("ip")
    if options.given("ip6"):
        addresses["IPv6Address"] = options.text("ip6")
    if addresses:
        settings["IPAMConfig"] = addresses
    if options.given("mac-address"):
        settings["MacAddress"] = options.text("mac-address")
    return settings


def environment(options: Options) -> list[str]:
    """Return the variables of --env-file and -e; a bare name takes its value from our environment."""
    found: list[str] = []
    for path in options.all("env-file"):
        for line in _lines(path):
            name = line.partition("=")[0]
            if any(letter.isspace() for letter in name):
                raise InvalidArgument(
                    f"poorly formatted environment: variable '{name}' contains whitespaces"
                )
            if not name:
                raise InvalidArgument(f"no variable name on line '{line}'")
            if "=" in line or name in os.environ:
                found.append(_variable(line))
    for text in options.all("env"):
        if not text or text.startswith("="):
            raise UsageError(
                f'invalid argument "{text}" for "-e, --env" flag: invalid environment variable: {text}'
            )
        found.append(_variable(text))
    return found


def _variable(text: str) -> str:
    return text if "=" in text or text not in os.environ else f"{text}={os.environ[text]}"


def _labels(options: Options) -> dict[str, str]:
    lines = [line for path in options.all("label-file") for line in _lines(path)]
    labels = {}
    for line in lines + options.all("label"):
        name, _, value = line.partition("=")
        labels[name] = value
    return labels


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.lstrip().rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        cause = (error.strerror or "").lower() if isinstance(error, OSError) else "not UTF-8"
        raise InvalidArgument(f"open {path}: {cause}") from error
    return [line for line in lines if line and not line.startswith("#")]


def ulimit(text: str) -> Document:
    """Return one "name=soft[:hard]"."""
    try:
        return _ulimit(text)
    except ValueError as error:
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: {error}') from None


def _ulimit(text: str) -> Document:
    name, equals, values = text.partition("=")
    soft, colon, hard = values.partition(":")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    low = units.integer(soft)
    high = units.integer(hard) if colon else low
    if high != -1 and (low > high or low == -1):
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
        )
    return {"Name": name, "Soft": low, "Hard": high}


def _security(text: str) -> str:
    """Return an option with the profile's text in place of its path; the engine may not see our files."""
    name, separator, value = text.partition("=" if "=" in text else ":")
    if not separator and name != "no-new-privileges":
        raise InvalidArgument(f'Invalid --security-opt: "{text}"')
    if name != "seccomp" or not separator or value in ("unconfined", "builtin"):
        return text
    try:
        with open(value, encoding="utf-8") as file:
            return f"seccomp={file.read()}"
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"opening seccomp profile ({value}) failed: {error}") from error


def _health(options: Options) -> Document:
    if options.on("no-healthcheck"):
        if options.given("health-cmd"):
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    check: Document = {}
    if options.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", options.text("health-cmd")]
    for flag, name in (
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
        ("health-retries", "Retries"),
    ):
        if options.given(flag):
            check[name] = options.number(flag)
    return check
