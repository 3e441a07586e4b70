"""What a container's log says about it: its tag, by Docker's template, and chosen labels and variables."""

from __future__ import annotations

import json
import platform
import re
from typing import TYPE_CHECKING

from berth import templates
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord

DEFAULT_TAG = "{{.ID}}"
DAEMON_NAME = "docker"
SHORT_ID = 12


def attributes(record: ContainerRecord) -> dict[str, str]:
    """Return the labels and variables that options choose for the log."""
    options = record.host_config.log_config.config or {}
    found: dict[str, str] = {}
    for known, key in ((record.config.labels or {}, "labels"), (_variables(record), "env")):
        names = [name for name in options.get(key, "").split(",") if name]
        pattern = options.get(f"{key}-regex")
        if pattern:
            names += [name for name in known if re.search(pattern, name)]
        found |= {name: known[name] for name in names if name in known}
    return found


def _variables(record: ContainerRecord) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in record.env)


def tag(record: ContainerRecord, template: str, *, default: str = DEFAULT_TAG) -> str:
    """Fill in a tag; InvalidArgument for a template that makes no sense."""
    if "{{" not in template:
        return template or (tag(record, default) if default else "")
    try:
        return templates.render(template, _fields(record), {"json": _json})
    except InvalidArgument as error:
        raise InvalidArgument(f"template: log-tag: {error.message}") from error


def _fields(record: ContainerRecord) -> dict[str, object]:
    """Return what templates may name: what Docker's drivers know of a container, and its short forms."""
    config, image = record.config, record.image_id
    program, arguments = (record.args[0], list(record.args[1:])) if record.args else ("", [])
    return {
        "ID": record.id[:SHORT_ID],
        "FullID": record.id,
        "Name": record.name.removeprefix("/"),
        "ImageID": image.removeprefix("sha256:")[:SHORT_ID],
        "ImageFullID": image,
        "ImageName": config.image,
        "Command": " ".join((program, *arguments)),
        "Hostname": platform.node(),
        "DaemonName": DAEMON_NAME,
        "ExtraAttributes": lambda _change: attributes(record),
        "Config": dict(record.host_config.log_config.config or {}),
        "ContainerID": record.id,
        "ContainerName": f"/{record.name}",
        "ContainerEntrypoint": program,
        "ContainerArgs": arguments,
        "ContainerImageID": image,
        "ContainerImageName": config.image,
        "ContainerEnv": list(record.env),
        "ContainerLabels": dict(config.labels or {}),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
