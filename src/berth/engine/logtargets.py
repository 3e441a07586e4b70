"""--log-driver and --log-opt: where a container's output is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth.configuration.checks import size_bytes
from berth.errors import InvalidArgument
from berth.runtime.requests import LogTarget

if TYPE_CHECKING:
    from pathlib import Path

    from berth.engine.models import LogConfig

NONE = "none"
JSON_FILE = "json-file"
OPTIONS = ("max-size", "max-file", "labels", "labels-regex", "env", "env-regex", "tag", "mode")


def log_target(config: LogConfig, path: Path) -> LogTarget | None:
    """Return what the monitor writes; None for no log. InvalidArgument for what is not known."""
    if config.type == NONE:
        return None
    if config.type not in ("", JSON_FILE):
        raise InvalidArgument(f"logger: no log driver named '{config.type}' is registered")
    options = config.config or {}
    for name in options:
        if name not in OPTIONS:
            raise InvalidArgument(f"unknown log opt '{name}' for json-file log driver")
    size = options.get("max-size")
    files = options.get("max-file", "1")
    if not files.isdigit() or int(files) < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    max_size_bytes = size_bytes(size) if size is not None and size != "-1" else None
    return LogTarget(path=path, max_size_bytes=max_size_bytes, max_files=int(files))
