from __future__ import annotations

import os

import pytest

from berth.errors import BerthError
from berth.images.unpack import extract_layer


@pytest.fixture
def extract(tmp_path):
    """Return a function that extracts an archive's bytes into a new directory, in a process of its own."""
    count = 0

    def run(data):
        nonlocal count
        count += 1
        target = tmp_path / f"fs{count}"
        target.mkdir()
        blob = tmp_path / f"blob{count}"
        blob.write_bytes(data)
        outcome = in_child(str(blob), str(target))
        if outcome:
            raise BerthError(outcome)
        return target

    return run


def in_child(blob, target):
    """Extract in a child (it changes umask and directory); return the error's text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        text = ""
        try:
            os.umask(0)
            directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
            extract_layer(os.open(blob, os.O_RDONLY), directory, {}, lambda _: None)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text
