"""Numbers about an engine for Prometheus, under Docker's names where Docker has them."""

from __future__ import annotations

import functools
import os
import platform
import time
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

from berth import __version__
from berth.engine import status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

    from berth.engine.models import ContainerRecord
    from berth.engine.services import Services

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # Prometheus' own
ACTIONS = ("commit", "create", "delete", "start")
STATES = {status.RUNNING: "running", status.PAUSED: "paused"}
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PREFIX = "engine_daemon_"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Histogram:
    """How long something took, and how often it was done."""

    __slots__ = ("count", "counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS_S)
        self.count = 0
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Note one."""
        self.count += 1
        self.sum_s += seconds
        for index, bound in enumerate(BUCKETS_S):
            self.counts[index] += seconds <= bound


class Metrics:
    """What is counted while an engine runs."""

    def __init__(self) -> None:
        self.actions = {name: Histogram() for name in ACTIONS}
        self.health_checks = 0
        self.health_checks_failed = 0


class _HasServices(Protocol):
    @property
    def _services(self) -> Services: ...


Owner = TypeVar("Owner", bound=_HasServices)


def timed(
    action: str,
) -> Callable[
    [Callable[Concatenate[Owner, Parameters], Awaitable[Result]]],
    Callable[Concatenate[Owner, Parameters], Coroutine[object, object, Result]],
]:
    """Note how long a verb took, when it succeeded."""

    def decorate(
        verb: Callable[Concatenate[Owner, Parameters], Awaitable[Result]],
    ) -> Callable[Concatenate[Owner, Parameters], Coroutine[object, object, Result]]:
        @functools.wraps(verb)
        async def run(
            owner: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs
        ) -> Result:
            began = time.monotonic()
            result = await verb(owner, *args, **kwargs)
            owner._services.metrics.actions[action].observe(time.monotonic() - began)
            return result

        return run

    return decorate


def render(services: Services, records: Iterable[ContainerRecord]) -> str:
    """Return everything in Prometheus' text format."""
    return "\n".join([*_engine(services), *_containers(services, records), *_process(), ""])


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"{name} {value}"


def _engine(services: Services) -> Iterator[str]:
    labels = {
        "architecture": platform.machine(),
        "daemon_id": services.instance.name,
        "kernel": platform.release(),
        "os_type": "linux",
        "version": __version__,
    }
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
    name = PREFIX + "engine_info"
    yield from _head(name, "gauge", "The engine and the machine it runs on")
    yield f"{name}{{{pairs}}} 1"
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
    cpus, events, metrics = os.cpu_count() or 1, services.events, services.metrics
    for name, kind, text, value in (
        ("engine_cpus_cpus", "gauge", "Processors of the machine", cpus),
        ("engine_memory_bytes", "gauge", "Memory of the machine", memory),
        ("events_total", "counter", "Events that happened", events.emitted),
        ("events_subscribers_total", "gauge", "Clients that listen to events", events.clients),
        ("health_checks_total", "counter", "Probes of containers' health", metrics.health_checks),
        (
            "health_checks_failed_total",
            "counter",
            "Probes that failed",
            metrics.health_checks_failed,
        ),
    ):
        yield from _one(PREFIX + name, kind, text, value)


def _containers(services: Services, records: Iterable[ContainerRecord]) -> Iterator[str]:
    states = {"paused": 0, "running": 0, "stopped": 0}
    for record in records:
        states[STATES.get(record.status, "stopped")] += 1
    name = PREFIX + "container_states_containers"
    yield from _head(name, "gauge", "Containers by their state")
    for state, count in states.items():
        yield f'{name}{{state="{state}"}} {count}'
    name = PREFIX + "container_actions_seconds"
    yield from _head(name, "histogram", "How long it took to do something with a container")
    for action, histogram in services.metrics.actions.items():
        for bound, count in zip(BUCKETS_S, histogram.counts, strict=True):
            yield f'{name}_bucket{{action="{action}",le="{bound:g}"}} {count}'
        yield f'{name}_bucket{{action="{action}",le="+Inf"}} {histogram.count}'
        yield f'{name}_sum{{action="{action}"}} {histogram.sum_s:.6f}'
        yield f'{name}_count{{action="{action}"}} {histogram.count}'


def _process() -> Iterator[str]:
    """Say what the engine itself uses, as Prometheus' libraries say it of every process."""
    with open("/proc/self/stat") as file:  # noqa: PTH123 - a line of the kernel's
        fields = file.read().rpartition(")")[2].split()
    used_s = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
    started_s = (
        time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / CLOCK_TICKS
    )
    for name, kind, text, value in (
        ("cpu_seconds_total", "counter", "Processor time used", used_s),
        ("open_fds", "gauge", "Open descriptors", len(os.listdir("/proc/self/fd"))),  # noqa: PTH208
        ("resident_memory_bytes", "gauge", "Resident memory", int(fields[21]) * PAGE_BYTES),
        ("virtual_memory_bytes", "gauge", "Virtual memory", int(fields[20])),
    ):
        yield from _one(f"process_{name}", kind, text, value)
    yield from _head("process_start_time_seconds", "gauge", "When the process began")
    yield f"process_start_time_seconds {started_s:.2f}"
