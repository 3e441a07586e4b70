"""Groups that systemd makes: cgroupsPath is "SLICE:PREFIX:NAME", and the container a transient scope there.

systemd puts the processes that it is told of into a scope's groups when it makes them; the container's
process is made in them afterwards. So a process of no other use holds the scope until that one is there.
"""

from __future__ import annotations

import os

from berth.bundle.dbus import Connection, Refusal
from berth.errors import BerthError, Failed, InvalidArgument, Unsupported
from berth.kernel import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.oci.runtime_spec import Resources, Spec

    Property = tuple[str, tuple[str, object]]

BOOTED = "/run/systemd/system"  # sd_booted(3)
SOCKET = "/run/systemd/private"
MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
PROPERTIES = (MANAGER[0], MANAGER[1], "org.freedesktop.DBus.Properties")
EXISTS, UNKNOWN = (f"{MANAGER[0]}.{name}" for name in ("UnitExists", "NoSuchUnit"))
ANNOTATION = "org.systemd.property."
SUFFIX = ".slice"
UNLIMITED = (1 << 64) - 1
KILL = 9
PERIOD_US = 100_000
STEP_US = 10_000  # systemd rounds shares of a second to it


def is_running() -> bool:
    """Say whether systemd manages this machine, and the user's session for a user."""
    return os.path.isdir(BOOTED) and os.path.exists(_socket())


def check_running() -> None:
    """Refuse --systemd-cgroup where there is no systemd, in runc's words."""
    if not is_running():
        raise Unsupported(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available"
        )


def _socket() -> str:
    if os.geteuid() == 0:
        return SOCKET
    return f"{os.environ.get('XDG_RUNTIME_DIR', '')}/systemd/private"


class Place:
    """Where a spec wants its groups: a slice, and the unit in it."""

    def __init__(self, spec: Spec, id_: str) -> None:
        text = (spec.get("linux") or {}).get("cgroupsPath") or f":berth-oci:{id_}"
        parts = text.split(":")
        if len(parts) != 3:
            raise InvalidArgument(
                'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups,'
                f' got "{text}" instead'
            )
        default = "system.slice" if os.geteuid() == 0 else "user.slice"
        self.slice = parts[0] or default
        prefix, name = parts[1], parts[2] or id_
        if name.endswith(SUFFIX):
            self.unit = name
        else:
            self.unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        if "/" in self.unit:
            raise InvalidArgument(f"invalid unit name: {self.unit}")
        self.path = f"{expand(self.slice)}/{self.unit}"


def expand(slice_: str) -> str:
    """Return the path of a slice: each dash in its name is a step down (systemd.slice(5))."""
    if not slice_.endswith(SUFFIX) or slice_ == SUFFIX or "/" in slice_:
        raise InvalidArgument(f"invalid slice name: {slice_}")
    name = slice_.removesuffix(SUFFIX)
    if name == "-":
        return ""
    parts = name.split("-")
    if not all(parts):
        raise InvalidArgument(f"invalid slice name: {slice_}")
    steps = ("-".join(parts[: depth + 1]) for depth in range(len(parts)))
    return "".join(f"/{step}{SUFFIX}" for step in steps)


