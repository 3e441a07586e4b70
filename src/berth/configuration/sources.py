"""Where settings come from: a file and flags, which must not contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from berth.configuration import checks
from berth.configuration.settings import Settings
from berth.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FILE = Path("/etc/berth/berth.toml")

Values = dict[str, object]

HOST_GATEWAY = "host-gateway-ip"  # as Docker called it when there was one only


def read(flags: Mapping[str, object], file: str | None) -> Settings:
    """Return the settings of flags and file; ``None``: the default file, if it is there.

    InvalidArgument says what is wrong, in the words of dockerd.
    """
    path = Path(file) if file is not None else DEFAULT_FILE
    try:
        found = load(path)
    except FileNotFoundError:
        if file is not None:
            raise NotFound(f"open {path}: no such file or directory") from None
        found = {}
    try:
        found = _with_new_names(found)
        _refuse_unknown(found)
        _refuse_conflicts(flags, found)
        settings = _settings({**found, **flags})
        checks.check(settings)
    except InvalidArgument as error:
        if not found:
            raise
        raise InvalidArgument(
            f"unable to configure the engine with file {path}: {error.message}", hint=error.hint
        ) from None
    return settings


def load(path: Path) -> Values:
    """Read a file: TOML, or JSON when its name ends so, as Docker's daemon.json does."""
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            found = json.loads(data or b"{}")
            if not isinstance(found, dict):
                raise InvalidArgument(f"{path}: an object is needed")
            return found
        import tomllib

        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{path}: {error}") from None


def _with_new_names(found: Values) -> Values:
    if HOST_GATEWAY not in found:
        return found
    new = f"{HOST_GATEWAY}s"
    if new in found:
        raise InvalidArgument(f"{HOST_GATEWAY} is an older name of {new}: use one of the two")
    return {**{k: v for k, v in found.items() if k != HOST_GATEWAY}, new: [found[HOST_GATEWAY]]}


def _refuse_unknown(found: Values) -> None:
    known = msgspec.structs.fields(Settings)
    unknown = sorted(found.keys() - {field.encode_name for field in known})
    if unknown:
        raise InvalidArgument(
            "the following directives don't match any configuration option: " + ", ".join(unknown)
        )


def _refuse_conflicts(flags: Mapping[str, object], found: Values) -> None:
    both = [name for name in flags if name in found]
    if both:
        said = (f"{n}: (from flag: {_text(flags[n])}, from file: {_text(found[n])})" for n in both)
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(said)
        )


def _text(value: object) -> str:
    return f"[{' '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _settings(values: Values) -> Settings:
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        raise InvalidArgument(f"{name}: {message}" if name else message) from None
