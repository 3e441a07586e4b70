"""Published and exposed ports and the `--network` syntax, from flags to the API's shapes."""

from __future__ import annotations

import _socket

from berth.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.client.documents import Document

PROTOCOLS = ("tcp", "udp", "sctp")
LAST_PORT = 65535
ENDPOINT_KEYS = ("name", "alias", "ip", "ip6", "mac-address", "driver-opt")
ADDRESSES = (("ip", "IPv4Address"), ("ip6", "IPv6Address"))


def published(texts: list[str]) -> dict[str, list[Document]]:
    """Return the bindings of ``[[ip:]host-port:]port[/protocol]``, ranges included."""
    bindings: dict[str, list[Document]] = {}
    for text in texts:
        ip, host, container, protocol = _split(text)
        first, last = _range(container, "containerPort")
        host_first, host_last = _range(host, "hostPort") if host else (0, 0)
        spread = bool(host) and first == last and host_last > host_first
        if host and not spread and host_last - host_first != last - first:
            raise InvalidArgument(
                f"invalid ranges specified for container and host Ports: {container} and {host}"
            )
        for offset in range(last - first + 1):
            port = str(host_first + offset) if host else ""
            if spread:
                port = f"{host_first}-{host_last}"
            binding: Document = {"HostIp": ip, "HostPort": port}
            bindings.setdefault(f"{first + offset}/{protocol}", []).append(binding)
    return bindings


def _split(text: str) -> tuple[str, str, str, str]:
    spec, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    ip, rest = "", spec
    if spec.startswith("["):
        ip, bracket, rest = spec[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidArgument(f"invalid IP address: {spec}")
        rest = rest[1:]
    parts = rest.split(":")
    if len(parts) > 2 and not ip:
        ip, parts = ":".join(parts[:-2]), parts[-2:]
    if ip and not _is_address(ip):
        raise InvalidArgument(f"invalid IP address: {ip}")
    container = parts[-1]
    if not container:
        raise InvalidArgument(f"no port specified: {text}<empty>")
    return ip, parts[0] if len(parts) > 1 else "", container, protocol


def _is_address(text: str) -> bool:
    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except OSError:
        return False
    return True


def _range(text: str, what: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    if not start.isdecimal() or (dash and not end.isdecimal()):
        raise InvalidArgument(f"invalid {what}: {text}")
    first, last = int(start), int(end) if dash else int(start)
    if first > last or last > LAST_PORT:
        raise InvalidArgument(f"invalid {what}: {text}")
    return first, last


def exposed(texts: list[str]) -> Document:
    """Return the set of ``port[-port][/protocol]`` as the API writes sets."""
    found: Document = {}
    for text in texts:
        if ":" in text:
            raise InvalidArgument(f"invalid port format for --expose: {text}")
        ports, slash, protocol = text.partition("/")
        try:
            first, last = _range(ports, "range format for --expose")
        except InvalidArgument as error:
            why = f'strconv.ParseUint: parsing "{ports}": invalid syntax'
            raise InvalidArgument(f"{error}, error: {why}") from None
        for port in range(first, last + 1):
            found[f"{port}/{protocol.lower() if slash else 'tcp'}"] = {}
    return found


def endpoint(text: str) -> tuple[str, Document]:
    """Return a network's name and settings, from "NAME" or "name=NAME,alias=A,ip=…"."""
    if "=" not in text:
        return text, {}
    found: dict[str, list[str]] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid field {part}")
        if key not in ENDPOINT_KEYS:
            raise InvalidArgument(f"invalid field key {key}")
        found.setdefault(key, []).append(value)
    if "name" not in found:
        raise InvalidArgument("network name is missing")
    settings: Document = {}
    if "alias" in found:
        settings["Aliases"] = found["alias"]
    if "mac-address" in found:
        settings["MacAddress"] = found["mac-address"][-1]
    if addresses := {name: found[key][-1] for key, name in ADDRESSES if key in found}:
        settings["IPAMConfig"] = addresses
    if "driver-opt" in found:
        pairs = (option.partition("=") for option in found["driver-opt"])
        settings["DriverOpts"] = {option: setting for option, _, setting in pairs}
    return found["name"][-1], settings
