"""Dockerfile instructions that change an image's configuration (`import --change`, `commit --change`)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from berth.errors import InvalidArgument
from berth.images.healthchecks import healthcheck

if TYPE_CHECKING:
    from berth.oci.image import ImageConfig

SHELL = ("/bin/sh", "-c")
PROTOCOLS = ("tcp", "udp", "sctp")
MAX_PORT = 65535


def apply_changes(config: ImageConfig, changes: list[str]) -> ImageConfig:
    """Return ``config`` with the instructions applied in order. InvalidArgument names a wrong one."""
    result = msgspec.structs.replace(config)
    for change in changes:
        for line in change.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _apply(result, line.strip())
    return result


def _apply(config: ImageConfig, line: str) -> None:
    parts = line.split(None, 1)
    instruction = parts[0].upper()
    rest = parts[1].strip() if len(parts) > 1 else ""
    apply = INSTRUCTIONS.get(instruction)
    if apply is None:
        raise InvalidArgument(f"{instruction} is not a valid change command")
    if not rest:
        raise InvalidArgument(f"{instruction} requires at least one argument")
    apply(config, rest)


def command(text: str) -> list[str]:
    """Read an argument list: a JSON array, else a line for the shell."""
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError:
            pass
    return [*SHELL, text]


def words(text: str) -> list[str]:
    """Read a JSON array or words, quoted as in a shell."""
    if text.startswith("["):
        return command(text)
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"change {text!r}: {str(error).lower()}") from error


def pairs(instruction: str, text: str) -> dict[str, str]:
    """Read ``key=value …``, or the older ``key value``."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) == 1:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return {first[0]: first[1]}
    found = {}
    for word in words(text):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidArgument(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        found[key] = value
    return found


def _cmd(config: ImageConfig, text: str) -> None:
    config.cmd = command(text)


def _entrypoint(config: ImageConfig, text: str) -> None:
    config.entrypoint = command(text)


def _env(config: ImageConfig, text: str) -> None:
    known = dict(entry.partition("=")[::2] for entry in config.env or [])
    known.update(pairs("ENV", text))
    config.env = [f"{key}={value}" for key, value in known.items()]


def _label(config: ImageConfig, text: str) -> None:
    config.labels = {**(config.labels or {}), **pairs("LABEL", text)}


def _workdir(config: ImageConfig, text: str) -> None:
    base = "" if text.startswith("/") else (config.working_dir or "/").rstrip("/") + "/"
    config.working_dir = base + text


def _healthcheck(config: ImageConfig, text: str) -> None:
    config.healthcheck = healthcheck(text)


def _user(config: ImageConfig, text: str) -> None:
    config.user = text


def _stopsignal(config: ImageConfig, text: str) -> None:
    config.stop_signal = text


def _volume(config: ImageConfig, text: str) -> None:
    config.volumes = {**(config.volumes or {}), **{path: {} for path in words(text)}}


def _onbuild(config: ImageConfig, text: str) -> None:
    config.on_build = [*(config.on_build or []), text]


def _expose(config: ImageConfig, text: str) -> None:
    ports = dict(config.exposed_ports or {})
    for word in words(text):
        number, _, protocol = word.partition("/")
        first, _, last = number.partition("-")
        if not (first + last).isdecimal() or (protocol or "tcp") not in PROTOCOLS:
            raise InvalidArgument(f"invalid containerPort: {word}")
        if not int(first) <= int(last or first) <= MAX_PORT:
            raise InvalidArgument(f"invalid containerPort: {word}")
        for port in range(int(first), int(last or first) + 1):
            ports[f"{port}/{protocol or 'tcp'}"] = {}
    config.exposed_ports = ports


INSTRUCTIONS = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
