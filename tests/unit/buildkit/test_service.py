from __future__ import annotations

import subprocess
import sys


def test_berthd_loads_nothing_of_it_before_a_client_comes():
    program = (
        "import sys, berth.berthd; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('grpclib', 'h2', 'google')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
