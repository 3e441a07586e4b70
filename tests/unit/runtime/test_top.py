"""What `docker top` reads of processes, which may be hostile."""

import subprocess
import sys

import pytest

from berth.runtime import top


@pytest.fixture
def wordy():
    """A process with megabytes of arguments."""
    command = [sys.executable, "-c", "print(flush=True); input()", *["x" * 100_000] * 15]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


def test_arguments_without_end_take_no_memory_without_end(wordy):
    found = top.document([wordy] * 100, "-o pid,cmd")
    commands = [row[1] for row in found["Processes"]]
    assert len(commands) == 100
    assert len(commands[0]) == top.MAX_COMMAND_BYTES
    assert sum(map(len, commands)) < top.MAX_COMMANDS_BYTES + top.MAX_COMMAND_BYTES
    assert commands[-1].startswith("[python")
