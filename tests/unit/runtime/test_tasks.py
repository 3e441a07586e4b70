"""berthd's side of a monitor that says what it cannot understand."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from berth.errors import Unavailable
from berth.kernel import processes, sockets
from berth.runtime import checkpoints
from berth.runtime.channel import Channel, told_error
from berth.runtime.tasks import MONITOR_DIED, Task

if TYPE_CHECKING:
    from berth.runtime.requests import ExitRecord

STARTED = {"event": "started", "pid": 1, "started_at_ns": 5}


async def end_after(directory: Path, *messages: dict[str, object]) -> ExitRecord:
    """Return how a task ends whose monitor sends ``messages``."""
    ours, theirs = sockets.pair()
    task = Task("a" * 64, Channel(ours), directory)
    with open("/dev/null", "rb") as pidfd:
        for message in messages:
            sockets.send(theirs, json.dumps(message).encode(), [pidfd.fileno()])
    await task.started()
    found = await asyncio.wait_for(task.wait(), 20)
    theirs.close()
    return found


def test_an_end_without_a_field_that_is_younger_than_its_monitor_is_an_end(tmp_path: Path) -> None:
    exited = {"event": "exited", "exit_code": 7, "finished_at_ns": 9}
    found = asyncio.run(end_after(tmp_path, STARTED, exited))
    assert (found.exit_code, found.finished_at_ns, found.reason) == (7, 9, None)


def test_a_message_that_cannot_be_read_is_the_monitors_end(tmp_path: Path) -> None:
    found = asyncio.run(end_after(tmp_path, STARTED, {"event": "exited", "code": "seven"}))
    assert (found.exit_code, found.reason) == (137, MONITOR_DIED)


def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "exit.json").write_text('{"event": "exited"}')
    found = asyncio.run(end_after(tmp_path, STARTED, {"no": "event"}))
    assert found.reason == MONITOR_DIED


async def released(directory: Path) -> tuple[list[Channel], bytes]:
    """Return the channels that were free, and what their monitor heard from the task after that."""
    ours, theirs = sockets.pair()
    free: list[Channel] = []
    task = Task("a" * 64, Channel(ours), directory, lambda channel, _monitor: free.append(channel))
    exited = {"event": "exited", "exit_code": 0, "finished_at_ns": 9}
    with open("/dev/null", "rb") as pidfd:
        for message in (STARTED, exited, {"event": "free"}):
            sockets.send(theirs, json.dumps(message).encode(), [pidfd.fileno()])
    await task.started()
    await task.settle()
    sockets.receive(theirs)
    with pytest.raises(Unavailable):
        await task.resize(rows=1, columns=1)
    task.ended()
    free[0].send({"op": "task"})
    heard, _ = sockets.receive(theirs)
    theirs.close()
    return free, heard


def test_a_task_whose_monitor_is_free_cannot_reach_the_next_one(tmp_path: Path) -> None:
    free, heard = asyncio.run(released(tmp_path))
    assert len(free) == 1
    assert json.loads(heard) == {"op": "task"}


async def kept(directory: Path, *parts: int) -> list[int]:
    """Return what a later berthd is given by a monitor that keeps this many descriptors a message."""
    ours, theirs = sockets.pair()
    task = Task("a" * 64, Channel(ours), directory)
    with open("/dev/null", "rb") as file:
        started = {**STARTED, "kept": sum(parts)} if parts else STARTED
        sockets.send(theirs, json.dumps(started).encode(), [file.fileno()])
        for count in parts:
            sockets.send(theirs, b'{"event": "kept"}', [file.fileno()] * count)
        await asyncio.wait_for(task.started(), 20)
    theirs.close()
    return task.take_kept()


def test_what_a_monitor_kept_is_there_when_its_task_is(tmp_path: Path) -> None:
    found = asyncio.run(kept(tmp_path, 250, 3))
    assert len(set(found)) == 253
    for fd in found:
        os.close(fd)
    assert asyncio.run(kept(tmp_path)) == []  # of an earlier version, which kept nothing


async def ended_task(directory: Path) -> weakref.ref[Task]:
    """Return what is left of a task that has ended and been settled, with no collector at work."""
    ours, theirs = sockets.pair()
    task = Task("a" * 64, Channel(ours), directory)
    with open("/dev/null", "rb") as pidfd:
        sockets.send(theirs, json.dumps(STARTED).encode(), [pidfd.fileno()])
    await task.started()
    theirs.close()
    await task.settle()
    return weakref.ref(task)


def test_a_task_that_has_ended_is_in_no_cycle(tmp_path: Path) -> None:
    gc.disable()
    try:
        left = asyncio.run(ended_task(tmp_path))
        assert left() is None
    finally:
        gc.enable()


def test_a_process_with_a_name_of_any_bytes_is_followed(tmp_path: Path) -> None:
    """By who starts while its monitor is stopped, and by who makes a checkpoint."""
    pid = os.fork()
    if pid == 0:
        processes.set_name(b"a) \xff\n")
        signal.pause()

    async def follow() -> bool:
        task = Task("a" * 64, Channel(sockets.pair()[0]), tmp_path)
        return task.assume()

    (tmp_path / "task.json").write_text(json.dumps({"pid": pid, "monitor": os.getpid()}))
    try:
        while b"\xff" not in Path(f"/proc/{pid}/comm").read_bytes():
            os.sched_yield()
        assert asyncio.run(follow())
        assert not checkpoints._is_first(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_who_has_the_id_of_a_process_that_has_ended_is_not_taken_for_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    ended = os.fork()
    if ended == 0:
        os.read(reader, 1)
        os._exit(0)

    async def look() -> None:
        ours, theirs = sockets.pair()
        task = Task("a" * 64, Channel(ours), tmp_path)
        pidfd = os.pidfd_open(ended)
        # Another process, as after its id has come again.
        started = {**STARTED, "pid": os.getpid()}
        sockets.send(theirs, json.dumps(started).encode(), [pidfd])
        await task.started()
        os.close(task.open_file("ns/net"))
        os.write(writer, b"x")
        os.waitpid(ended, 0)
        before = os.listdir("/proc/self/fd")
        for name in ("ns/net", ""):
            with pytest.raises(ProcessLookupError):
                task.open_file(name)
        assert os.listdir("/proc/self/fd") == before
        for fd in (pidfd, reader, writer):
            os.close(fd)
        theirs.close()

    asyncio.run(look())


def test_an_error_about_a_name_of_any_bytes_can_be_told_to_clients() -> None:
    error = told_error({"error": {"code": "failed", "message": "mkdir /bad\udcff: not possible"}})
    assert error.message.encode() == "mkdir /bad\ufffd: not possible".encode()
