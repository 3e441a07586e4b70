"""--log-driver and --log-opt: which there are, and what they may say. Refusals are in Docker's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from berth.configuration.checks import size_bytes
from berth.engine import logcertificates
from berth.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from berth.engine.models import LogConfig

NONE, JSON_FILE, LOCAL, SYSLOG, JOURNALD = "none", "json-file", "local", "syslog", "journald"
DRIVERS = (JOURNALD, JSON_FILE, LOCAL, SYSLOG)  # in /info; "none" is none

LOCAL_FILES = 5  # of the driver local

MODES = ("", "blocking", "non-blocking")
COMMON = ("mode", "max-buffer-size")
CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex")
OPTIONS = {
    JSON_FILE: ("max-file", "max-size", "compress", *ATTRIBUTES, "tag"),
    LOCAL: ("max-file", "max-size", "compress"),
    SYSLOG: (
        *("syslog-address", "syslog-facility", "syslog-format", *ATTRIBUTES, "tag"),
        *logcertificates.OPTIONS,
    ),
    JOURNALD: (*ATTRIBUTES, "tag"),
}
UNKNOWN = {LOCAL: "unknown log opt '{}' for log driver local"}

FACILITIES = {
    name: number
    for number, name in enumerate(
        [
            "kern",
            "user",
            "mail",
            "daemon",
            "auth",
            "syslog",
            "lpr",
            "news",
            "uucp",
            "cron",
            "authpriv",
            "ftp",
        ]
    )
} | {f"local{number}": 16 + number for number in range(8)}
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
SECURE = "tcp+tls"
NETWORKS = ("udp", "tcp", SECURE, "unix", "unixgram")
TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
MAX_BUFFER_BYTES = 1 << 20


def check(config: LogConfig) -> None:
    """Raise for a driver or an option that is not there, or makes no sense."""
    if config.type == NONE:
        return
    options = config.config or {}
    _check_mode(options)
    if config.type not in OPTIONS:
        raise InvalidArgument(f"logger: no log driver named '{config.type}' is registered")
    known = (*OPTIONS[config.type], *COMMON, *CACHE)
    for name in options:
        if name not in known:
            form = UNKNOWN.get(config.type, f"unknown log opt '{{}}' for {config.type} log driver")
            raise InvalidArgument(form.format(name))
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            raise InvalidArgument(f"error parsing regexp: {error}: `{options[name]}`") from None
    files(options, "", max_files=1 if config.type == JSON_FILE else LOCAL_FILES)
    if config.type == SYSLOG:
        _check_syslog(options)


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in MODES:
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            size_bytes(options["max-buffer-size"])
        except InvalidArgument as error:
            raise InvalidArgument(
                f"error parsing option max-buffer-size: {error.message}"
            ) from None


def files(
    options: Mapping[str, str], prefix: str, *, max_files: int
) -> tuple[int | None, int, bool]:
    """Return the size of files (None: any), their number, and whether old ones are packed."""
    size = options.get(f"{prefix}max-size")
    number = options.get(f"{prefix}max-file", "")
    if number and not (number.isdecimal() and int(number) >= 1):
        raise InvalidArgument("max-file cannot be less than 1")
    count = int(number) if number else max_files
    max_size = size_bytes(size) if size is not None and size != "-1" else None
    if max_size == 0:
        raise InvalidArgument("max-size must be a positive number")
    text = options.get(f"{prefix}compress", "")
    compress = truth(text, f"{prefix}compress") if text else None
    if compress and not prefix and max_files == 1 and (count < 2 or max_size is None):
        raise InvalidArgument(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    return max_size, count, bool(compress)


def truth(text: str, name: str) -> bool:
    """Parse a boolean of Go's."""
    found = TRUTHS.get(text.lower())
    if found is None:
        raise InvalidArgument(f'invalid value for {name}: strconv.ParseBool: parsing "{text}"')
    return found


def _check_syslog(options: Mapping[str, str]) -> None:
    facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in FORMATS:
        raise InvalidArgument("Invalid syslog format")
    syslog_address(options.get("syslog-address", ""))


def facility(text: str) -> int:
    """Return the number of a facility; Docker's default is daemon's."""
    if not text:
        return FACILITIES["daemon"]
    if text.isdecimal() and int(text) <= FACILITIES["local7"]:
        return int(text)
    if text not in FACILITIES:
        raise InvalidArgument("invalid syslog facility")
    return FACILITIES[text]


def syslog_address(text: str) -> SplitResult | None:
    """Take an address apart; None for this machine's own syslog."""
    if not text:
        return None
    if "://" not in text:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    url = urlsplit(text)
    if url.scheme not in NETWORKS:
        raise InvalidArgument(f"unsupported protocol {url.scheme!r} in syslog-address")
    try:
        port = url.port
    except ValueError as error:
        raise InvalidArgument(f"syslog-address: {error}") from None
    if not url.scheme.startswith("unix") and not url.hostname:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    del port
    return url
