from __future__ import annotations

import subprocess
import sys

# Each is memory of every engine, and what it is for is rare.
DENIED = {
    *("bz2", "ctypes", "hashlib", "lzma", "ssl", "tomllib", "typing_extensions", "urllib3"),
    *("berth.builds.making", "berth.builds.requests", "berth.dockerfile.instructions"),
    *("berth.images.archive", "berth.images.streams", "berth.images.tar"),
    *("berth.runtime.checkpoints", "berth.runtime.launch", "berth.runtime.remapping"),
}


def test_berthd_loads_nothing_large_before_somebody_needs_it():
    program = (
        "import sys; from berth.cli import serve; serve.import_sparingly(); "
        "import berth.configuration.sources, berth.berthd; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "berth.engine.lives" in loaded
    assert not loaded & DENIED


def test_what_was_left_out_can_be_imported_afterwards():
    program = (
        "from berth.cli import serve; serve.import_sparingly(); "
        "import bz2, lzma, ssl, typing_extensions, zlib; print(ssl.create_default_context().check_hostname)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
