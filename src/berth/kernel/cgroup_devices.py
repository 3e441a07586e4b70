"""Device rules, and version 1's control files for them; `device_programs` has version 2's.

Later rules win over earlier ones. On version 2 what no rule names is refused.
"""

from __future__ import annotations

from berth.errors import InvalidArgument
from berth.kernel.cgroup_files import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth.oci.runtime_spec import DeviceRule

ANY = -1
EVERYTHING = "a *:* rwm"
ACCESS = "rwm"
KINDS = ("b", "c")


def allow(fd: int, path: str, rules: Sequence[DeviceRule]) -> None:
    """Write version 1's device rules in order."""
    for rule in rules:
        name = "devices.allow" if rule.get("allow") else "devices.deny"
        write(fd, f"{path}/{name}", line(rule))


def line(rule: DeviceRule) -> str:
    """Return a rule as version 1's files take it: "c 1:3 rwm", "a *:* rwm" for everything."""
    kind, major, minor, access = parts(rule)
    if kind == "a":
        return EVERYTHING
    numbers = ":".join("*" if number == ANY else str(number) for number in (major, minor))
    return f"{kind} {numbers} {access}"


def parts(rule: DeviceRule) -> tuple[str, int, int, str]:
    """Return kind, major, minor and access of a rule with what it leaves out filled in."""
    kind, access = rule.get("type") or "a", rule.get("access") or ACCESS
    if kind not in ("a", *KINDS) or not set(access) <= set(ACCESS):
        raise InvalidArgument(f"invalid device rule: type {kind!r}, access {access!r}")
    major, minor = rule.get("major"), rule.get("minor")
    numbers = [ANY if number is None or number < 0 else number for number in (major, minor)]
    return kind, numbers[0], numbers[1], access
