"""`update`: other limits for a container that is there."""

from __future__ import annotations

from berth.bundle.status import STOPPED, group, status
from berth.bundle.warnings import warn
from berth.cli import units
from berth.errors import BerthError, Conflict, InvalidArgument, Unsupported
from berth.oci_cli import bundles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from berth.cli.options import Options
    from berth.kernel.cgroups import Cgroup
    from berth.oci.runtime_spec import Cpu, Memory, Resources
    from berth.oci_cli.invocation import Invocation

CPU_NUMBERS = {
    "cpu-period": "period",
    "cpu-quota": "quota",
    "cpu-burst": "burst",
    "cpu-share": "shares",
    "cpu-rt-period": "realtimePeriod",
    "cpu-rt-runtime": "realtimeRuntime",
    "cpu-idle": "idle",
}
CPU_TEXTS = {"cpuset-cpus": "cpus", "cpuset-mems": "mems"}
SIZES = {"memory": "limit", "memory-reservation": "reservation", "memory-swap": "swap"}
SECTIONS = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified")


def do_update(call: Invocation) -> int:
    """Set the limits and note them; the rest stays as it is."""
    folder, record = call.open()
    if status(folder, record) == STOPPED:
        raise Conflict("cannot update a container that has stopped")
    source = call.options.text("resources")
    wanted = bundles.read_resources(source) if source else _from_flags(call.options)
    # Callers that send all limits send those of create, which are not all that the group was given then.
    wanted.pop("devices", None)
    if call.options.text("l3-cache-schema") or call.options.text("mem-bw-schema"):
        raise InvalidArgument("Intel RDT is not supported here")
    groups = group(record)
    if groups is None:
        raise Unsupported("the container has no cgroup of its own")
    known = record.setdefault("spec", {}).setdefault("linux", {}).setdefault("resources", {})
    try:
        groups.apply(wanted)
        if unit := record.get("systemd_unit"):
            from berth.bundle import systemd

            systemd.set_limits(unit, wanted)
    except BerthError:
        _go_back(groups, known, wanted)
        raise
    _note(known, wanted)
    folder.save(record)
    return 0


def _go_back(groups: Cgroup, known: Resources, wanted: Resources) -> None:
    """Set what is known anew, of what was to be changed: some of it may be."""
    before = {key: known[key] for key in SECTIONS if key in wanted and known.get(key)}  # type: ignore[literal-required]
    try:
        groups.apply(before)  # type: ignore[arg-type]
    except BerthError as error:
        warn(f"limits may differ from what is noted of them: {error.message}")


def _from_flags(given: Options) -> Resources:
    found: Resources = {}
    memory: Memory = {}
    for flag, key in SIZES.items():
        if text := given.text(flag):
            memory[key] = _size(text, flag)  # type: ignore[literal-required]
    if memory:
        found["memory"] = memory
    if cpu := _cpu(given):
        found["cpu"] = cpu
    if given.given("pids-limit"):
        found["pids"] = {"limit": given.number("pids-limit")}
    if weight := given.number("blkio-weight"):
        found["blockIO"] = {"weight": weight}
    return found


def _cpu(given: Options) -> Cpu:
    cpu: Cpu = {}
    for flag, key in CPU_NUMBERS.items():
        if text := given.text(flag):
            cpu[key] = _number(text, flag)  # type: ignore[literal-required]
    for flag, key in CPU_TEXTS.items():
        if text := given.text(flag):
            cpu[key] = text  # type: ignore[literal-required]
    return cpu


def _size(text: str, flag: str) -> int:
    if text == "-1":
        return -1
    try:
        return units.size(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {flag}: {error}") from error


def _number(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"invalid value for {flag}: {text!r} is not a number") from None


def _note(known: Resources, wanted: Resources) -> None:
    """Merge what was set into what is known."""
    for section in SECTIONS:
        value = wanted.get(section)
        old = known.get(section)
        if isinstance(value, dict) and isinstance(old, dict):
            old.update(value)
        elif value:
            known[section] = value  # type: ignore[literal-required]
