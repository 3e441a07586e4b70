"""Who may use which devices: what is asked for, and what every container has."""

from __future__ import annotations

from berth.bundle.warnings import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import DeviceRule

# config-linux.md, "Default Devices".
DEFAULTS: tuple[tuple[str, int, int], ...] = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
ACCESS = "rwm"
CONSOLE, PTMX, PTS = (5, 1), (5, 2), 136
NOTHING: DeviceRule = {"allow": False, "access": "rwm"}


def rules(asked: list[DeviceRule]) -> list[DeviceRule]:
    """Return the rules: nothing, what is asked for, and what every container has in the end."""
    numbers = [(major, minor) for _, major, minor in DEFAULTS] + [CONSOLE, PTMX]
    found: list[DeviceRule] = [NOTHING, *map(_known, asked)]
    found += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    found += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in numbers
    ]
    return [*found, {"allow": True, "type": "c", "major": PTS, "access": "rwm"}]


def _known(rule: DeviceRule) -> DeviceRule:
    """Leave out what is no access, as runc does."""
    access = rule.get("access", "")
    known = "".join(letter for letter in access if letter in ACCESS)
    if known == access:
        return rule
    warn(f"device rule: unknown access in {access!r}")
    return {**rule, "access": known}
