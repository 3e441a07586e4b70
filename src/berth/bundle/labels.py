"""Labels of security modules: AppArmor's profile and SELinux's label, which the program then runs with.

They are written to files of the process's own in the host's /proc, opened while that is there: a container's
/proc may be anything.
"""

from __future__ import annotations

import os

from berth.errors import Failed, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Process

UNCONFINED = "unconfined"
APPARMOR = "/sys/module/apparmor/parameters/enabled"
SELINUX = "/sys/fs/selinux/enforce"
# AppArmor's own file, since modules can be stacked, and the one that all shared before.
APPARMOR_FILES = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")
SELINUX_FILES = ("/proc/self/attr/exec",)


def has_apparmor() -> bool:
    """Say whether the kernel has AppArmor, and uses it."""
    try:
        with open(APPARMOR) as file:
            return file.read().strip() == "Y"
    except OSError:
        return False


def has_selinux() -> bool:
    """Say whether the kernel uses SELinux."""
    return os.path.exists(SELINUX)


def check(process: Process) -> None:
    """Refuse labels that nothing here knows."""
    if _profile(process) and not has_apparmor():
        raise Unsupported("apparmorProfile is specified but apparmor is not supported on the host")
    if process.get("selinuxLabel") and not has_selinux():
        raise Unsupported("selinuxLabel is specified but selinux is not supported on the host")


def _profile(process: Process) -> str:
    profile = process.get("apparmorProfile", "")
    return "" if profile == UNCONFINED else profile


class Labels:
    """The labels of one process that is on its way."""

    def __init__(self, process: Process) -> None:
        self._wanted: list[tuple[str, str, int]] = []  # (what it is, what to write, descriptor)
        if profile := _profile(process):
            self._add(f"apparmor profile {profile}", f"exec {profile}", APPARMOR_FILES)
        if label := process.get("selinuxLabel"):
            self._add(f"selinux label {label}", label, SELINUX_FILES)

    def _add(self, what: str, text: str, files: tuple[str, ...]) -> None:
        path = next((path for path in files if os.path.exists(path)), files[-1])
        self._wanted.append((what, text, os.open(path, os.O_WRONLY | os.O_CLOEXEC)))

    def descriptors(self) -> list[int]:
        """Return what must stay open until :meth:`apply`."""
        return [fd for _, _, fd in self._wanted]

    def apply(self) -> None:
        """Have the next program run with them."""
        for what, text, fd in self._wanted:
            try:
                os.write(fd, text.encode())
            except OSError as error:
                raise Failed(f"unable to apply {what}: {error.strerror}") from error
            os.close(fd)
