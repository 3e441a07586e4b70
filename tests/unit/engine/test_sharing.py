"""Namespaces of other containers, which are found by the ids of their processes."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from berth.engine.sharing import Joined
from berth.errors import Conflict
from berth.kernel import processes


def test_what_is_joined_is_of_its_process_also_when_that_has_ended() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pidfd, other = os.pidfd_open(pid), SimpleNamespace(id="a" * 64)
    task = SimpleNamespace(open_file=lambda name: processes.open_file(pid, name, pidfd))
    before = os.listdir("/proc/self/fd")
    joined = Joined(lambda _other: task)
    folder = joined.folder("network", other)
    assert os.stat(f"{folder}/ns/net") == os.stat("/proc/self/ns/net")
    assert str(pid) not in folder.split("/")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.raises(OSError, match=r"No such (process|file)"):
        os.stat(f"{folder}/ns/net")
    for ended in (joined, Joined(lambda _other: None)):
        with pytest.raises(Conflict, match="cannot join network of a non running container: aaa"):
            ended.folder("network", other)
    joined.close()
    assert os.listdir("/proc/self/fd") == before
    os.close(pidfd)
