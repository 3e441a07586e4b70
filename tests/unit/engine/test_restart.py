"""Whether a container is started again, and how long that waits."""

from __future__ import annotations

import itertools
import time

from berth.engine.restart import FIRST_DELAY_S, HEALTHY_NS, MAX_DELAY_S, Backoff


def test_the_delay_doubles_up_to_a_minute() -> None:
    backoff = Backoff()
    delays = []
    for _ in range(14):
        backoff.began(time.time_ns())
        delays.append(backoff.next_delay_s())
    assert delays[:4] == [FIRST_DELAY_S, 0.2, 0.4, 0.8]
    assert delays[-3:] == [MAX_DELAY_S] * 3
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(delays))


def test_a_run_that_was_long_begins_anew() -> None:
    backoff = Backoff()
    backoff.began(time.time_ns())
    assert [backoff.next_delay_s() for _ in range(3)] == [FIRST_DELAY_S, 0.2, 0.4]
    backoff.began(time.time_ns() - HEALTHY_NS - 1)
    assert backoff.next_delay_s() == FIRST_DELAY_S
