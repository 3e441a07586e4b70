"""The log that callers of a runtime read: lines of text or JSON, in a file or on stderr."""

from __future__ import annotations

import os
import sys
import time

from berth.errors import InvalidArgument
from berth.runtime import codec


class Log:
    """Where messages go."""

    def __init__(self) -> None:
        self._fd = -1
        self._json = False
        self._debug = False

    def configure(self, path: str, form: str, *, debug: bool) -> None:
        """Set the file and the format."""
        self._debug = debug
        if form not in ("", "text", "json"):
            raise InvalidArgument(f"invalid log-format: {form}")
        self._json = form == "json"
        if path:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644)

    def failure(self, text: str) -> None:
        """Say why the command failed; always on stderr as well."""
        self._write("error", text)
        if self._fd >= 0:
            print(text, file=sys.stderr)

    def warning(self, text: str) -> None:
        """Say what was passed over."""
        self._write("warning", text)

    def debug(self, text: str) -> None:
        """Say what is being done, when asked to."""
        if self._debug:
            self._write("debug", text)

    def _write(self, level: str, text: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = codec.encode({"level": level, "msg": text, "time": now}).decode()
        else:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            line = f'time="{now}" level={level} msg="{quoted}"'
        os.write(self._fd if self._fd >= 0 else 2, f"{line}\n".encode(errors="replace"))
