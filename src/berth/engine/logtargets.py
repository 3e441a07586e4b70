"""Where a container's output goes: what its monitor writes, what it sends, and what clients may read."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from berth.configuration.checks import size_bytes
from berth.engine import logcertificates
from berth.engine import logoptions as options_of
from berth.engine.logoptions import JOURNALD, JSON_FILE, LOCAL, NONE, SECURE, SYSLOG
from berth.engine.logtags import SHORT_ID, attributes, tag
from berth.errors import Failed, Unsupported
from berth.logs.formats import JSON_LINES, RECORDS
from berth.runtime import locallog
from berth.runtime.requests import LogTarget, RemoteLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from berth.engine.models import ContainerRecord
    from berth.logs.formats import Format

SYSLOG_PORT = 514
SYSLOG_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
JOURNAL_SOCKET = "/run/systemd/journal/socket"


class Destination(NamedTuple):
    """Where a server listens; ``shown`` is what people are told."""

    network: str
    family: int
    address: tuple[str, ...]
    shown: str


def path_of(record: ContainerRecord, folder: Path) -> Path:
    """Return where the log on disk is, in the container's folder."""
    kind = record.host_config.log_config.type
    if kind in ("", JSON_FILE, NONE):
        return folder / f"{record.id}-json.log"
    return folder / ("container.log" if kind == LOCAL else "container-cached.log")


def reading(record: ContainerRecord) -> Format:
    """Return how it is read; Unsupported when there is nothing to be read."""
    config = record.host_config.log_config
    if config.type == NONE or (config.type in (SYSLOG, JOURNALD) and not _is_cached(record)):
        raise Unsupported("configured logging driver does not support reading")
    return JSON_LINES if config.type in ("", JSON_FILE) else RECORDS


def log_target(record: ContainerRecord, folder: Path) -> LogTarget | None:
    """Return what the monitor writes; None for nothing. What else is sent is :func:`remote_log`'s."""
    config = record.host_config.log_config
    options = config.config or {}
    path = path_of(record, folder)
    if config.type in ("", JSON_FILE):
        size, files, compress = options_of.files(options, "", max_files=1)
        found = attributes(record)
        if chosen := tag(record, options.get("tag", ""), default=""):
            found["tag"] = chosen
        form = json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return LogTarget(
            path=path,
            max_size_bytes=size,
            max_files=files,
            compress=compress,
            attributes=form if found else "",
            max_buffer_bytes=_buffer_bytes(options),
        )
    prefix = "" if config.type == LOCAL else "cache-"
    if config.type == NONE or (prefix and not _is_cached(record)):
        return None
    size, files, compress = options_of.files(options, prefix, max_files=locallog.MAX_FILES)
    return LogTarget(
        path=path,
        driver=LOCAL,
        max_size_bytes=size or locallog.MAX_SIZE_BYTES,
        max_files=files,
        compress=compress or f"{prefix}compress" not in options,
        max_buffer_bytes=_buffer_bytes(options),
    )


def _buffer_bytes(options: Mapping[str, str]) -> int:
    """Return how much may wait in mode ``non-blocking``; 0 in the other, in which the container waits."""
    if options.get("mode") != "non-blocking":
        return 0
    size = options.get("max-buffer-size", "")
    return size_bytes(size) if size else options_of.MAX_BUFFER_BYTES


def _is_cached(record: ContainerRecord) -> bool:
    text = (record.host_config.log_config.config or {}).get("cache-disabled", "false")
    return not options_of.truth(text, "cache-disabled")


def check(record: ContainerRecord) -> None:
    """Refuse a driver or options that cannot be."""
    config = record.host_config.log_config
    options_of.check(config)
    tag(record, (config.config or {}).get("tag", ""))


async def remote_log(record: ContainerRecord) -> RemoteLog | None:
    """Return where the log is sent; the caller closes ``fd``. Failed when nobody is there."""
    config = record.host_config.log_config
    options = config.config or {}
    if config.type not in (SYSLOG, JOURNALD):
        return None
    if config.type == JOURNALD:
        network, shown, path = "unixgram", JOURNAL_SOCKET, JOURNAL_SOCKET
        if not Path(path).exists():
            raise Failed(
                "failed to initialize logging driver: journald is not enabled on this host"
            )
        fields = _journal_fields(record)
    else:
        url, fields = options_of.syslog_address(options.get("syslog-address", "")), {}
        if url is not None and not url.scheme.startswith("unix"):
            return await _over_ip(record, url.scheme, url.hostname or "", url.port or SYSLOG_PORT)
        path = url.path if url is not None else _own_syslog()
        shown, network = path, url.scheme if url is not None else "unixgram"
    name = os.path.basename(path)  # noqa: PTH119
    return _remote(
        record,
        Destination(network, socket.AF_UNIX, (name,), shown),
        fd=_open_folder(path, network),
        fields=fields,
    )


def _own_syslog() -> str:
    for path in SYSLOG_SOCKETS:
        if Path(path).is_socket():
            return path
    raise Failed("failed to initialize logging driver: Unix syslog delivery error")


def _open_folder(path: str, network: str) -> int:
    try:
        return os.open(str(Path(path).resolve().parent), os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Failed(
            f"failed to initialize logging driver: dial {network} {path}: connect: {why}"
        ) from error


async def _over_ip(record: ContainerRecord, network: str, host: str, port: int) -> RemoteLog:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failed(
            f"failed to initialize logging driver: dial {network}: lookup {host}: {error.strerror}"
        ) from error
    family, _, _, _, where = found[0]
    address, port = str(where[0]), int(where[1])
    options = record.host_config.log_config.config or {}
    fd = None
    if network == SECURE:
        told = await asyncio.to_thread(logcertificates.told, options, host)
        fd = logcertificates.memory_file(told)
    shown = f"{address}:{port}"
    return _remote(record, Destination(network, family, (address, str(port)), shown), fd=fd)


def _remote(
    record: ContainerRecord,
    where: Destination,
    *,
    fd: int | None = None,
    fields: dict[str, str] | None = None,
) -> RemoteLog:
    config = record.host_config.log_config
    options = config.config or {}
    limit = _buffer_bytes(options)
    return RemoteLog(
        driver=config.type,
        network=where.network,
        family=where.family,
        address=where.address,
        shown=where.shown,
        fd=fd,
        blocking=not limit,
        max_buffer_bytes=limit,
        tag=tag(record, options.get("tag", "")),
        format=options.get("syslog-format", ""),
        facility=options_of.facility(options.get("syslog-facility", "")),
        hostname=platform.node(),
        fields=fields or {},
    )


def _journal_fields(record: ContainerRecord) -> dict[str, str]:
    options = record.host_config.log_config.config or {}
    chosen = tag(record, options.get("tag", ""))
    own = {
        "CONTAINER_ID": record.id[:SHORT_ID],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name.removeprefix("/"),
        "CONTAINER_TAG": chosen,
        "IMAGE_NAME": record.config.image,
        "SYSLOG_IDENTIFIER": chosen,
    }
    more = {
        re.sub("[^A-Z0-9]", "_", name.upper()).lstrip("_"): value
        for name, value in attributes(record).items()
    }
    return {**own, **more}
