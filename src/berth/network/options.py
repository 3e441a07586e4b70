"""The options of networks (`-o`), in Docker's words: read into a record, or refused. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from berth.errors import InvalidArgument
from berth.network import shaping
from berth.network.records import ISOLATED, NAT, ROUTED, UNPROTECTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.network.records import NetworkRecord, NetworkRequest

_PREFIX = "com.docker.network."
_BRIDGE = _PREFIX + "bridge."
GUARDED = "berth.spoof_protection"
SHORTCUT = "berth.shortcut"
_INTERFACE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_IFACE_PREFIX = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,11}")
_SYSCTL_FAMILIES = ("ipv4", "ipv6", "mpls")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_MODES = ("", NAT, ROUTED, UNPROTECTED, ISOLATED)
_MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
_IPVLAN_MODES = ("l2", "l3", "l3s")
_IPVLAN_FLAGS = ("bridge", "private", "vepa")


def device_name(options: Mapping[str, str]) -> str:
    """Return the name that an endpoint's options give the interface in the container, empty for any."""
    name = options.get(_PREFIX + "endpoint.ifname", "")
    if name and (not _INTERFACE.fullmatch(name) or name == "lo"):
        raise InvalidArgument(f"invalid interface name {name!r}")
    return name


def sysctls(options: Mapping[str, str], device: str) -> tuple[tuple[str, str], ...]:
    """Return the parameters of an endpoint's interface: path below /proc/sys/net, value."""
    found = []
    for text in filter(None, options.get(_PREFIX + "endpoint.sysctls", "").split(",")):
        name, equals, value = text.partition("=")
        parts = name.split(".", 4)
        is_ours = len(parts) == 5 and parts[0] == "net" and parts[1] in _SYSCTL_FAMILIES
        if not is_ours or parts[3].upper() != "IFNAME" or not equals or "/" in name:
            raise InvalidArgument(
                f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as"
                " 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        found.append((f"{parts[1]}/{parts[2]}/{device}/{parts[4].replace('.', '/')}", value))
    return tuple(found)


def apply(record: NetworkRecord, request: NetworkRequest) -> NetworkRecord:
    """Return a record with all that was asked for but addresses."""
    options = request.options
    shaping.parse(options)
    record = msgspec.structs.replace(
        record,
        auxiliary=dict(request.auxiliary),
        mtu=_mtu(options.get(_PREFIX + "driver.mtu", "1500")),
        internal=request.internal,
        attachable=request.attachable,
        ipam_driver=request.ipam_driver,
        ipam_options=request.ipam_options,
        config_from=request.config_from,
        options=dict(options),
        labels=dict(request.labels),
        device_prefix=_device_prefix(options.get(_PREFIX + "container_iface_prefix", "eth")),
    )
    return _bridge(record, options) if request.driver == "bridge" else _uplink(record, options)


def _mtu(text: str) -> int:
    if not text.isdecimal() or not 68 <= int(text) <= 65_535:
        raise InvalidArgument(f"invalid MTU: {text}")
    return int(text)


def _device_prefix(text: str) -> str:
    if not _IFACE_PREFIX.fullmatch(text):
        raise InvalidArgument(f"invalid container interface prefix {text!r}")
    return text


def _is_on(options: Mapping[str, str], label: str, *, default: bool) -> bool:
    value = options.get(label)
    if value is None:
        return default
    if value not in (*_TRUE, *_FALSE):
        error = f'strconv.ParseBool: parsing "{value}": invalid syntax'
        raise InvalidArgument(f"failed to parse {label} value: {value} ({error})")
    return value in _TRUE


def has_shortcut(options: Mapping[str, str]) -> bool:
    """Say whether what containers and the host send each other may go past the bridge."""
    return _is_on(options, SHORTCUT, default=True)


def _address(options: Mapping[str, str], label: str, *, version: int | None = None) -> str:
    value = options.get(label, "")
    try:
        address = ip_address(value) if value else None
    except ValueError:
        address = None
    if value and (address is None or version not in (None, address.version)):
        raise InvalidArgument(f"failed to parse {label} value: {value} (invalid ip)")
    return str(address) if address is not None else ""


def _mode(options: Mapping[str, str], label: str, *, internal: bool) -> str:
    mode = options.get(label, "")
    if mode not in _MODES:
        raise InvalidArgument(
            f"failed to parse {label} value: {mode} (unknown gateway mode {mode})"
        )
    if mode == ISOLATED and not internal:
        raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
    return mode or NAT


def _bridge(record: NetworkRecord, options: Mapping[str, str]) -> NetworkRecord:
    bridge = options.get(_BRIDGE + "name") or f"br-{record.id[:12]}"
    if not _INTERFACE.fullmatch(bridge):
        raise InvalidArgument(
            f"invalid bridge name {bridge!r}: 15 characters at most, none of them '/'"
        )
    internal = record.internal
    trusted = options.get(_BRIDGE + "trusted_host_interfaces", "")
    return msgspec.structs.replace(
        record,
        bridge=bridge,
        icc=_is_on(options, _BRIDGE + "enable_icc", default=True),
        masquerade=_is_on(options, _BRIDGE + "enable_ip_masquerade", default=True),
        is_guarded=_is_on(options, GUARDED, default=True),
        shortcut=has_shortcut(options),
        inhibits_ipv4=_is_on(options, _BRIDGE + "inhibit_ipv4", default=False),
        mode=_mode(options, _BRIDGE + "gateway_mode_ipv4", internal=internal),
        mode6=_mode(options, _BRIDGE + "gateway_mode_ipv6", internal=internal),
        binding=_address(options, _BRIDGE + "host_binding_ipv4"),
        source=_address(options, _PREFIX + "host_ipv4", version=4),
        source6=_address(options, _PREFIX + "host_ipv6", version=6),
        trusted=tuple(name for name in trusted.split(":") if name),
    )


def _uplink(record: NetworkRecord, options: Mapping[str, str]) -> NetworkRecord:
    """Read the options of macvlan and ipvlan."""
    driver, parent = record.driver, options.get("parent", "")
    modes, default = (_MACVLAN_MODES, "bridge") if driver == "macvlan" else (_IPVLAN_MODES, "l2")
    mode = options.get(f"{driver}_mode") or default
    if mode not in modes:
        raise InvalidArgument(
            f"requested {driver} mode '{mode}' is not valid, '{default}' mode is the {driver} driver"
            " default"
        )
    flag = options.get("ipvlan_flag") or "bridge"
    if driver == "ipvlan" and flag not in _IPVLAN_FLAGS:
        raise InvalidArgument(
            f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
        )
    if parent == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")
    return msgspec.structs.replace(
        record,
        parent=parent or f"{'dm' if driver == 'macvlan' else 'di'}-{record.id[:12]}",
        link_mode=mode,
        link_flag=flag,
        internal=record.internal or not parent,
        is_guarded=False,
    )