class Scope:
    """The unit of one container that is being made."""

    def __init__(self, place: Place, spec: Spec, id_: str) -> None:
        self.place = place
        self._spec = spec
        self._id = id_
        self._holder = 0

    def path(self) -> str:
        """Return the path of its groups from the top of each hierarchy."""
        with Connection(_socket()) as systemd:
            (top,) = systemd.call(PROPERTIES, "Get", "ss", MANAGER[2], "ControlGroup")
        return f"{str(top).rstrip('/')}{self.place.path}"

    def start(self) -> None:
        """Have systemd make the unit with its groups; until :meth:`let_go` something is in them."""
        self._holder = _hold()
        try:
            with Connection(_socket()) as systemd:
                try:
                    self._start(systemd)
                except Refusal as refusal:
                    if refusal.name != EXISTS:
                        raise
                    # One of that name that failed stays until somebody has seen it.
                    systemd.call(MANAGER, "ResetFailedUnit", "s", self.place.unit)
                    self._start(systemd)
        except BerthError as error:
            self.let_go()
            raise Failed(f"unable to start unit {self.place.unit!r}: {error.message}") from error

    def _start(self, systemd: Connection) -> None:
        (job,) = systemd.call(
            MANAGER,
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            self.place.unit,
            "replace",
            self._properties(),
            [],
        )
        result = systemd.wait_for_job(job)
        if result != "done":
            raise Failed(f"systemd says {result}")

    def _properties(self) -> list[Property]:
        found: list[Property] = [("Description", ("s", f"container {self._id}"))]
        if self.place.unit.endswith(SUFFIX):
            found.append(("Wants", ("as", [self.place.slice])))
        else:
            found.append(("Slice", ("s", self.place.slice)))
            found.append(("Delegate", ("b", True)))
            found.append(("PIDs", ("au", [self._holder])))
        only_unified = cgroups.detect().only_unified
        counted = ("CPU", "Memory", "IO" if only_unified else "BlockIO", "Tasks")
        found += [(f"{name}Accounting", ("b", True)) for name in counted]
        found.append(("DefaultDependencies", ("b", False)))
        found += limits((self._spec.get("linux") or {}).get("resources") or {})
        for name, text in (self._spec.get("annotations") or {}).items():
            if name.startswith(ANNOTATION):
                found.append((name.removeprefix(ANNOTATION), parse(text)))
        return found

    def stop(self) -> None:
        """Have systemd forget the unit."""
        stop(self.place.unit)

    def let_go(self) -> None:
        """End the process that held the scope. Idempotent."""
        if self._holder:
            os.kill(self._holder, KILL)
            os.waitpid(self._holder, 0)
            self._holder = 0


def _hold() -> int:
    """Return a process that does nothing, and ends with this one."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    return pid  # the other end of the pipe closes with this process


def limits(resources: Resources) -> list[Property]:
    """Return what systemd has to know of limits, lest it undoes them when it sets all of a unit's anew."""
    found: list[Property] = []
    only_unified = cgroups.detect().only_unified
    limit = resources.get("memory", {}).get("limit")
    if limit:
        name = "MemoryMax" if only_unified else "MemoryLimit"
        found.append((name, ("t", UNLIMITED if limit < 0 else limit)))
    cpu = resources.get("cpu", {})
    if shares := cpu.get("shares"):
        weight = 1 + (shares - 2) * 9999 // 262142
        found.append(("CPUWeight", ("t", weight)) if only_unified else ("CPUShares", ("t", shares)))
    if quota := cpu.get("quota"):
        each_s = quota * 1_000_000 // (cpu.get("period") or PERIOD_US)
        rounded = -(-each_s // STEP_US) * STEP_US
        found.append(("CPUQuotaPerSecUSec", ("t", UNLIMITED if quota < 0 else rounded)))
    if (most := resources.get("pids", {}).get("limit")) is not None:
        found.append(("TasksMax", ("t", most if most > 0 else UNLIMITED)))
    return found


def parse(text: str) -> tuple[str, object]:
    """Return a value that an annotation gives a property, in the forms that callers use of GVariant's."""
    kind, _, rest = text.strip().partition(" ")
    types = {"uint32": "u", "uint64": "t", "int32": "i", "int64": "x", "byte": "y"}
    if kind in types and rest.strip().lstrip("-").isdecimal():
        return types[kind], int(rest)
    if text.strip().lstrip("-").isdecimal():
        return "i", int(text)
    if text.strip() in ("true", "false"):
        return "b", text.strip() == "true"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return "s", text[1:-1]
    raise InvalidArgument(f"cannot parse the value {text!r} of a property of systemd's")


def set_limits(unit: str, resources: Resources) -> None:
    """Let systemd know new limits of a unit."""
    if wanted := limits(resources):
        with Connection(_socket()) as systemd:
            systemd.call(MANAGER, "SetUnitProperties", "sba(sv)", unit, True, wanted)


def stop(unit: str) -> None:
    """Have systemd forget a unit. Idempotent."""
    with Connection(_socket()) as systemd:
        for member, signature, values in (
            ("StopUnit", "ss", (unit, "replace")),
            ("ResetFailedUnit", "s", (unit,)),
        ):
            try:
                answer = systemd.call(MANAGER, member, signature, *values)
            except Refusal as refusal:
                if refusal.name != UNKNOWN:
                    raise
                return
            if answer:
                systemd.wait_for_job(answer[0])
