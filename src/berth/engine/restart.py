"""Restart policy: decide whether and when, never start anything."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from berth.errors import InvalidArgument
from berth.oci import times

if TYPE_CHECKING:
    from berth.engine.models import ContainerRecord, HostConfig

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
HEALTHY_NS = 10_000_000_000
NAMES = ("", "no", "always", "unless-stopped", "on-failure")


def check_policy(host: HostConfig) -> None:
    """Refuse a policy that is none, or that does not go with automatic removal."""
    policy = host.restart_policy
    if policy.name not in NAMES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always',"
            " 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def wants_start_with_engine(record: ContainerRecord) -> bool:
    """Say whether a container that ended earlier is started when the engine is."""
    name = record.host_config.restart_policy.name
    if not record.started_ns:
        return False
    return name == "always" or (name == "unless-stopped" and not record.stopped_by_user)


def wants_restart(record: ContainerRecord, exit_code: int) -> bool:
    """Say whether a container that ended with ``exit_code`` should be started again."""
    policy = record.host_config.restart_policy
    if record.stopped_by_user:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and exit_code != 0:
        limit = policy.maximum_retry_count
        return limit == 0 or record.restart_count < limit
    return False


class Backoff:
    """The delay before the next start: doubled each time, as Docker does, until one ran for long."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._began_ns = time.monotonic_ns()

    def began(self, started_ns: int) -> None:
        """Note a run; when it began is what this machine's clock said."""
        self._began_ns = times.began_ns(started_ns)

    def next_delay_s(self) -> float:
        """Return the delay after a run that has just ended."""
        ran_ns = time.monotonic_ns() - self._began_ns
        if self._delay_s == 0.0 or ran_ns >= HEALTHY_NS:
            self._delay_s = FIRST_DELAY_S
        else:
            self._delay_s = min(self._delay_s * 2, MAX_DELAY_S)
        return self._delay_s
