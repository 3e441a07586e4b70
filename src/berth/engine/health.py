"""Healthchecks: run each container's probe at its intervals, and tell what becomes of it.

What is known of a container's health is in memory only, as in Docker: another berthd begins anew.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from berth.engine import status
from berth.engine.admission import MIN_HEALTH_NS
from berth.engine.models import ExecConfig, ExecStart, Healthcheck
from berth.errors import BerthError
from berth.oci import times
from berth.runtime.requests import Attachment

if TYPE_CHECKING:
    from berth.engine.background import Background
    from berth.engine.containers import Containers
    from berth.engine.events import Events
    from berth.engine.execs import Exec, Execs
    from berth.engine.metrics import Metrics
    from berth.engine.models import ContainerConfig, ContainerRecord

Document = dict[str, object]

STARTING, HEALTHY, UNHEALTHY, NONE = "starting", "healthy", "unhealthy", "none"
INTERVAL_NS = 30 * times.SECOND_NS
TIMEOUT_NS = 30 * times.SECOND_NS
START_INTERVAL_NS = 5 * times.SECOND_NS
RETRIES = 3
MAX_RESULTS = 5
MAX_OUTPUT_BYTES = 4096
READ_BYTES = 64 << 10
DEFAULT_SHELL = ["/bin/sh", "-c"]
NO_CODE = -1
SIGKILL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one probe went."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str

    def document(self) -> Document:
        """Return it as inspect shows it."""
        return {
            "Start": times.rfc3339(self.start_ns),
            "End": times.rfc3339(self.end_ns),
            "ExitCode": self.exit_code,
            "Output": self.output,
        }


@dataclass(slots=True, kw_only=True)
class State:
    """What the probes of one container have shown."""

    status: str = STARTING
    streak: int = 0  # failures in a row
    results: deque[Result] = field(default_factory=lambda: deque(maxlen=MAX_RESULTS))

    def note(self, result: Result, check: Healthcheck, age_ns: int) -> bool:
        """Take a result in, of when the container had run so long; say whether the status is another now."""
        before = self.status
        self.results.append(result)
        if result.exit_code == 0:
            self.status, self.streak = HEALTHY, 0
        elif before != STARTING or age_ns >= check.start_period:
            self.streak += 1
            if self.streak >= (check.retries or RETRIES):
                self.status = UNHEALTHY
        return self.status != before

    def document(self) -> Document:
        """Return it as inspect shows it."""
        return {
            "Status": self.status,
            "FailingStreak": self.streak,
            "Log": [result.document() for result in self.results],
        }


def probe(config: ContainerConfig) -> list[str] | None:
    """Return the command that tells whether a container is well; None when nothing is checked."""
    kind, *words = (config.healthcheck and config.healthcheck.test) or ["NONE"]
    if kind == "CMD":
        return words
    if kind == "CMD-SHELL":
        return [*(config.shell or DEFAULT_SHELL), *words]
    return None


def delay_ns(check: Healthcheck, state: State, age_ns: int) -> int:
    """Return how long to wait for the next probe of a container that has run for ``age_ns``.

    What an image says of that, nobody has looked at.
    """
    wait_ns = check.interval or INTERVAL_NS
    if state.status == STARTING and age_ns < check.start_period:
        wait_ns = check.start_interval or START_INTERVAL_NS
    return max(wait_ns, MIN_HEALTH_NS)


class Health:
    """The health of every container that has a healthcheck."""

    def __init__(
        self,
        *,
        containers: Containers,
        execs: Execs,
        events: Events,
        metrics: Metrics,
        background: Background,
    ) -> None:
        self._containers = containers
        self._execs = execs
        self._events = events
        self._metrics = metrics
        self._background = background
        self._states: dict[str, State] = {}

    def of(self, record: ContainerRecord) -> State | None:
        """Return what is known; None for a container that never ran or has nothing to check."""
        if not record.started_ns or probe(record.config) is None:
            return None
        return self._states.get(record.id) or State()

    def word(self, record: ContainerRecord) -> str:
        """Return the status in a word."""
        state = self.of(record)
        return state.status if state is not None else NONE

    async def run(self) -> None:
        """Check what runs already and whatever is started from now on, until cancelled."""
        with self._events.listen() as queue:
            for record in self._containers.all():
                if record.status in status.ALIVE:
                    self._begin(record)
            while True:
                event = await queue.get()
                if event["Type"] == "container" and event["Action"] in ("start", "destroy"):
                    self._heed(str(event["Action"]), str(event["Actor"]["ID"]))  # type: ignore[index]

    def _heed(self, action: str, id_: str) -> None:
        record = self._containers.get(id_)
        if action == "destroy" or record is None:
            self._states.pop(id_, None)
        elif record.status in status.ALIVE:
            self._begin(record)

    def _begin(self, record: ContainerRecord) -> None:
        command, check = probe(record.config), record.config.healthcheck
        if command is None or check is None:
            return
        state = self._states.setdefault(record.id, State())
        state.status, state.streak = STARTING, 0
        self._background.start(
            self._watch(record, command, check, state), name=f"health {record.id[:12]}"
        )

    async def _watch(
        self, record: ContainerRecord, command: list[str], check: Healthcheck, state: State
    ) -> None:
        """Probe one run of a container, to its end."""
        run, ended = record.started_ns, self._containers.ended(record)
        began_ns = times.began_ns(run)
        while record.started_ns == run and not ended.is_set():
            wait_ns = delay_ns(check, state, time.monotonic_ns() - began_ns)
            try:
                await asyncio.wait_for(ended.wait(), wait_ns / times.SECOND_NS)
            except TimeoutError:
                if record.status == status.RUNNING:
                    age_ns = time.monotonic_ns() - began_ns
                    result = await self._probe(record, command, check)
                    if record.status == status.RUNNING and state.note(result, check, age_ns):
                        self._containers.emit(record, f"health_status: {state.status}")
        if record.started_ns == run:
            state.status = UNHEALTHY  # so Docker calls what is not checked any more

    async def _probe(
        self, record: ContainerRecord, command: list[str], check: Healthcheck
    ) -> Result:
        start_ns = time.time_ns()
        try:
            code, output = await self._run(record, command, check.timeout or TIMEOUT_NS)
        except BerthError as error:
            code, output = NO_CODE, error.message
        self._metrics.health_checks += 1
        self._metrics.health_checks_failed += code != 0
        return Result(start_ns=start_ns, end_ns=time.time_ns(), exit_code=code, output=output)

    async def _run(
        self, record: ContainerRecord, command: list[str], timeout_ns: int
    ) -> tuple[int, str]:
        """Run the command in the container; return its exit code and what it printed."""
        if not command:
            return NO_CODE, f"healthcheck for container {record.id} has no command"
        config = ExecConfig(cmd=command, attach_stdout=True, attach_stderr=True)
        found = self._execs.find(self._execs.create(record.id, config))
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            attachment = Attachment(fd=theirs.detach(), multiplexed=False)
            await self._execs.start(found, ExecStart(), attachment)
            return await self._outcome(found, ours, timeout_ns)
        finally:
            ours.close()
            self._execs.forget(found)

    async def _outcome(
        self, found: Exec, output: socket.socket, timeout_ns: int
    ) -> tuple[int, str]:
        task = found.task
        kept = bytearray()
        try:
            async with asyncio.timeout(timeout_ns / times.SECOND_NS):
                await _read(output, kept)
                if task is not None:
                    await task.wait()
        except TimeoutError:
            if task is not None:
                task.signal(SIGKILL)
                await task.wait()
            said = f": {_text(kept)}" if kept else ""
            return NO_CODE, f"Health check exceeded timeout ({_seconds(timeout_ns)}){said}"
        code = (await task.wait()).exit_code if task is not None else found.exit_code
        return NO_CODE if code is None else code, _text(kept)


async def _read(source: socket.socket, kept: bytearray) -> None:
    """Read to the end; keep one byte more than is shown, to know that there was more."""
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, READ_BYTES):
            kept += data[: MAX_OUTPUT_BYTES + 1 - len(kept)]
    except ConnectionError:  # the monitor let go while something was unread
        return


def _text(output: bytearray) -> str:
    shown = output[:MAX_OUTPUT_BYTES].decode(errors="replace")
    return shown + "..." if len(output) > MAX_OUTPUT_BYTES else shown


def _seconds(time_ns: int) -> str:
    """Return a duration about as Go prints it."""
    if time_ns < times.SECOND_NS:
        return f"{time_ns / 1e6:g}ms"
    minutes, seconds = divmod(time_ns / times.SECOND_NS, 60)
    return f"{minutes:.0f}m{seconds:g}s" if minutes else f"{seconds:g}s"
