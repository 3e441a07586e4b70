"""The settings of an engine: names, types and defaults. The names are Docker's where it has one."""

from __future__ import annotations

import msgspec

DEFAULT_FOLDER = "/etc/berth"


class AddressPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Subnets of ``size`` bits, taken from ``base``."""

    base: str
    size: int


class Ulimit(msgspec.Struct, frozen=True, rename="pascal"):
    """One of ``default-ulimits``; written as in Docker's daemon.json."""

    soft: int
    hard: int
    name: str = ""


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """All of them. In TOML and on the command line names have dashes; lists are singular as flags."""

    bip: str = ""
    bip6: str = ""
    bridge: str = ""
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    cgroup_parent: str = ""
    data_root: str = ""
    debug: bool = False
    default_address_pools: tuple[AddressPool, ...] = ()
    default_cgroupns_mode: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    default_ipc_mode: str = ""
    default_network_opts: dict[str, dict[str, str]] = {}
    default_shm_size: str = "64M"
    default_ulimits: dict[str, Ulimit] = {}
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    exec_root: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    features: dict[str, bool] = {}
    group: str | None = None
    host_gateway_ips: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    icc: bool = True
    init: bool = False
    insecure_registries: tuple[str, ...] = ()
    ip: str = ""
    ip_forward: bool = True
    ip_masq: bool = True
    ip6tables: bool = True
    iptables: bool = True
    ipv6: bool = False
    labels: tuple[str, ...] = ()
    live_restore: bool = True
    log_driver: str = "json-file"
    log_level: str = "info"
    log_opts: dict[str, str] = {}
    metrics_addr: str = ""
    mtu: int = 1500
    no_new_privileges: bool = False
    registry_mirrors: tuple[str, ...] = ()
    storage_driver: str = ""  # what the data root was begun with, or what works there
    storage_opts: tuple[str, ...] = ()
    tls: bool | None = None  # unset, false and true are three things, see `checks`
    tlscacert: str = f"{DEFAULT_FOLDER}/ca.pem"
    tlscert: str = f"{DEFAULT_FOLDER}/cert.pem"
    tlskey: str = f"{DEFAULT_FOLDER}/key.pem"
    tlsverify: bool | None = None
    userns_remap: str = ""
    userland_proxy: bool = False

    @property
    def uses_tls(self) -> bool:
        """Say whether TCP listeners speak TLS."""
        return bool(self.tls or self.tlsverify)

    @property
    def allows_tcp(self) -> bool:
        """Say whether TCP may be listened on: in TLS, or without when that is said, not just left out."""
        return self.uses_tls or self.tls is False or self.tlsverify is False

    @property
    def level(self) -> str:
        """Return from which level on the log is written."""
        return "debug" if self.debug else self.log_level


class Held:
    """The settings that hold now; another replaces them when an engine reloads."""

    __slots__ = ("now",)

    def __init__(self, settings: Settings) -> None:
        self.now = settings


# What SIGHUP changes in an engine that runs; the others are read at its start.
RELOADABLE = ("debug", "features", "insecure-registries", "labels", "registry-mirrors")
