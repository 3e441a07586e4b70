from __future__ import annotations

import os

import pytest

from berth.bundle import child


def test_a_failure_that_cannot_be_told_is_the_end_as_well(monkeypatch):
    monkeypatch.setattr(child, "STEPS", (lambda _: pytest.fail("as it shall"),))
    pid = os.fork()
    if not pid:
        try:
            child.Child.run(object.__new__(child.Child))  # without a socket
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == child.EXIT_SETUP_FAILED
