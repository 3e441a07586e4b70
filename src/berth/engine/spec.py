"""From what clients ask for to an OCI runtime spec: the whole of it, and its process."""

from __future__ import annotations

import platform
import shlex
from typing import TYPE_CHECKING

from berth.engine import (
    additions,
    defaults,
    devices,
    identities,
    resources,
    security,
    sysctls,
    tmpfs,
)
from berth.engine.models import HostConfig
from berth.errors import InvalidArgument
from berth.kernel.capabilities import NAMES
from berth.runtime import netdevices
from berth.runtime.requests import DefaultSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from berth.engine.cdifiles import Edits
    from berth.engine.models import ContainerConfig, ContainerRecord, ExecConfig
    from berth.images.service import ImageConfig
    from berth.oci.runtime_spec import Mount, Namespace, Process, Spec

SHM = "/dev/shm"  # noqa: S108 - the container's
CONTAINER = "container:"
IPC_MODES = ("", "private", "shareable", "host", "none")


def arguments(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the command line: an entrypoint given by the client drops the image's command."""
    entrypoint, command = words(config.entrypoint), words(config.cmd)
    if not entrypoint:
        entrypoint = image.entrypoint or []
        command = command or image.cmd or []
    elif entrypoint == [""]:
        entrypoint = []
    args = [*entrypoint, *(command or [])]
    if not args:
        raise InvalidArgument("no command specified")
    return args


def words(value: list[str] | str | None) -> list[str] | None:
    """Return a command as words; older clients send one string."""
    return shlex.split(value) if isinstance(value, str) else value


def environment(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """Return PATH, TERM, the image's variables and the client's; later ones win, a bare name unsets."""
    base = [defaults.PATH, *(["TERM=xterm"] if config.tty else []), *(image.env or [])]
    return merged([*base, *(config.env or [])])


def merged(entries: list[str]) -> list[str]:
    """Return an environment in which each name appears once, with its last value."""
    values: dict[str, str] = {}
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if equals:
            values[name] = entry
        else:
            values.pop(name, None)
    return list(values.values())


def hostname(record: ContainerRecord) -> str:
    """Return the host name: what was asked for, else the machine's with its network, else the short id."""
    host = record.host_config
    if not record.config.hostname and "host" in (host.network_mode, host.uts_mode):
        return platform.node()
    return record.config.hostname or record.id[:12]


def shared_container(mode: str) -> str | None:
    """Return the container whose namespace ``mode`` asks for ("container:NAME"), None for others."""
    return mode.removeprefix(CONTAINER) if mode.startswith(CONTAINER) else None


def namespaces(
    host: HostConfig, paths: Mapping[str, str], *, remapped: bool = False
) -> list[Namespace]:
    """Return the namespaces to make or to join: all, less those that are the host's on request.

    ``paths``: the namespace files of other containers, by kind, for modes that name one. ``remapped``: a user
    namespace, too.
    """
    found: list[Namespace] = [{"type": "mount"}]
    if remapped:
        user: Namespace = {"type": "user"}
        found.append({**user, "path": paths["user"]} if "user" in paths else user)
    modes = (
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("uts", host.uts_mode),
        ("network", host.network_mode),
        ("cgroup", "host" if host.privileged and not host.cgroupns_mode else host.cgroupns_mode),
    )
    for kind, mode in modes:
        if kind in paths:
            found.append({"type": kind, "path": paths[kind]})
        elif mode != "host":
            found.append({"type": kind})
    return found


def check_modes(host: HostConfig) -> None:
    """Refuse namespace modes that Docker refuses."""
    ipc_ok = host.ipc_mode in IPC_MODES or shared_container(host.ipc_mode)
    for name, mode, allowed in (
        ("IPC", host.ipc_mode, ipc_ok),
        ("PID", host.pid_mode, host.pid_mode in ("", "host") or shared_container(host.pid_mode)),
        ("UTS", host.uts_mode, host.uts_mode in ("", "host")),
        ("cgroup namespace", host.cgroupns_mode, host.cgroupns_mode in ("", "host", "private")),
    ):
        if not allowed:
            raise InvalidArgument(f"invalid {name} mode: {mode}")


def check_directory(path: str) -> None:
    """Refuse a working directory that is relative."""
    if path and not path.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{path}' is invalid, it needs to be an absolute path"
        )


def mounts(record: ContainerRecord) -> list[Mount]:
    """Return the mounts that are not trees of the host, less those that the client replaces."""
    host = record.host_config
    replaced = taken_places(record)
    if host.ipc_mode == "host":
        replaced |= {SHM, "/dev/mqueue"}  # trees of the host's
    if host.ipc_mode == "none" or shared_container(host.ipc_mode):
        replaced.add(SHM)  # the other container's is taken over by the runtime
    size = host.shm_size or defaults.SHM_SIZE_BYTES
    kernel = defaults.mounts(shm_size_bytes=size, writable=host.privileged)
    kept = [entry for entry in kernel if entry["destination"] not in replaced]
    if "/dev" in replaced:  # it comes with what is below it
        kept = [entry for entry in kept if not entry["destination"].startswith("/dev/")]
    return [*kept, *tmpfs.mounts(host)]


def process(record: ContainerRecord, env: Sequence[str] = (), lent: Sequence[str] = ()) -> Process:
    """Return the container's own process; ``env`` says what the container may say otherwise, ``lent`` not."""
    host = record.host_config
    found: Process = {
        "args": record.args,
        "env": merged([f"HOSTNAME={hostname(record)}", *env, *record.env, *lent]),
        "cwd": record.config.working_dir or "/",
        "capabilities": security.capabilities(security.capability_names(host)),
        "noNewPrivileges": security.security_options(host).no_new_privileges,
        "rlimits": resources.rlimits(host),
    }
    if host.oom_score_adj:
        found["oomScoreAdj"] = host.oom_score_adj
    return found


def exec_process(record: ContainerRecord, config: ExecConfig) -> Process:
    """Return an extra process of the container."""
    host = record.host_config
    names = security.capability_names(host)
    found = process(record)
    if config.privileged:
        names = list(NAMES)
        found["noNewPrivileges"] = False
    found["args"] = config.cmd or []
    terminal = ["TERM=xterm"] if config.tty else []
    found["env"] = merged([*terminal, *found["env"], *(config.env or [])])
    found["capabilities"] = security.capabilities(names)
    if config.working_dir:
        found["cwd"] = config.working_dir
    return found


def cgroup_path(record: ContainerRecord, *, cgroup: str) -> str:
    """Return the container's group: below ``dev`` when it has device rules of its own."""
    parent = record.host_config.cgroup_parent
    if parent:
        return f"/{parent.strip('/')}/{record.id}"
    kind = "dev" if devices.needs_own_rules(record.host_config) else "std"
    return f"{cgroup}/{kind}/{record.id}"


def default(instance_cgroup: str, *, ahead: bool = True) -> DefaultSpec:
    """Return what containers have whose creator says nothing else, but for what is each one's own.

    ``ahead``: processes of such containers are made ahead.
    """
    host = HostConfig(cgroupns_mode="private")
    masked, read_only = security.hidden_paths(host)
    return DefaultSpec(
        group=f"{instance_cgroup}/std",
        ahead=ahead,
        spec={
            "mounts": defaults.mounts(shm_size_bytes=defaults.SHM_SIZE_BYTES, writable=False),
            "linux": {
                "namespaces": namespaces(host, {}),
                "devices": devices.nodes_and_rules(host)[0],
                "maskedPaths": masked,
                "readonlyPaths": read_only,
            },
        },
    )


def build(
    record: ContainerRecord,
    *,
    cgroup: str,
    paths: Mapping[str, str] | None = None,
    env: Sequence[str] = (),
    lent: Sequence[str] = (),
    added: Edits | None = None,
) -> Spec:
    """Return the whole spec of a container.

    ``cgroup``: the engine's top group. ``paths``: see :func:`namespaces`. ``env``, ``lent``: see
    :func:`process`. ``added``: what described devices add.
    """
    host = record.host_config
    described = additions.nodes(added, record.config.user) if added is not None else ()
    nodes, rules = devices.nodes_and_rules(host, described)
    limits = resources.resources(host)
    if rules:
        limits["devices"] = rules
    masked, read_only = security.hidden_paths(host)
    spaces = namespaces(host, paths or {}, remapped=record.id_maps is not None)
    found: Spec = {
        "ociVersion": "1.2.0",
        "root": {"readonly": host.readonly_rootfs},
        "hostname": hostname(record),
        "domainname": record.config.domainname,
        "process": process(record, env, lent),
        "mounts": mounts(record),
        "linux": {
            "namespaces": spaces,
            "cgroupsPath": cgroup_path(record, cgroup=cgroup),
            "devices": nodes,
            "resources": limits,
            **identities.mappings(record),
            "sysctl": sysctls.checked(host, [entry["type"] for entry in spaces]),
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    }
    if host.annotations:
        found["annotations"] = host.annotations
    if added is not None:
        _add(found, record, added)
    return found


def _add(found: Spec, record: ContainerRecord, added: Edits) -> None:
    found["process"]["env"] = merged([*found["process"]["env"], *added.env])
    taken = taken_places(record)
    found["mounts"] += additions.file_systems(added, taken)
    if added.hooks:
        found["hooks"] = additions.hooks(added)
    if added.net_devices:
        kinds = {entry["type"]: entry.get("path", "") for entry in found["linux"]["namespaces"]}
        moved = additions.network_devices(added)
        netdevices.check(moved, kinds)
        found["linux"]["netDevices"] = moved


def taken_places(record: ContainerRecord) -> set[str]:
    """Return where the client's own mounts are."""
    places = {point.target for point in record.mount_points}
    return places | {entry["destination"] for entry in tmpfs.mounts(record.host_config)}
