"""What instructions make of an image's configuration, and what its history says of them. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

import msgspec

from berth.dockerfile.healthchecks import healthcheck
from berth.dockerfile.instructions import Command, Pairs, Text, Words
from berth.dockerfile.substitution import Expansion
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.dockerfile.instructions import Instruction
    from berth.oci.image import ImageConfig

SHELL = ("/bin/sh", "-c")
PROTOCOLS = ("tcp", "udp", "sctp")
PORTS = re.compile(r"[0-9]{1,9}(-[0-9]{0,9})?")
MAX_PORT = 65535


class Settings:
    """The configuration of an image that is being made."""

    def __init__(self, config: ImageConfig, escape: str = "\\") -> None:
        """``config`` stays as it is; ``config`` of this object is replaced with every change."""
        self.config = msgspec.structs.replace(config)
        self.escape = escape
        self.author = ""
        self._command_said = False  # since the image that it began with

    @property
    def shell(self) -> list[str]:
        """What runs the shell form."""
        return self.config.shell or list(SHELL)

    def environment(self) -> dict[str, str]:
        """Return the variables that the configuration has."""
        return dict(entry.partition("=")[::2] for entry in self.config.env or ())

    def words_of(self, command: Command) -> list[str]:
        """Return a command as it is executed."""
        return [*self.shell, *command.words] if command.is_shell else list(command.words)

    def apply(self, step: Instruction, variables: Mapping[str, str]) -> str:
        """Apply an instruction; return what history says of it. ``variables``: what is put in."""
        config = msgspec.structs.replace(self.config)
        expanded = Expansion(variables, self.escape)
        if isinstance(step, Command):
            said = self._apply_command(config, step)
        elif isinstance(step, Pairs):
            said = _apply_pairs(config, step, expanded)
        elif isinstance(step, Words):
            said = _apply_words(config, step, expanded)
        else:
            assert isinstance(step, Text)
            said = self._apply_text(config, step, expanded)
        self.config = config
        return said

    def _apply_command(self, config: ImageConfig, step: Command) -> str:
        words = self.words_of(step) if step.name != "SHELL" else list(step.words)
        shown = f"[{' '.join(quoted(word) for word in words)}]"
        if step.name == "SHELL":
            config.shell = words
            return f"SHELL [{' '.join(words)}]"
        if step.name == "CMD":
            config.cmd = words
            self._command_said = bool(words)
        else:
            config.entrypoint = words
            if not self._command_said:
                config.cmd = None
        return f"{step.name} {shown}"

    def _apply_text(self, config: ImageConfig, step: Text, expanded: Expansion) -> str:
        match step.name:
            case "MAINTAINER":
                self.author = expanded(step.value)
                return f"MAINTAINER {self.author}"
            case "ONBUILD":
                config.on_build = [*(config.on_build or []), step.value]
                return f"ONBUILD {step.value}"
            case "STOPSIGNAL":
                config.stop_signal = expanded(step.value)
                return f"STOPSIGNAL {config.stop_signal}"
            case "USER":
                config.user = expanded(step.value)
                return f"USER {config.user}"
            case "WORKDIR":
                config.working_dir = directory(config.working_dir, expanded(step.value))
                return f"WORKDIR {config.working_dir}"
            case _:
                config.healthcheck = healthcheck(step.value)
                return f"HEALTHCHECK {shown_check(config)}"


def _apply_pairs(config: ImageConfig, step: Pairs, expanded: Expansion) -> str:
    pairs = [(expanded(key), expanded(value)) for key, value in step.pairs]
    if not all(key for key, _ in pairs):
        raise InvalidArgument(f"{step.name} names can not be blank")
    if step.name == "LABEL":
        config.labels = {**(config.labels or {}), **dict(pairs)}
    else:
        known = dict(entry.partition("=")[::2] for entry in config.env or ())
        config.env = [f"{key}={value}" for key, value in {**known, **dict(pairs)}.items()]
    return " ".join([step.name, *(f"{key}={value}" for key, value in pairs)])


def _apply_words(config: ImageConfig, step: Words, expanded: Expansion) -> str:
    if step.name == "VOLUME":
        paths = [expanded(word) for word in step.words]
        config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}
        return f"VOLUME [{' '.join(paths)}]"
    words = sorted(found for word in step.words for found in expanded.words(word))
    found: dict[str, object] = {}
    for word in dict.fromkeys(words):
        named = ports(word)
        found.update({port: {} for port in named})
        expanded.spend(len(named))
    config.exposed_ports = {**(config.exposed_ports or {}), **found}
    return f"EXPOSE {' '.join(words)}"


def ports(word: str) -> list[str]:
    """Return the ports that a word of EXPOSE names: a number or a range, and a protocol."""
    number, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or PROTOCOLS[0]
    first, _, last = number.partition("-")
    if not PORTS.fullmatch(number) or protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid containerPort: {word}")
    if not int(first) <= int(last or first) <= MAX_PORT:
        raise InvalidArgument(f"invalid containerPort: {word}")
    return [f"{port}/{protocol}" for port in range(int(first), int(last or first) + 1)]


def directory(current: str, wanted: str) -> str:
    """Return where WORKDIR leads from the current one."""
    if not wanted:
        return current or "/"
    path = posixpath.normpath(posixpath.join("/", current, wanted))
    return "/" + path.lstrip("/")


def quoted(text: str) -> str:
    """Return a text as Go's %q writes it, near enough."""
    return msgspec.json.encode(text).decode()


def shown_check(config: ImageConfig) -> str:
    """Return a check as Docker's history has it: Go's %q of the structure."""
    check = config.healthcheck
    assert check is not None
    test = " ".join(quoted(word) for word in check.test or ())
    times = (check.interval, check.timeout, check.start_period)
    shown = " ".join(quoted(duration(ns)) for ns in times)
    retries = chr(check.retries).encode("unicode_escape").decode()
    return f"&{{[{test}] {shown} '{retries}'}}"


def duration(ns: int) -> str:
    """Return a time as Go's time.Duration writes it."""
    if ns < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if ns >= size:
                return f"{ns / size:.9g}{unit}"
        return "0s"
    hours, rest = divmod(ns, 3600 * 10**9)
    minutes, rest = divmod(rest, 60 * 10**9)
    text = f"{rest / 10**9:.12g}s"
    text = f"{minutes}m{text}" if hours or minutes else text
    return f"{hours}h{text}" if hours else text
