"""What the log says of a failure."""

from __future__ import annotations

import errno

from berth.errors import Failed
from berth.oci_cli.main import describe


def test_the_kernels_reason_is_in_lower_case_and_nothing_else() -> None:
    call = "mount overlay from /Srv/Images (RDONLY|NODEV)"
    error = OSError(errno.ENOENT, f"{call}: No such file or directory")
    assert describe(error) == f"{call}: no such file or directory"
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/Srv/Pid")
    assert describe(error) == "/Srv/Pid: no such file or directory"
    assert describe(Failed("Not Found", hint="Look")) == "Not Found (Look)"
